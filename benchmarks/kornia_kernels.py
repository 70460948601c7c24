"""Where kornia has a kernel of a rule-based family: how long does it take, against what the family uses?

    python benchmarks/kornia_kernels.py --side 256

Both take turns in one process on one thread; times are medians of CPU time, so that other work on the machine disturbs
them little. The table in `docs/methods/rule_based.md` comes from here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from kornia import color, contrib, enhance, filters, morphology
from kornia.geometry.transform import elastic_transform2d, remap
from scipy import ndimage
from torch.nn import functional as F

from anomalib_synth.functional.enhancement import change_chroma
from anomalib_synth.functional.foreground import _dilate
from anomalib_synth.functional.masks import box_blur
from anomalib_synth.functional.noise import value_noise
from anomalib_synth.functional.warping import displace

if TYPE_CHECKING:
    from collections.abc import Callable

Case = tuple["Callable[[], object]", "Callable[[], object]"]


def cpu_ms(call: Callable[[], object]) -> float:
    """Return the CPU time of one call in milliseconds."""
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


def list_warps(side: int) -> dict[str, Case]:
    """Return the warps: what the family uses, and kornia's."""
    image, dx, dy = torch.rand(1, 3, side, side), *(4 * torch.rand(2, 1, 1, side, side))
    noise = torch.rand(1, 2, side, side) - 0.5
    place = torch.arange(side, dtype=torch.float32).view(1, 1, 1, -1)
    across, down, cell = place, place.transpose(2, 3), torch.tensor([side / 6])
    size, sigma = side // 12 * 2 + 1, side / 18
    grid = torch.stack([dx[:, 0], dy[:, 0]], -1) / side

    def lattice() -> torch.Tensor:
        fields = [value_noise(torch.tensor([seed]), across, down, cell) for seed in (1, 2)]
        return displace(image, *fields)

    return {
        "rotation of Perlin noise (grid_sample)": (
            lambda: F.grid_sample(image, grid, padding_mode="reflection", align_corners=False),
            lambda: remap(
                image,
                grid[..., 0],
                grid[..., 1],
                "bilinear",
                "reflection",
                align_corners=False,
                normalized_coordinates=True,
            ),
        ),
        "elastic field": (lattice, lambda: elastic_transform2d(image, noise, (size, size), (sigma, sigma))),
    }


def list_masks(side: int) -> dict[str, Case]:
    """Return morphology, distances and blurs of masks."""
    inside = np.random.default_rng(0).random((side, side)) > 0.99
    mask = torch.from_numpy(inside)[None, None].float()
    image, coarse = torch.rand(1, 3, side, side), torch.rand(4, 1, 64, 64) > 0.5
    reach = max(1, side // 64)
    row = torch.ones(1, 2 * reach + 1)
    cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    wide, square = (2 * reach + 1, 2 * reach + 1), np.ones((3, 3), dtype=bool)
    return {
        "box blur, 3 x 3": (
            lambda: box_blur(image),
            lambda: filters.box_blur(image, (3, 3), "replicate", separable=True),
        ),
        "soft edge of a mask": (
            lambda: box_blur(mask, reach),
            lambda: filters.gaussian_blur2d(mask, wide, (reach / 2, reach / 2), "replicate"),
        ),
        "dilation of a mask": (
            lambda: box_blur(mask, reach) > 0,
            lambda: morphology.dilation(morphology.dilation(mask, row), row.T) > 0,
        ),
        "step of the foreground's fill, 64 x 64": (
            lambda: _dilate(coarse),
            lambda: morphology.dilation(coarse.float(), cross) > 0,
        ),
        "closing, 3 x 3": (
            lambda: ndimage.binary_closing(inside, square),
            lambda: morphology.closing(mask, torch.ones(3, 3)),
        ),
        "distance transform": (
            lambda: ndimage.distance_transform_edt(~inside),
            lambda: contrib.distance_transform(mask),
        ),
    }


def list_colours(side: int) -> dict[str, Case]:
    """Return what changes colours."""
    image = torch.rand(1, 3, side, side)
    turned = change_chroma(1.2, 0.3)
    return {
        "hue and saturation (kornia's YUV, HSV)": (
            lambda: turned(image),
            lambda: enhance.adjust_saturation(enhance.adjust_hue(image, 0.3), 1.2),
        ),
        "sharpness (none, kornia)": (lambda: None, lambda: enhance.sharpness(image, 0.5)),
        "colour out (mean, kornia)": (lambda: sum(image.unbind(1)) * (1 / 3), lambda: color.rgb_to_grayscale(image)),
    }


def main() -> None:
    """Print one line a kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, (ours, theirs) in (list_warps(args.side) | list_masks(args.side) | list_colours(args.side)).items():
        ours()
        theirs()
        pairs = [(cpu_ms(ours), cpu_ms(theirs)) for _ in range(args.rounds)]
        first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name:42s} used {first:8.2f} ms   kornia's {second:8.2f} ms", flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()

"""Windows of normals with captioned defects: what the local models learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.generators.proposal import crop
from anomalib_synth.generators.seeding import Draws, hash64

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """Windows of one size, each with one defect.

    Shape:
        - ``source``, ``image``: (B, C, S, S) float32 in [0, 1], before and after
        - ``mask``: (B, 1, S, S) float32 in {0, 1}, never empty
        - ``captions``, ``families``: B strings
    """

    source: torch.Tensor
    image: torch.Tensor
    mask: torch.Tensor
    captions: list[str]
    families: list[str]


class WindowSampler:
    """Draws training windows; the same for the same seed and step, whatever was drawn before.

    Args:
        normals: Images (3, H, W), uint8 or float in [0, 1], each at least ``size`` high and wide.
        generator: Draws the captioned defects onto the windows.
        size: Side of a window in pixels.
        seed: Seed of all draws.

    Raises:
        ValueError: If there is no image, or one is smaller than a window or has not 3 channels.
    """

    def __init__(
        self, normals: Sequence[torch.Tensor], generator: AnomalyGenerator, *, size: int = 64, seed: int = 0
    ) -> None:
        if not normals:
            msg = "`normals` must hold at least one image, got none."
            raise ValueError(msg)
        for image in normals:
            if image.ndim != 3 or image.shape[0] != 3 or min(image.shape[1:]) < size:
                msg = (
                    f"`normals` must be (3, H, W) with H and W >= {size}, the side of a window; got "
                    f"{tuple(image.shape)}. Resize the images or choose a smaller window."
                )
                raise ValueError(msg)
        self.normals = list(normals)
        self.generator = generator
        self.size = size
        self.seed = seed

    def draw_sources(self, step: int, count: int) -> torch.Tensor:
        """Draw windows without defects, turned and mirrored at random: (count, 3, S, S)."""
        windows = []
        for number in range(count):
            rng = Draws(hash64(self.seed, "window", step, number))
            image = self.normals[rng.choice(range(len(self.normals)))]
            top = int(rng.unit() * (image.shape[1] - self.size + 1))
            left = int(rng.unit() * (image.shape[2] - self.size + 1))
            window = crop(image[None], [0], [top], [left], self.size, self.size)[0]
            window = window.rot90(int(rng.unit() * 4), (1, 2))
            windows.append(_to_unit(window.flip(2) if rng.unit() < 0.5 else window))
        return torch.stack(windows)

    def draw(self, step: int, count: int) -> WindowBatch:
        """Draw windows with defects; at most ``count``, as those that fail the generator's checks are left out."""
        sources = self.draw_sources(step, count)
        seeds = [hash64(self.seed, "defect", step, number) for number in range(count)]
        sample = self.generator(sources, seeds=seeds)
        rows = sample.accepted.nonzero().flatten().tolist()
        return WindowBatch(
            source=sample.source[rows],
            image=sample.image[rows],
            mask=sample.mask[rows],
            captions=[sample.caption[row] for row in rows],
            families=[sample.provenance[row].family for row in rows],
        )


def _to_unit(window: torch.Tensor) -> torch.Tensor:
    return window.float() / 255 if window.dtype == torch.uint8 else window.float()

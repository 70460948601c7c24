"""What `anomalib-synth fit` reads and learns from."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from anomalib_synth.generators import AnomalyGenerator, MixtureGenerator, RealDefectGenerator, RuleBasedGenerator
from anomalib_synth.generators.families import PHYSICAL
from anomalib_synth.progress import make_progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.progress import TaskID

    from anomalib_synth.fitting.bundle import Advance
    from anomalib_synth.images import ImageFolder, WhitePoint


@contextmanager
def show_progress() -> Iterator[Advance]:
    """Show a bar for each stage of a training."""
    with make_progress() as progress:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, step: int, steps: int, text: str) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=steps)
            progress.update(tasks[stage], completed=step, description=f"{stage:<12} {text:<24}")

        yield advance


def read_images(folder: ImageFolder, *, least: int) -> list[torch.Tensor]:
    """Return images (3, H, W) uint8; one whose shorter side is below ``least`` is enlarged to it.

    Raises:
        ValueError: If fewer than two can be read.
    """
    images = [
        _enlarge(torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1), least).contiguous()
        for _, pixels in folder
    ]
    folder.require(2, "normals")
    return images


def choose_teacher(
    defects: Path | None, white: WhitePoint, *, size: tuple[float, float] = (0.03, 0.3)
) -> AnomalyGenerator:
    """Return what draws the captioned defects: the physical families and, half of the time, real ones.

    Args:
        defects: Images of real defects, if there are any.
        white: White of the normals, by which these are read too.
        size: Smallest and largest size of the drawn defects, as a share of the image.
    """
    rules = RuleBasedGenerator(PHYSICAL, size=size, strength=(0.4, 1.0), foreground=None)
    if defects is None:
        return rules
    return MixtureGenerator([rules, RealDefectGenerator(defects, foreground=None, white_point=white.value)])


def _enlarge(pixels: torch.Tensor, least: int) -> torch.Tensor:
    shorter = min(pixels.shape[1:])
    if shorter >= least:
        return pixels
    size = [max(least, round(side * least / shorter)) for side in pixels.shape[1:]]
    return F.interpolate(pixels[None].float(), size=size, mode="bilinear")[0].round().to(torch.uint8)

"""Regions for defects that the caller gives, as a mask or as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from anomalib_synth.generators.families.family import contrast_word, drop_colours
from anomalib_synth.generators.prompts import family_of
from anomalib_synth.generators.proposal import Proposal
from anomalib_synth.generators.windows import draw_shapes, has_no_colour
from anomalib_synth.images import check_same_aspect, read_mask

if TYPE_CHECKING:
    from anomalib_synth.generators.rule_based import RuleBasedGenerator


def read_region(path: Path | str, size: tuple[int, int]) -> torch.Tensor:
    """Read a region from a mask image, resized to an image's size; thin lines survive shrinking.

    Args:
        path: The mask image, read as in :mod:`anomalib_synth.images.masks`.
        size: Height and width of the image.

    Returns:
        (1, 1, H, W) bool.

    Raises:
        ValueError: If it cannot be read, marks nothing, or has another aspect ratio than the image.
    """
    inside = np.ascontiguousarray(read_mask(Path(path), "region", of_defect=False))
    check_same_aspect(inside.shape, size, f"`region` {str(path)!r}")
    region = torch.from_numpy(inside)[None, None].float()
    smaller = tuple(min(own, wanted) for own, wanted in zip(inside.shape, size, strict=True))
    return F.interpolate(F.adaptive_max_pool2d(region, smaller), size, mode="nearest") > 0


def fill_region(
    shapes: RuleBasedGenerator, image: torch.Tensor, row: int, seed: int, region: torch.Tensor, prompt: str | None
) -> tuple[Proposal, str]:
    """Return a region as the outline of a defect, and the text that says what fills it.

    Args:
        shapes: Draws a defect about as large as the region, for its caption and its strength.
        image: (C, H, W), one row of the batch.
        row: Index of that row.
        seed: Seed of the draw.
        region: (H, W) bool, with at least one pixel.
        prompt: What fills it; None takes the drawn defect's caption.
    """
    draws = draw_shapes(shapes, prompt, seed, image.shape[1], image.shape[2])
    if prompt is None:  # draw a family, then more defects of it to choose the size from
        draws = draw_shapes(shapes.only(draws[0][0].name), None, seed, image.shape[1], image.shape[2])
    rows, columns = (region.any(axis).nonzero() for axis in (1, 0))
    top, left = int(rows.min()), int(columns.min())
    box = slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1)
    wanted = max(stop.stop - stop.start for stop in box)
    family, params = min(draws, key=lambda draw: abs(max(draw[1]["extent_y"], draw[1]["extent_x"]) - wanted))
    caption = family.describe(params)
    caption = drop_colours(caption) if has_no_colour(image) else caption
    named = prompt is None or family_of(prompt) is not None
    support = region[box][None, None]
    outline = Proposal(
        rows=[row],
        top=[top],
        left=[left],
        target=image[:, *box][None],
        alpha=support.float(),
        support=support,
        families=[family.name if named else "region"],
        captions=[f"{caption}, {contrast_word(params['strength'])}"],
        params=[{"strength": params["strength"]}],
    )
    return outline, prompt or caption


def clip_to_region(shape: Proposal, region: torch.Tensor) -> Proposal:
    """Cut an outline to a region (H, W) bool: nothing outside it may change."""
    (h, w), top, left = shape.support.shape[-2:], shape.top[0], shape.left[0]
    inside = region[top : top + h, left : left + w]
    return Proposal(**{**vars(shape), "support": shape.support & inside, "alpha": shape.alpha * inside})

"""Pairs of windows before and after a captioned defect: what a text-guided image-to-image pipeline learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.fitting.windows import WindowSampler

_CHUNK = 32


@dataclass(frozen=True, kw_only=True)
class EditPairs:
    """N windows with a defect in their middle, kept in 8 bits.

    Shape:
        - ``source``, ``image``: (N, 3, S, S) uint8, before and after
        - ``mask``: (N, 1, S, S) bool, never empty
        - ``captions``: N strings
    """

    source: torch.Tensor
    image: torch.Tensor
    mask: torch.Tensor
    captions: list[str]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.captions)


def draw_pairs(
    sampler: WindowSampler,
    count: int,
    *,
    size: int,
    first_step: int = 0,
    advance: Callable[[int, str], None] = lambda step, text: None,
) -> EditPairs:
    """Draw pairs; the same for the same sampler, count and first step.

    The sampler's windows are larger than what is kept: it is cut out around the defect, as the window of an edit is cut
    around where it shall be. An editor without a mask so learns to draw in the middle.

    Args:
        sampler: Draws the captioned defects, on windows of at least ``size``.
        count: Number of pairs, >= 1.
        size: Side S of what is kept, in pixels.
        first_step: Step of the sampler to begin with.
        advance: Told the number of pairs drawn.
    """
    kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]] = []
    step = first_step
    while len(kept) < count:
        batch = sampler.draw(step, _CHUNK)
        step += 1
        for row, caption in enumerate(batch.captions):
            part = (slice(None), *_middle(batch.mask[row, 0] > 0, size))
            images = [(image[row][part] * 255).round().to(torch.uint8) for image in (batch.source, batch.image)]
            kept.append((*images, batch.mask[row][part] > 0, caption))
        advance(min(len(kept), count), "")
    source, image, mask, captions = zip(*kept[:count], strict=True)
    return EditPairs(
        source=torch.stack(source), image=torch.stack(image), mask=torch.stack(mask), captions=list(captions)
    )


def _middle(mask: torch.Tensor, size: int) -> tuple[slice, slice]:
    """Return the square of a side around the middle of a mask (h, w), inside the window."""
    cut = []
    for axis, length in enumerate(mask.shape):
        covered = mask.any(1 - axis).nonzero()
        start = (int(covered.min()) + int(covered.max()) + 1) // 2 - size // 2
        start = min(max(start, 0), length - size)
        cut.append(slice(start, start + size))
    return cut[0], cut[1]

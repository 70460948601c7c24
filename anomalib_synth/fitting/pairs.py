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
    """N windows with a defect near their centre, before and after, as uint8.

    Shape:
        - ``source``, ``image``: (N, 3, S, S) uint8, before and after the defect
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
    """Draw pairs; the same sampler, count and first step give the same pairs.

    The sampler's windows are larger than the pairs, which are cut out around the defect, as the window of an edit is
    cut around the place of the edit. So an editor without a mask learns to draw in the middle.

    Args:
        sampler: Draws the captioned defects, on windows of at least ``size``.
        count: Number of pairs, >= 1.
        size: Side S of the pairs, in pixels.
        first_step: First step of the sampler to draw.
        advance: Called with the number of pairs drawn so far and an empty text.
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
    """Return the square of side ``size`` around the middle of a mask (h, w), moved inside the window."""
    cut = []
    for axis, length in enumerate(mask.shape):
        covered = mask.any(1 - axis).nonzero()
        start = (int(covered.min()) + int(covered.max()) + 1) // 2 - size // 2
        start = min(max(start, 0), length - size)
        cut.append(slice(start, start + size))
    return cut[0], cut[1]

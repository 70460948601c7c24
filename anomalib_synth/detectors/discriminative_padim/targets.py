"""Targets of the heads per cell: defective, good, ignored, or part of a box that holds a defect somewhere.

Few people paint masks. A box says that something inside it is defective, a click that something around it is, and an
unmarked defective image that something in the image is: these are multiple-instance labels. In each such box, the heads
learn as defective the cells with their own highest response so far, if that exceeds the largest response in most good
images. Cells with a much lower response count as good; otherwise the heads would learn everything peculiar to that
image as defective. Cells in between are ignored. The heads first have to learn what a defect is, from synthetic defects
and from those with masks, so boxes join in after 40 % of the steps. The distance from normal is among the heads'
inputs; used on its own to choose the cells, it points to wear and anything else that is new.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

from anomalib_synth.defects import DEFECT, UNKNOWN

_LEAST_COVER = 0.25  # share of a cell from which it is positive
_NEAR, _FAR = 0.7, 0.4  # share of the largest suspicion in a box: defective from the first on, good below the second
_LARGEST_SHARE = 0.05  # most of a box that is taken as defective


class Targets(NamedTuple):
    """What is known about the cells of a batch.

    Shape:
        - ``cover``: (B, 1, h, w) float in [0, 1], share of each cell that is certainly defective
        - ``boxes``: (B, 1, h, w) uint8, 0 where the cell is fully known, :data:`UNKNOWN` where nothing is known, else
          the number of the box that the cell belongs to
    """

    cover: torch.Tensor
    boxes: torch.Tensor

    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the certainly positive and the negative cells, (B, 1, h, w) bool each.

        A cell is positive from 25 % cover on, or with any cover if the rest of the cell is unknown. Cells with less
        cover are neither.
        """
        unknown = self.boxes > 0
        positive = (self.cover >= _LEAST_COVER) | ((self.cover > 0) & unknown)
        return positive, (self.cover == 0) & ~unknown

    def flip(self, axes: list[int]) -> Targets:
        """Mirror along some axes."""
        return Targets(self.cover.flip(axes), self.boxes.flip(axes))

    def to(self, device: torch.device) -> Targets:
        """Move to a device."""
        return Targets(self.cover.to(device), self.boxes.to(device))


def cover_cells(mask: torch.Tensor, grid: tuple[int, int] | torch.Size) -> torch.Tensor:
    """Return the share of each cell that a mask covers: (B, H, W) bool → (B, 1, h, w) in [0, 1]."""
    return F.adaptive_avg_pool2d(mask.float()[:, None], tuple(grid))


def make_targets(mask: torch.Tensor, marks: torch.Tensor | None, grid: tuple[int, int] | torch.Size) -> Targets:
    """Return what is known about each cell.

    Args:
        mask: (B, H, W) bool, the certainly defective pixels.
        marks: (B, H', W') uint8, marks of real defects (see :mod:`anomalib_synth.defects`), 0 for other images; None if
            the batch has none.
        grid: Height and width of the grid.
    """
    cover = cover_cells(mask, grid)
    if marks is None:
        return Targets(cover, torch.zeros_like(cover, dtype=torch.uint8))
    open_marks = marks.float() * (marks < DEFECT)
    return Targets(cover, F.adaptive_max_pool2d(open_marks[:, None], tuple(grid)).to(torch.uint8))


def guess_in_boxes(targets: Targets, suspicion: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cells of boxes taken as defective and those taken as good, (B, 1, h, w) bool each.

    Cells with at least 70 % of the largest suspicion in the box are taken as defective, but at most a twentieth of the
    box; cells with less than 40 % are taken as good. A box in which nothing exceeds good images is skipped, and so is a
    box that already has certainly positive cells.

    Args:
        targets: What is known about the cells.
        suspicion: (B, 1, h, w) float, above 0 where a cell's response exceeds the largest one in most good images.
    """
    defect, good = (torch.zeros_like(targets.boxes, dtype=torch.bool) for _ in range(2))
    positive, _ = targets.split()
    for row in (targets.boxes.flatten(1) > 0).any(1).nonzero().flatten().tolist():
        for number in targets.boxes[row].unique().tolist():
            inside = targets.boxes[row] == number
            if number in {0, UNKNOWN} or bool((positive[row] & inside).any()):
                continue
            values = suspicion[row].masked_fill(~inside, -torch.inf)
            top = values.max()
            if not bool(top > 0):
                continue
            most = max(1, round(_LARGEST_SHARE * int(inside.sum())))
            limit = torch.maximum(_NEAR * top, values.flatten().topk(most).values[-1])
            defect[row] = defect[row] | (values >= limit)
            good[row] = good[row] | (inside & (values < _FAR * top))
    return defect, good


def focal_losses(
    logits: torch.Tensor, positive: torch.Tensor, counted: torch.Tensor, *, gamma: float = 2.0
) -> torch.Tensor:
    r"""Return per-image losses (B,); their mean is the summed focal loss over (number of positive cells + 1).

    Focal loss: arXiv 1708.02002, equation 4, without its alpha: :math:`-(1 - p_t)^\gamma \log p_t`.

    Args:
        logits: (B, 1, h, w).
        positive: (B, 1, h, w) bool, cells with a defect.
        counted: (B, 1, h, w) bool, cells that count, including the positive ones.
        gamma: Exponent that reduces the weight of easy cells, >= 0.
    """
    missed = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    losses = (1 - torch.exp(-missed)).pow(gamma) * missed * counted
    return losses.flatten(1).sum(1) * len(logits) / (positive.sum() + 1)

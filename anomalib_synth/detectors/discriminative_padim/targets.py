"""What the heads learn of a cell: defective, good, not counted, or one of a box somewhere in which a defect is.

Few people paint a mask. A box says that something in it is defective, a click that something around it is, and an image
without a mark that something in it is: multiple-instance labels. Of each such box the heads learn the cells in which
they see most of a defect so far, if that is more than in any cell of most good images; cells in which they see much
less count as good, or they would come to see a defect in all that such an image has of its own; what lies between is
not counted. The heads have to know what a defect is first, from synthetic ones and from those with masks: boxes join in
after 40 % of the steps. The distance from normal is part of what the heads see; taken by itself to choose the cells it
points to wear and to whatever else is new.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

from anomalib_synth.defects import DEFECT, UNKNOWN

_LEAST_COVER = 0.25  # of a cell, from which it is positive
_NEAR, _FAR = 0.7, 0.4  # of the largest suspicion in a box: from here on the defect, below that good
_LARGEST_SHARE = 0.05  # of a box that is taken at most


class Targets(NamedTuple):
    """What is known of the cells of a batch.

    Shape:
        - ``cover``: (B, 1, h, w), share of each cell that is certainly defective
        - ``boxes``: (B, 1, h, w) uint8, 0 where all of a cell is known, :data:`UNKNOWN` where nothing is, else the
          number of the box it belongs to
    """

    cover: torch.Tensor
    boxes: torch.Tensor

    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, 1, h, w) bool each: the cells that are positive for certain, and those that count as negative.

        A cell is positive from 25 % cover, and ignored below; where the rest of it is unknown, by any cover.
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
    """Return what is known of each cell.

    Args:
        mask: (B, H, W) bool, what is certainly defective.
        marks: (B, H', W') uint8, marks of real defects (see :mod:`anomalib_synth.defects`), 0 for other images; None
            where there are none.
        grid: Height and width of the grid.
    """
    cover = cover_cells(mask, grid)
    if marks is None:
        return Targets(cover, torch.zeros_like(cover, dtype=torch.uint8))
    open_marks = marks.float() * (marks < DEFECT)
    return Targets(cover, F.adaptive_max_pool2d(open_marks[:, None], tuple(grid)).to(torch.uint8))


def guess_in_boxes(targets: Targets, suspicion: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, 1, h, w) bool each: the cells of boxes that are taken for the defect, and those taken for good.

    Defective are those with at least 70 % of the suspicion of the most suspicious one, a twentieth of the box at most;
    good are those with less than 40 %. A box in which nothing is more conspicuous than in good images is all good as
    far as can be told, and teaches nothing; one with cells that are positive for certain needs no others.

    Args:
        targets: What is known.
        suspicion: (B, 1, h, w), above 0 where a cell is more conspicuous than any in most good images.
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
    r"""Return (B,), whose mean is the focal loss of the batch, summed and divided by the number of positive cells + 1.

    Focal loss: arXiv 1708.02002, equation 4, without its alpha: :math:`-(1 - p_t)^\gamma \log p_t`.

    Args:
        logits: (B, 1, h, w).
        positive: (B, 1, h, w) bool, cells with a defect.
        counted: (B, 1, h, w) bool, cells that count; the positive ones among them.
        gamma: Exponent that takes weight from what is easy.
    """
    missed = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    losses = (1 - torch.exp(-missed)).pow(gamma) * missed * counted
    return losses.flatten(1).sum(1) * len(logits) / (positive.sum() + 1)

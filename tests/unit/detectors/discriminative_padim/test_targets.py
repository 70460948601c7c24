"""What the heads learn where there is no mask, against the rules by hand."""

from __future__ import annotations

import math

import pytest
import torch

from anomalib_synth.defects import DEFECT, UNKNOWN
from anomalib_synth.detectors.discriminative_padim.losses import head_losses
from anomalib_synth.detectors.discriminative_padim.targets import (
    Targets,
    cover_cells,
    focal_losses,
    guess_in_boxes,
    make_targets,
)
from anomalib_synth.detectors.discriminative_padim.torch_model import ScaleBranch
from anomalib_synth.detectors.discriminative_padim.training_features import HeadInputs


class Channels:
    """Features, of which only their number matters here."""

    channels = 6


def make_branch() -> ScaleBranch:
    torch.manual_seed(0)
    return ScaleBranch(Channels(), side=32, head_width=8)


def make_views(count: int, size: int = 6) -> HeadInputs:
    generator = torch.Generator().manual_seed(1)
    features, residuals = (torch.randn(count, 6, size, size, generator=generator) for _ in range(2))
    return HeadInputs(features, residuals)


def test_every_kind_of_mark_becomes_what_it_says_when_cells_are_larger() -> None:
    marks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    marks[0, :4, :4] = DEFECT  # a cell by itself
    marks[0, 8:, :8] = 3  # a box over two cells of the lower half
    marks[0, 8, 8] = UNKNOWN
    marks[0, 9, 13] = DEFECT  # a click, known where nothing else is
    marks[0, 8:12, 12:] = torch.where(marks[0, 8:12, 12:] == DEFECT, marks[0, 8:12, 12:], UNKNOWN)
    targets = make_targets(marks == DEFECT, marks, (4, 4))
    positive, negative = targets.split()
    assert targets.boxes[0, 0, 2:, :2].tolist() == [[3, 3], [3, 3]]
    assert targets.boxes[0, 0, 2, 2] == UNKNOWN
    assert positive.nonzero()[:, 2:].tolist() == [[0, 0], [2, 3]]
    assert not bool(negative[0, 0, 2:, :2].any())
    assert not bool(negative[0, 0, 2, 2:].any())
    assert bool(negative[0, 0, 0, 1:].all())


def test_a_little_cover_is_ignored_when_the_rest_of_the_cell_is_good() -> None:
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, 0, 0] = True
    positive, negative = make_targets(mask, None, (4, 4)).split()
    assert not bool(positive.any())
    assert negative.sum() == 15


def boxed(boxes: list[list[int]]) -> Targets:
    cells = torch.tensor(boxes, dtype=torch.uint8)[None, None]
    return Targets(torch.zeros(cells.shape), cells)


def test_the_most_conspicuous_cells_of_each_box_are_taken() -> None:
    targets = boxed([[1, 1, 0, 2], [1, 1, 0, 2], *[[1, 1, 0, 2]] * 18])
    suspicion = torch.zeros(1, 1, 20, 4)
    suspicion[0, 0, :2] = torch.tensor([[5.0, 3.6, 9.0, 1.0], [3.4, 0.0, 0, 0.2]])
    found, good = guess_in_boxes(targets, suspicion)
    assert good.sum() == 60 - 3 - 1  # 3.4 lies between, and so does nothing else
    assert found.nonzero()[:, 2:].tolist() == [[0, 0], [0, 1], [0, 3]]  # 70 % of 5 and of 1; 9 is in no box


def test_a_box_teaches_nothing_when_good_images_are_as_conspicuous() -> None:
    targets = boxed([[1, 1], [1, 1]])
    assert not any(bool(each.any()) for each in guess_in_boxes(targets, torch.full((1, 1, 2, 2), -0.1)))


def test_at_most_a_twentieth_of_a_box_is_taken() -> None:
    targets = boxed([[1] * 10] * 8)
    suspicion = 10 + torch.arange(80.0).view(1, 1, 8, 10) / 100
    assert guess_in_boxes(targets, suspicion)[0].sum() == 4


def test_a_box_with_certain_cells_needs_no_other() -> None:
    targets = boxed([[1, 1], [1, 1]])
    targets.cover[0, 0, 0, 0] = 0.1
    assert not any(bool(each.any()) for each in guess_in_boxes(targets, torch.ones(1, 1, 2, 2)))


def test_cells_that_are_unknown_count_for_nothing() -> None:
    branch, views = make_branch().eval(), make_views(2)
    unknown = torch.zeros(2, 1, 6, 6, dtype=torch.uint8)
    unknown[0] = UNKNOWN
    targets = Targets(torch.zeros(2, 1, 6, 6), unknown)
    losses = head_losses([branch], [views], [targets], axes=[])
    assert losses[0] == 0
    assert losses[1] > 0


@pytest.mark.parametrize("looks", [True, False])
def test_loss_of_an_unmarked_image_by_hand(looks) -> None:
    branch, views = make_branch().eval(), make_views(2)
    boxes = torch.zeros(2, 1, 6, 6, dtype=torch.uint8)
    boxes[0] = 1
    views.features[0] *= 4
    targets = Targets(torch.zeros(2, 1, 6, 6), boxes)
    losses = head_losses([branch], [views], [targets], axes=[], looks=looks)
    logit = sum(branch.heads(*views)).detach() / 2
    above = logit[0, 0] - logit[1].max()  # the second image is good
    top = above.max()
    most = above.flatten().topk(2).values[-1]  # 5 % of 36 cells
    positive, counted = torch.zeros_like(boxes, dtype=torch.bool), boxes == 0
    positive[0, 0] = (above >= 0.7 * top) & (above >= most) & looks
    counted[0, 0] = (above < 0.4 * top) & looks
    assert top > 0
    expected = sum(focal_losses(each, positive, counted | positive) for each in branch.heads(*views))
    torch.testing.assert_close(losses, expected)
    assert (losses[0] > 0) == looks


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0, 3.0], [1.0, -2.0, 0.5, 0.0]]).view(2, 1, 2, 2)
    cover = torch.tensor([[0.0, 0.25, 0.2, 1.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)

    def one(logit: float, *, positive: bool) -> float:
        p = 1 / (1 + math.exp(-logit))
        p = p if positive else 1 - p
        return -((1 - p) ** 2) * math.log(p)

    first = one(0.0, positive=False) + one(2.0, positive=True) + one(3.0, positive=True)  # 20 % is ignored
    second = sum(one(logit, positive=False) for logit in (1.0, -2.0, 0.5, 0.0))
    positive, negative = Targets(cover, torch.zeros_like(cover, dtype=torch.uint8)).split()
    losses = focal_losses(logits, positive, positive | negative)
    torch.testing.assert_close(losses, torch.tensor([first, second]) * 2 / (2 + 1))
    torch.testing.assert_close(losses.mean(), torch.tensor((first + second) / 3))


def test_cover_is_the_share_of_a_cell() -> None:
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, :4, :8] = True
    assert torch.equal(cover_cells(mask, (2, 2)), torch.tensor([[[[0.5, 0.0], [0.0, 0.0]]]]))

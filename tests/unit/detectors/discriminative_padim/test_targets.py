"""What the heads learn where there is no mask, against the rules by hand."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.defects import DEFECT, UNKNOWN
from anomalib_synth.detectors.discriminative_padim.losses import CellScale, head_losses
from anomalib_synth.detectors.discriminative_padim.normality import distance
from anomalib_synth.detectors.discriminative_padim.targets import (
    Targets,
    find_in_boxes,
    focal_losses,
    make_targets,
)
from anomalib_synth.detectors.discriminative_padim.torch_model import ScaleBranch
from anomalib_synth.detectors.discriminative_padim.training_features import Views


class Channels:
    """Features, of which only their number matters here."""

    channels = 6


def make_branch() -> ScaleBranch:
    torch.manual_seed(0)
    return ScaleBranch(Channels(), side=32, head_width=8)


def make_views(count: int, size: int = 6) -> Views:
    generator = torch.Generator().manual_seed(1)
    features, residuals = (torch.randn(count, 6, size, size, generator=generator) for _ in range(2))
    return Views(features, residuals)


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
    found = find_in_boxes(targets, suspicion)
    assert found.nonzero()[:, 2:].tolist() == [[0, 0], [0, 1], [0, 3]]  # 70 % of 5 and of 1; 9 is in no box


def test_a_box_teaches_nothing_when_good_images_are_as_conspicuous() -> None:
    targets = boxed([[1, 1], [1, 1]])
    assert not bool(find_in_boxes(targets, torch.full((1, 1, 2, 2), -0.1)).any())


def test_at_most_a_twentieth_of_a_box_is_taken() -> None:
    targets = boxed([[1] * 10] * 8)
    suspicion = 10 + torch.arange(80.0).view(1, 1, 8, 10) / 100
    assert find_in_boxes(targets, suspicion).sum() == 4


def test_a_box_with_certain_cells_needs_no_other() -> None:
    targets = boxed([[1, 1], [1, 1]])
    targets.cover[0, 0, 0, 0] = 0.1
    assert not bool(find_in_boxes(targets, torch.ones(1, 1, 2, 2)).any())


def test_cells_that_are_unknown_count_for_nothing() -> None:
    branch, views = make_branch().eval(), make_views(2)
    unknown = torch.zeros(2, 1, 6, 6, dtype=torch.uint8)
    unknown[0] = UNKNOWN
    targets = Targets(torch.zeros(2, 1, 6, 6), unknown)
    losses = head_losses([branch], [views], [targets], [CellScale(0.0, 1.0)], axes=[])
    assert losses[0] == 0
    assert losses[1] > 0


@pytest.mark.parametrize("looks", [True, False])
def test_loss_of_an_unmarked_image_by_hand(looks) -> None:
    branch, views = make_branch().eval(), make_views(2)
    boxes = torch.zeros(2, 1, 6, 6, dtype=torch.uint8)
    boxes[0] = 1
    views.features[0] *= 4
    scale = CellScale(2.0, 0.5)
    targets = Targets(torch.zeros(2, 1, 6, 6), boxes)
    losses = head_losses([branch], [views], [targets], [scale], axes=[], looks=looks)
    logit = sum(branch.heads(*views)).detach() / 2
    above = logit[0, 0] - logit[1].max()  # the second image is good
    distant = ((distance(views.residuals)[0, 0] - 2.0) / 0.5).clamp(-1, 1)
    found = above + (distant + 1) / 2
    found[above <= 0] = -1
    assert (above > 0).sum() > 1
    positive, counted = torch.zeros_like(boxes, dtype=torch.bool), boxes == 0
    most = found.flatten().topk(2).values[-1]  # 5 % of 36 cells
    positive[0, 0] = (found >= 0.7 * found.max()) & (found >= most) & looks
    counted[0, 0] = (above <= 0) & looks
    expected = sum(focal_losses(each, positive, counted | positive) for each in branch.heads(*views))
    torch.testing.assert_close(losses, expected)
    assert (losses[0] > 0) == looks


def test_what_is_far_from_normal_alone_teaches_nothing() -> None:
    branch = make_branch().eval()
    with torch.no_grad():
        for head in (branch.feature_head, branch.residual_head):
            head[-1].weight.zero_()  # the heads see no difference
    boxes = torch.zeros(2, 1, 6, 6, dtype=torch.uint8)
    boxes[0] = 1
    targets = Targets(torch.zeros(2, 1, 6, 6), boxes)
    far, near = make_views(2), make_views(2)
    far.residuals[0, :, 2, 3] = 1e3
    losses = [head_losses([branch], [each], [targets], [CellScale(2.0, 0.5)], axes=[]) for each in (far, near)]
    torch.testing.assert_close(losses[0], losses[1])


def test_cell_scale_is_of_the_largest_distance_in_each_image() -> None:
    residuals = torch.zeros(3, 2, 2, 2)
    residuals[:, 0, 1, 1] = torch.tensor([1.0, 2.0, 6.0])
    scale = CellScale.measure([residuals[:2], residuals[2:]])
    assert scale.mean == pytest.approx(3.0)
    assert scale.deviation == pytest.approx((14 / 3) ** 0.5)

"""One array says what all marks of an image say together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import Resize

from anomalib_synth.defects.marks import Mark, describe_kind, draw_marks
from anomalib_synth.defects.shapes import Bitmap, Box, Stroke
from anomalib_synth.functional.field_of_view import see_marks
from tests.unit.defects.annotated import SIZE, blank, block

AREA = (10, 20, 20, 40)  # top, left, bottom, right


def mask(inside: np.ndarray) -> Mark:
    return Mark(kind="mask", shape=Bitmap(0, 0, inside), where="A mask")


def box(top: float, left: float, bottom: float, right: float) -> Mark:
    return Mark(kind="box", shape=Box(left, top, right, bottom), where="A box")


def click(x: float, y: float) -> Mark:
    return Mark(kind="point", shape=Stroke(np.array([[x, y]])), where="A click")


def draw(*marks: Mark) -> np.ndarray:
    return draw_marks(marks, *SIZE)


def test_the_image_is_one_box_when_nothing_is_marked() -> None:
    assert (draw() == 1).all()
    assert draw().dtype == np.uint8


def test_all_else_is_good_when_pixels_are_marked() -> None:
    np.testing.assert_array_equal(draw(mask(block(*AREA))), block(*AREA) * 255)


def test_boxes_are_numbered_when_there_are_several() -> None:
    found = draw(box(*AREA), box(0, 0, 5, 5))
    assert (found[block(*AREA)] == 1).all()
    assert (found[:5, :5] == 2).all()
    assert ((found > 0) == (block(*AREA) | block(0, 0, 5, 5))).all()


@pytest.mark.parametrize("order", [1, -1])
def test_the_smaller_box_wins_when_boxes_overlap(order) -> None:
    large, small = box(0, 0, 30, 50), box(*AREA)
    found = draw(*[large, small][::order])
    assert (found[block(*AREA)] == 2).all()
    assert (found[block(0, 0, 30, 50) & ~block(*AREA)] == 1).all()


@pytest.mark.parametrize("place", [(9, 9, 12, 12), (14, 28, 17, 30)])  # within the larger one, and beside it
@pytest.mark.parametrize("order", [1, -1])
def test_the_smaller_box_is_left_when_marks_are_made_smaller(place, order) -> None:
    found = draw(*[box(0, 0, 30, 28), box(*place)][::order])
    seen = see_marks(torch.from_numpy(found)[None], Resize((4, 6)))[0]
    assert set(seen.unique().tolist()) == {0, 1, 2}


def test_numbers_have_no_gap_when_a_box_is_hidden() -> None:
    found = draw(box(0, 0, 10, 10), box(*AREA), box(0, 0, 10, 10))
    assert np.unique(found).tolist() == [0, 1, 2]


def test_a_click_is_a_disc_and_the_rest_unknown_when_it_is_alone() -> None:
    found = draw(click(30.5, 20.5))
    assert (found == 255).sum() == 5  # radius 1: the pixel and its four neighbours
    assert found[20, 30] == 255
    assert set(np.unique(found).tolist()) == {254, 255}


def test_the_disc_grows_when_the_image_is_large() -> None:
    found = draw_marks([click(500, 400)], 800, 1000)
    rows, columns = np.nonzero(found == 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (392, 408, 492, 508)
    assert len(rows) == sum(y * y + x * x <= 64 for y in range(-8, 9) for x in range(-8, 9))


def test_a_line_is_as_wide_as_a_click_when_it_is_drawn() -> None:
    line = Mark(kind="scribble", shape=Stroke(np.array([[10.0, 20.0], [30.0, 20.0]])), where="A line")
    found = draw(line)
    assert (found[19:22, 10:31] == 255).all()
    assert (found == 255).sum() == 3 * 21 + 2


def test_what_is_outside_a_box_stays_good_when_the_click_is_within() -> None:
    found = draw(box(*AREA), click(30, 15))
    assert (found[~block(*AREA)] == 0).all()
    assert found[15, 30] == 255
    assert set(np.unique(found[block(*AREA)]).tolist()) == {254, 255}  # that some pixel is defective is settled


def test_the_rest_is_unknown_when_a_click_is_outside_all_boxes() -> None:
    found = draw(box(*AREA), click(5, 35))
    assert (found[block(*AREA)] == 1).all()
    assert found[35, 5] == 255
    assert found[0, 59] == 254


def test_a_box_without_a_certain_pixel_keeps_its_claim_when_another_has_one() -> None:
    found = draw(box(*AREA), box(0, 0, 8, 8), mask(block(12, 22, 14, 24)))
    assert (found[:8, :8] == 1).all()
    assert (found[12:14, 22:24] == 255).all()
    assert found[18, 38] == 254
    assert found[39, 59] == 0


def test_a_click_adds_nothing_when_it_is_within_a_mask() -> None:
    np.testing.assert_array_equal(draw(mask(block(*AREA)), click(30, 15)), block(*AREA) * 255)


def test_the_last_pixel_is_marked_when_a_click_is_on_the_border() -> None:
    assert draw(click(SIZE[1], SIZE[0]))[-1, -1] == 255


@pytest.mark.parametrize(
    ("marks", "kind"),
    [
        ([], "image"),
        ([click(1, 1)], "point"),
        ([click(1, 1), box(*AREA)], "box"),
        ([box(*AREA), mask(block(*AREA))], "mask"),
    ],
)
def test_the_kind_is_the_most_that_is_known_when_marks_are_mixed(marks, kind) -> None:
    assert describe_kind(marks) == kind


@pytest.mark.parametrize("mark", [click(61, 5), click(5, -0.1), box(0, 60, 9, 70), box(-9, 0, 0, 9)])
def test_a_mark_is_refused_when_it_lies_wholly_outside(mark) -> None:
    with pytest.raises(ValueError, match="must lie in its image of 60 x 40 pixels, but goes from"):
        mark.check(*SIZE)


def test_a_mark_is_refused_when_none_of_its_pixels_is_in_the_image() -> None:
    corner = blank()
    corner[0, 0] = True
    shifted = Mark(kind="mask", shape=Bitmap(-1, -1, corner), where="A mask")
    with pytest.raises(ValueError, match="A mask marks no pixel of its image"):
        draw(shifted)

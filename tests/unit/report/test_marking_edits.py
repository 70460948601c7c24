"""Edits of marks: what each gives, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.report.image_marks import ImageMarks
from anomalib_synth.report.marking_edits import apply_edit, draw_stroke, find_fault

SIZE = (40, 60)


def edit(marks: ImageMarks, outline=None, type_name: str = "dent", **given) -> ImageMarks:
    assert find_fault(given) == ""
    return apply_edit(marks, given, type_name=type_name, outline=lambda _: outline)


@pytest.fixture
def blank() -> ImageMarks:
    return ImageMarks(mask=np.zeros(SIZE, bool), document={})


def spot(top: int = 5, left: int = 5) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + 4, left : left + 6] = True
    return mask


def test_box_is_clipped_to_the_image_when_it_is_drawn_beyond(blank) -> None:
    shape = edit(blank, kind="box", points=[[50, 30], [-4, 90]]).shapes[0]
    assert (shape["shape_type"], shape["points"], shape["label"]) == ("rectangle", [[0, 30], [50, 40]], "dent")


@pytest.mark.parametrize("points", [[[5, 5], [5, 20]], [[70, 5], [90, 20]], [[5, 5]]])
def test_box_is_refused_when_it_has_no_area_in_the_image(blank, points) -> None:
    with pytest.raises(ValueError, match="at least 1 pixel a side"):
        edit(blank, kind="box", points=points)


def test_scribble_is_a_line_or_a_point_when_it_is_drawn_or_clicked(blank) -> None:
    line = edit(blank, kind="scribble", points=[[1, 1], [1, 1], [9, 70]]).shapes[0]
    assert (line["shape_type"], line["points"]) == ("linestrip", [[1, 1], [9, 39]])
    assert edit(blank, kind="scribble", points=[[3, 4], [3, 4]]).shapes[0]["shape_type"] == "point"


@pytest.mark.parametrize(
    ("radius", "points"),
    [
        (3, [[20, 20]]),
        (3, [[10, 20], [30, 20]]),
        (6.5, [[20, 20], [20, 21]]),
        (4, [[-9, 5], [80, 30]]),
        (5, [[70, 20]]),
        (0.5, [[3, 3], [9, 9]]),
    ],
)
def test_stroke_covers_what_is_within_its_radius_when_it_is_drawn(radius, points) -> None:
    drawn = draw_stroke(SIZE, points, radius)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    (a, b), (c, d) = points[0], points[-1]
    length = (c - a) ** 2 + (d - b) ** 2
    share = np.clip(((x - a) * (c - a) + (y - b) * (d - b)) / length, 0, 1) if length else 0.0
    apart = np.hypot(a + share * (c - a) - x, b + share * (d - b) - y)
    assert drawn[apart < radius - 1.5].all()
    assert not drawn[apart > radius + 1.5].any()


def test_brush_adds_and_eraser_takes_away_when_used(blank) -> None:
    painted = edit(blank, kind="brush", points=[[20, 20]], radius=5, erase=False)
    assert painted.mask.sum() > 60
    assert not blank.mask.any()
    erased = edit(painted, kind="brush", points=[[20, 20]], radius=8, erase=True)
    assert not erased.mask.any()


def test_outline_takes_the_place_of_its_box_when_accepted(blank) -> None:
    boxed = edit(blank, kind="box", points=[[2, 2], [20, 20]], type_name="crack")
    accepted = edit(boxed, outline=spot(), kind="accept", shape=0)
    assert (accepted.shapes, accepted.mask_type) == ([], "crack")
    assert np.array_equal(accepted.mask, spot())
    with pytest.raises(ValueError, match="no outline to accept"):
        edit(boxed, kind="accept", shape=0)


def test_type_of_the_mask_stays_when_a_second_outline_comes(blank) -> None:
    first = edit(blank, outline=spot(), kind="accept", shape=None, type_name="crack")
    second = edit(first, outline=spot(20, 20), kind="accept", shape=None, type_name="dent")
    assert second.mask_type == "crack"
    assert second.mask.sum() == 48
    assert edit(second, kind="rename", shape=None, type_name="dent").mask_type == "dent"


def test_one_region_or_all_go_when_removed(blank) -> None:
    both = ImageMarks(mask=spot() | spot(20, 20), document={})
    assert np.array_equal(edit(both, kind="remove", shape=None, at=[[6, 6]]).mask, spot(20, 20))
    assert not edit(both, kind="remove", shape=None, at=None).mask.any()
    with pytest.raises(ValueError, match="`at` must be within an outline"):
        edit(both, kind="remove", shape=None, at=[[50, 1]])
    boxed = edit(both, kind="box", points=[[1, 1], [9, 9]])
    assert edit(boxed, kind="remove", shape=0, at=None).shapes == []


def test_word_that_there_is_no_defect_goes_when_something_is_marked(blank) -> None:
    said = edit(blank, kind="no_defect", value=True)
    assert said.no_defect
    boxed = edit(said, kind="box", points=[[1, 1], [9, 9]])
    assert not boxed.no_defect
    with pytest.raises(ValueError, match="Delete them first"):
        edit(boxed, kind="no_defect", value=True)


@pytest.mark.parametrize("kind", ["accept", "remove", "rename"])
def test_shape_is_refused_when_there_is_none_of_its_number(blank, kind) -> None:
    given = {"kind": kind, "shape": 0} | ({"at": None} if kind == "remove" else {})
    with pytest.raises(ValueError, match="`shape` must be one of the 0 marks"):
        edit(blank, **given)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {"kind": "explode"},
        {"kind": ["box"]},
        {"kind": "box"},
        {"kind": "box", "points": []},
        {"kind": "box", "points": [[1, "a"]]},
        {"kind": "box", "points": [[1, 1e300]]},
        {"kind": "box", "points": [[1, 2]], "more": 1},
        {"kind": "brush", "points": [[1, 2]], "radius": 0, "erase": False},
        {"kind": "brush", "points": [[1, 2]], "radius": float("nan"), "erase": False},
        {"kind": "brush", "points": [[1, 2]], "radius": 1, "erase": 1},
        {"kind": "accept", "shape": -1},
        {"kind": "accept", "shape": True},
    ],
)
def test_edit_is_refused_when_it_is_not_of_its_form(wrong) -> None:
    assert find_fault(wrong)

"""CVAT for images says where a defect is, by every shape that it draws in a plane."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.defects import list_defects
from tests.unit.defects.annotated import SIZE, block, cvat, save_image, save_text

BLOCK = block(5, 10, 15, 30)
COMMON = 'label="scratch" source="manual" occluded="0" z_order="0"'


def read(folder, content):
    save_image(folder / "parts" / "images" / "a.png")
    save_text(folder / "parts" / "annotations.xml", content)
    (defect,) = list_defects(folder / "parts")
    return defect


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        (f'<box {COMMON} xtl="10.00" ytl="5.00" xbr="30.00" ybr="15.00"></box>', "box", BLOCK * 1),
        (
            f'<polygon {COMMON} points="10.00,5.00;30.00,5.00;30.00,15.00;10.00,15.00"></polygon>',
            "mask",
            BLOCK * 255,
        ),
        (
            f'<mask {COMMON} rle="0, 4, 2, 2" left="10" top="5" width="4" height="2"></mask>',
            "mask",
            (block(5, 10, 6, 14) | block(6, 12, 7, 14)) * 255,
        ),
        (
            f'<polyline {COMMON} points="0.50,0.50;1.50,0.50"><attribute name="a">b</attribute></polyline>',
            "scribble",
            np.where(block(0, 0, 1, 3) | block(1, 0, 2, 2), 255, 254),
        ),
        (
            f'<points {COMMON} points="0.50,0.50;59.00,39.00"></points>',
            "point",
            np.where(block(0, 0, 1, 2) | block(1, 0, 2, 1) | block(39, 58, 40, 60) | block(38, 59, 39, 60), 255, 254),
        ),
    ],
)
def test_marks_are_what_a_shape_shows_when_it_is_read(tmp_path, shape, kind, expected) -> None:
    defect = read(tmp_path, cvat(shape))
    assert (defect.kind, defect.family) == (kind, "scratch")
    np.testing.assert_array_equal(defect.read_marks(), expected)


def test_an_ellipse_is_filled_when_it_is_read(tmp_path) -> None:
    found = read(tmp_path, cvat(f'<ellipse {COMMON} cx="30" cy="20" rx="12" ry="6"></ellipse>')).read_marks()
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    np.testing.assert_array_equal(found == 255, ((x - 30) / 12) ** 2 + ((y - 20) / 6) ** 2 <= 1)


@pytest.mark.parametrize(("angle", "expected"), [("90.0", block(10, 25, 30, 35)), ("180.0", block(15, 20, 25, 40))])
def test_a_box_stays_a_box_when_it_is_turned(tmp_path, angle, expected) -> None:
    shape = f'<box {COMMON} xtl="20" ytl="15" xbr="40" ybr="25" rotation="{angle}"></box>'
    defect = read(tmp_path, cvat(shape))
    assert defect.kind == "box"
    np.testing.assert_array_equal(defect.read_marks(), expected * 1)


def test_a_box_turns_clockwise_when_it_is_turned_a_little(tmp_path) -> None:
    shape = f'<box {COMMON} xtl="10" ytl="18" xbr="50" ybr="22" rotation="20"></box>'
    rows, columns = np.nonzero(read(tmp_path, cvat(shape)).read_marks())
    assert rows[columns < 20].mean() < 18
    assert rows[columns > 40].mean() > 22  # its right end went down


def test_the_type_is_the_tags_when_nothing_else_is_marked(tmp_path) -> None:
    defect = read(tmp_path, cvat('<tag label="dent" source="manual"></tag>'))
    assert (defect.kind, defect.family) == ("image", "dent")


def test_the_file_is_found_when_it_is_given(tmp_path) -> None:
    save_image(tmp_path / "shots" / "a.png")
    file = save_text(tmp_path / "export" / "task 1.xml", cvat(f'<box {COMMON} xtl="1" ytl="1" xbr="9" ybr="9"></box>'))
    (defect,) = list_defects(tmp_path / "shots", marks=file)
    assert (defect.kind, defect.files) == ("box", (tmp_path / "shots" / "a.png", file))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (f'<cuboid {COMMON} xtl1="1"></cuboid>', "cuboid 0 of image 'a.png', which must be one of box, polygon"),
        (f'<box {COMMON} xtl="9" ytl="1" xbr="9" ybr="9"></box>', "box 0 of image 'a.png' without area"),
        (f'<box {COMMON} xtl="a" ytl="1" xbr="9" ybr="9"></box>', "with xtl = .*must be a list of numbers"),
        (f'<box {COMMON} ytl="1" xbr="9" ybr="9"></box>', "with xtl = "),
        (f'<box {COMMON} xtl="nan" ytl="1" xbr="9" ybr="9"></box>', "with xtl = .*which must be pixels"),
        (f'<box {COMMON} xtl="-inf" ytl="1" xbr="9" ybr="9"></box>', "with xtl = .*which must be pixels"),
        (f'<polygon {COMMON} points="1,1;5,5"></polygon>', "at least 3 points"),
        (f'<polygon {COMMON} points="1,1;5,5;9,9"></polygon>', "without area"),
        (f'<polygon {COMMON} points="1,1;5;9,9"></polygon>', "must be a list of numbers"),
        (f'<polygon {COMMON}></polygon>', "must be a list of numbers"),
        (f'<ellipse {COMMON} cx="30" cy="20" rx="0" ry="6"></ellipse>', "without area"),
        (f'<mask {COMMON} rle="1,2" left="0" top="0" width="4" height="2"></mask>', "3 pixels for a mask of 4 x 2"),
        (f'<mask {COMMON} rle="8" left="0" top="0" width="4" height="2"></mask>', "marks no pixel"),
        (f'<mask {COMMON} rle="1,x" left="0" top="0" width="4" height="2"></mask>', "which must be whole numbers"),
        (f'<mask {COMMON} rle="1,7" left="0.5" top="0" width="4" height="2"></mask>', "must be a whole number"),
        (f'<mask {COMMON} rle="1,7" left="0" top="0" width="-4" height="-2"></mask>', "of -4 x -2 pixels"),
        (f'<points {COMMON} points="70,3"></points>', "Points 0 of image 'a.png' in '.*' must lie in its image"),
    ],
)  # fmt: skip
def test_a_shape_is_refused_when_it_cannot_be_meant(tmp_path, shape, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, cvat(shape))
    assert "annotations.xml" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotations><track/></annotations>", "is CVAT for video. Export it as `CVAT for images 1.1`"),
        ("<annotation/>", "begins with <annotation>, which must be <annotations>"),
        ("<annotations>", "is no XML: no element found"),
        ("", "is no XML"),
        (cvat("", name="../a.png"), "must be a relative path that stays inside its folder"),
        (cvat("", height=0), "of 60 x 0 pixels"),
        (f"<annotations>{'<a>' * 70}{'</a>' * 70}</annotations>", "more than 64 in one another"),
    ],
)
def test_a_file_is_refused_when_it_is_no_export_for_images(tmp_path, content, message) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


def test_a_file_is_refused_when_it_has_a_document_type(tmp_path) -> None:
    secret = save_text(tmp_path / "secret.txt", "scratch")
    shape = f'<box {COMMON.replace("scratch", "&x;")} xtl="1" ytl="1" xbr="9" ybr="9"></box>'
    for declaration in (
        f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]>',
        '<!DOCTYPE a [<!ENTITY x "scratch">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd">',
    ):
        head, tail = cvat(shape).split("?>", 1)
        with pytest.raises(ValueError, match=r"has a document type \(DOCTYPE\), which could name entities"):
            read(tmp_path, f"{head}?>{declaration}{tail}")

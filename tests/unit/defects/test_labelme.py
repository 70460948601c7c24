"""LabelMe's files say where a defect is, by every shape that LabelMe draws."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.defects import list_defects
from tests.unit.defects.annotated import SIZE, block, labelme, save_image, save_mask, save_text


def encode(pixels: np.ndarray) -> str:
    """A mask as LabelMe keeps it: values 0 and 1."""
    file = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def read(folder, content, **image):
    save_image(folder / "parts" / "a.png", **image)
    save_text(folder / "parts" / "a.json", content)
    (defect,) = list_defects(folder / "parts")
    return defect


PIECE = np.arange(60).reshape(6, 10) % 4 > 0
BLOCK = block(5, 10, 15, 30)
SHORT_LINE = {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}


@pytest.mark.parametrize(
    ("shape", "kind", "expected"),
    [
        ({"shape_type": "rectangle", "points": [[10, 5], [30, 15]]}, "box", BLOCK * 1),
        ({"shape_type": "rectangle", "points": [[30, 15], [10, 5]]}, "box", BLOCK * 1),
        ({"shape_type": "rectangle", "points": [[10, 5], [30, 5], [30, 15], [10, 15]]}, "box", BLOCK * 1),
        ({"shape_type": "polygon", "points": [[10, 5], [30, 5], [30, 15], [10, 15]]}, "mask", BLOCK * 255),
        ({"points": [[10, 5], [30, 5], [30, 15], [10, 15]]}, "mask", BLOCK * 255),
        ({"shape_type": "point", "points": [[10.5, 5.5]]}, "point", {(5, 10), (4, 10), (6, 10), (5, 9), (5, 11)}),
        (
            {"shape_type": "points", "points": [[0, 0], [59.5, 39]]},
            "point",
            {(0, 0), (0, 1), (1, 0), (39, 59), (38, 59), (39, 58)},
        ),
        ({"shape_type": "line", "points": [[0.5, 0.5], [1.5, 0.5]]}, "scribble", SHORT_LINE),
        ({"shape_type": "linestrip", "points": [[0, 0], [1, 0], [0, 0]]}, "scribble", SHORT_LINE),
    ],
)
def test_marks_are_what_a_shape_shows_when_it_is_read(tmp_path, shape, kind, expected) -> None:
    defect = read(tmp_path, labelme([shape]))
    assert (defect.kind, defect.family) == (kind, "scratch")
    if isinstance(expected, set):
        certain = np.zeros(SIZE, dtype=bool)
        certain[tuple(np.array(sorted(expected)).T)] = True
        expected = np.where(certain, 255, 254)
    np.testing.assert_array_equal(defect.read_marks(), expected)


def test_a_circle_is_filled_when_its_second_point_is_on_it(tmp_path) -> None:
    found = read(tmp_path, labelme([{"shape_type": "circle", "points": [[30, 20], [30, 28]]}])).read_marks()
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    np.testing.assert_array_equal(found == 255, (y - 20) ** 2 + (x - 30) ** 2 <= 64)


@pytest.mark.parametrize("far", [[14, 8], [15, 9]])  # the last pixel, or the corner behind it
def test_a_mask_goes_where_its_points_say_when_it_is_read(tmp_path, far) -> None:
    shape = {"shape_type": "mask", "points": [[5, 3], far], "mask": encode(PIECE)}
    found = read(tmp_path, labelme([shape])).read_marks()
    np.testing.assert_array_equal(found[3:9, 5:15] == 255, PIECE)
    assert (found == 255).sum() == PIECE.sum()


def test_a_file_without_shapes_names_the_type_when_there_is_a_mask_beside_it(tmp_path) -> None:
    save_mask(tmp_path / "parts" / "a_mask.png", BLOCK)
    defect = read(tmp_path, labelme([], flags={"type": "oil stain"}))
    assert (defect.kind, defect.family) == ("mask", "oil stain")
    np.testing.assert_array_equal(defect.read_marks(), BLOCK * 255)
    assert [file.name for file in defect.files] == ["a.png", "a_mask.png", "a.json"]


def test_a_mask_and_a_box_are_read_together_when_both_are_there(tmp_path) -> None:
    save_mask(tmp_path / "parts" / "a_mask.png", BLOCK)
    defect = read(
        tmp_path, labelme([{"shape_type": "rectangle", "points": [[40, 30], [50, 35]]}], flags={"type": "dent"})
    )
    np.testing.assert_array_equal(defect.read_marks(), BLOCK * 255 + block(30, 40, 35, 50) * 1)
    assert list(defect.read_masks()) == ["dent"]


def test_the_defect_is_somewhere_when_the_file_has_a_type_and_no_mark(tmp_path) -> None:
    defect = read(tmp_path, labelme([], flags={"type": "dent"}))
    assert (defect.kind, defect.family) == ("image", "dent")


def test_the_image_is_good_when_the_file_has_neither_type_nor_mark(tmp_path) -> None:
    with pytest.raises(ValueError, match="nor what annotations name without a mark"):
        read(tmp_path, labelme([]))


@pytest.mark.parametrize("label", ["", None, "  "])
def test_the_type_is_the_folders_when_the_label_is_empty(tmp_path, label) -> None:
    assert read(tmp_path, labelme([{"label": label, "shape_type": "point", "points": [[1, 1]]}])).family == "parts"


@pytest.mark.parametrize("orientation", [3, 6])
def test_points_are_on_the_upright_image_when_it_is_turned_by_exif(tmp_path, orientation) -> None:
    size = SIZE[::-1] if orientation == 6 else SIZE
    content = labelme([{"shape_type": "rectangle", "points": [[10, 5], [30, 15]]}])
    save_image(tmp_path / "parts" / "a.jpg", size, orientation=orientation)
    save_text(tmp_path / "parts" / "a.json", content)
    (defect,) = list_defects(tmp_path / "parts")
    np.testing.assert_array_equal(defect.read_marks(), BLOCK * 1)


def test_a_file_is_refused_when_its_image_has_another_size(tmp_path) -> None:
    shape = {"shape_type": "point", "points": [[1, 1]]}
    with pytest.raises(ValueError, match=r"a.json' has '.*a.png' with 60 x 40 pixels, and the file has 30 x 20. Mark"):
        read(tmp_path, labelme([shape]), size=(20, 30))
    with pytest.raises(ValueError, match="It looks turned by a quarter"):
        read(tmp_path, labelme([shape]), size=SIZE[::-1])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"shape_type": "cuboid", "points": [[1, 1]]}, "shape 0 of the type 'cuboid', which must be one of polygon,"),
        ({"shape_type": "circle", "points": [[1, 1], [1, 1]]}, "a circle without area"),
        ({"shape_type": "rectangle", "points": [[1, 1], [1, 9]]}, "a rectangle without area"),
        ({"shape_type": "polygon", "points": [[1, 1], [3, 3], [9, 9]]}, "a polygon without area"),
        ({"shape_type": "circle", "points": [[1, 1], [1, 5], [3, 3]]}, "a circle of 3 points, which must be 2"),
        ({"shape_type": "line", "points": [[1, 1]]}, "at least 2 points"),
        ({"shape_type": "point", "points": [[1, 1, 1]]}, "must be a list of numbers"),
        ({"shape_type": "point", "points": [[1, "1"]]}, "must be a list of numbers"),
        ({"shape_type": "point", "points": [1, 1]}, "must be a list of numbers"),
        ({"shape_type": "point", "points": [[1e9, 1]]}, "which must be pixels"),
        ({"shape_type": "point", "points": []}, "has `points`"),
        ({"shape_type": "point", "points": [[1, 1]], "label": 3}, "has `label` = 3"),
        ({"shape_type": "mask", "points": [[5, 3], [14, 8]]}, "must be a PNG in base64"),
        ({"shape_type": "mask", "points": [[5, 3], [14, 8]], "mask": "%%"}, "but it is no base64"),
        ({"shape_type": "mask", "points": [[5, 3], [14, 8]], "mask": "aGVsbG8="}, "not an image of a known format"),
        ({"shape_type": "mask", "points": [[5, 3], [20, 8]], "mask": encode(PIECE)}, "it has 10 x 6 pixels for 16 x 6"),
        ({"shape_type": "mask", "points": [[5, 3], [14, 8]], "mask": encode(PIECE & False)}, "marks no pixel"),
        ({"shape_type": "point", "points": [[70, 1]]}, "Shape 0 of '.*a.json' must lie in its image of 60 x 40"),
    ],
)
def test_a_shape_is_refused_when_it_cannot_be_meant(tmp_path, shape, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, labelme([shape]))
    assert "a.json" in str(caught.value)


def test_json_is_left_alone_when_it_is_no_annotation(tmp_path) -> None:
    assert read(tmp_path, {"operator": "K.", "camera": 3}).kind == "image"
    with pytest.raises(ValueError, match="is no LabelMe file: it has no `shapes`"):
        list_defects(tmp_path / "parts", marks=tmp_path / "parts")

"""YOLO's labels say where a defect is, by boxes and polygons."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.defects import list_defects
from tests.unit.defects.annotated import block, save_image, save_text

BLOCK = block(5, 10, 15, 30)
BOX = "1 0.333333 0.250000 0.333333 0.250000"
POLYGON = "0 0.166667 0.125 0.5 0.125 0.5 0.375 0.166667 0.375"


def read(root, text, names: dict[str, str] | None = None):
    save_image(root / "images" / "train" / "a.png")
    save_text(root / "labels" / "train" / "a.txt", text)
    for name, content in (names or {}).items():
        save_text(root / name, content)
    (defect,) = list_defects(root / "images" / "train")
    return defect


@pytest.mark.parametrize(
    ("names", "family"),
    [
        ({}, "train"),
        ({"data.yaml": "names: [scratch, dent]\n"}, "dent"),
        ({"data.yaml": "path: ..\nnames:\n  0: scratch\n  1: yes\n"}, "yes"),
        ({"labels/classes.txt": "scratch\ndent\n"}, "dent"),
        ({"labels/train/classes.txt": "scratch\r\noil stain\r\n"}, "oil stain"),
        ({"data.yaml": "names: [scratch]\n"}, "train"),
        ({"data.yaml": "nc: 2\n"}, "train"),
    ],
)
def test_a_box_has_the_class_for_its_type_when_it_is_named(tmp_path, names, family) -> None:
    defect = read(tmp_path, BOX, names)
    assert (defect.kind, defect.family) == ("box", family)
    np.testing.assert_array_equal(defect.read_marks(), BLOCK * 1)
    assert {file.name for file in defect.files} == {"a.png", "a.txt", *(name.split("/")[-1] for name in names)}


def test_a_polygon_is_filled_when_a_line_has_seven_numbers_or_more(tmp_path) -> None:
    defect = read(tmp_path, f"\n{POLYGON}\n")
    assert defect.kind == "mask"
    np.testing.assert_array_equal(defect.read_marks(), BLOCK * 255)


@pytest.mark.parametrize("given", ["", "images", "images/train"])
@pytest.mark.parametrize(("images", "labels"), [("images/train", "labels/train"), ("train/images", "train/labels")])
def test_labels_are_found_when_they_lie_like_the_images(tmp_path, images, labels, given) -> None:
    save_image(tmp_path / images / "a.png")
    save_text(tmp_path / labels / "a.txt", BOX)
    (defect,) = list_defects(tmp_path / (images if given else ""))
    assert defect.kind == "box"


def test_the_image_is_good_when_its_labels_are_empty(tmp_path, caplog) -> None:
    save_image(tmp_path / "images" / "train" / "b.png")
    save_text(tmp_path / "labels" / "train" / "b.txt", "")
    assert read(tmp_path, BOX).image.name == "a.png"
    assert "they count as good and are left out, such as" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0.5 0.5 0 0.5", "line 1 with a box without area"),
        ("1 0.5 0.5 0.1", "line 1 of 4 numbers"),
        ("1 0.5 0.5 0.1 0.1 0.9", "line 1 of 6 numbers"),
        (f"{POLYGON} 0.5", "line 1 of 10 numbers"),
        ("a 0.5 0.5 0.1 0.1", "the class 'a', which must be a whole number"),
        ("-1 0.5 0.5 0.1 0.1", "the class '-1'"),
        ("1 0.5 x 0.1 0.1", "has 'x' in line 1, which must be a share of the image's width or height"),
        ("1 0.5 nan 0.1 0.1", "has 'nan' in line 1"),
        (f"{BOX}\n1 120 80 20 20", "has '120' in line 2"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", "its corners all lie on one line"),
        ("0 1.3 0.5 0.1 0.1", "Line 1 of '.*a.txt' must lie in its image"),
    ],
)
def test_a_line_is_refused_when_it_cannot_be_meant(tmp_path, text, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert "a.txt" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [[a], b]", r"names class 0 \['a'\]"),
        ("names: {x: a}", "names class 'x'"),
        ("names: [a", "is no YAML"),
        ("names: !!python/object/apply:os.system ['true']\n", None),
        ('names: ["a\\nb"]', "characters that can be printed"),
        ("a: &a [x]\nnames: *b", "is no YAML"),
    ],
)
def test_names_are_refused_when_they_are_no_texts(tmp_path, content, message) -> None:
    if message is None:  # a tag makes nothing: it is a list like any other
        assert read(tmp_path, BOX, {"data.yaml": content}).family == "train"
        return
    with pytest.raises(ValueError, match=message):
        read(tmp_path, BOX, {"data.yaml": content})

"""Annotations go to the images that they are about."""

from __future__ import annotations

import pytest

from anomalib_synth.defects import list_defects
from tests.unit.defects.annotated import coco, cvat, save_image, save_text

BOX = '<box label="scratch" xtl="1" ytl="1" xbr="9" ybr="9"/>'


def annotate(path, name: str) -> None:
    """Write a file about one image."""
    if path.suffix == ".xml":
        save_text(path, cvat(BOX, name=name))
    else:
        images = [{"id": 7, "file_name": name, "height": 40, "width": 60}]
        save_text(path, coco([{"bbox": [1, 1, 5, 5]}], images=images))


@pytest.mark.parametrize("file", ["annotations.json", "annotations.xml", "annotations/instances_val.json"])
@pytest.mark.parametrize(
    ("name", "about", "given", "image"),
    [
        ("000.png", "images/000.png", "defects", "defects/dent/000.png"),
        ("000.png", "images/000.png", "defects", "defects/000.png"),
        ("images/000.png", "images/000.png", "defects/images", "defects/images/000.png"),
        ("000.png", "000.png", "defects", "defects/000.png"),
        ("dent/000.png", "dent/000.png", "defects", "defects/dent/000.png"),
        ("000.png", "scans/000.png", "defects", "defects/dent/000.png"),  # whatever it is about
        ("000.png", "scans/000.png", "defects/dent", "defects/dent/000.png"),
    ],
)
def test_a_file_above_is_not_used_when_it_is_about_another_image(tmp_path, file, name, about, given, image) -> None:
    save_image(tmp_path / "cc" / about)
    save_image(tmp_path / "cc" / image)
    annotate(tmp_path / "cc" / file, name)
    for what in (tmp_path / "cc" / given, [tmp_path / "cc" / image]):
        assert [defect.kind for defect in list_defects(what)] == ["image"]


@pytest.mark.parametrize(
    ("file", "name", "given", "image"),
    [
        ("annotations.json", "000.png", "images", "images/000.png"),
        ("annotations.json", "images/000.png", "images", "images/000.png"),
        ("annotations.json", "dent/000.png", "images", "images/dent/000.png"),
        ("annotations.json", "dent/000.png", "images/dent", "images/dent/000.png"),
        ("annotations.json", "test/dent/000.png", "test/dent", "test/dent/000.png"),
        ("annotations/instances_val.json", "000.png", "val", "val/000.png"),
        ("annotations/instances_val.json", "000.png", "images/val", "images/val/000.png"),
        ("annotations.xml", "real/dent/000.png", "real", "real/dent/000.png"),
        ("real/annotations.json", "000.png", "real", "real/dent/000.png"),
    ],
)
def test_a_file_is_used_when_the_path_fits(tmp_path, file, name, given, image) -> None:
    save_image(tmp_path / "cc" / image)
    annotate(tmp_path / "cc" / file, name)
    for what in (tmp_path / "cc" / given, [tmp_path / "cc" / image]):
        assert [defect.kind for defect in list_defects(what)] == ["box"]


def test_a_file_is_used_when_it_is_given(tmp_path) -> None:
    save_image(tmp_path / "images" / "000.png")
    save_image(tmp_path / "copies" / "dent" / "000.png")
    annotate(tmp_path / "annotations.json", "000.png")
    (defect,) = list_defects(tmp_path / "copies", marks=tmp_path / "annotations.json")
    assert defect.kind == "box"

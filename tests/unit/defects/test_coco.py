"""COCO instances say where a defect is, by box, polygon or run lengths."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from anomalib_synth.defects import list_defects
from tests.unit.defects.annotated import SIZE, block, coco, save_image, save_text

BLOCK = block(5, 10, 15, 30)
POLYGON = [10, 5, 30, 5, 30, 15, 10, 15]
ENCODED = coco_mask.encode(np.asfortranarray(BLOCK, dtype=np.uint8))


def read(folder, content):
    save_image(folder / "parts" / "a.png")
    save_text(folder / "parts" / "annotations.json", content)
    (defect,) = list_defects(folder / "parts")
    return defect


@pytest.mark.parametrize(
    "segmentation",
    [
        [POLYGON],
        [[*POLYGON[:4], 30, 10, 10, 10], [10, 10, 30, 10, 30, 15, 10, 15]],
        {"size": list(SIZE), "counts": ENCODED["counts"].decode()},
        {"size": list(SIZE), "counts": [405, *[10, 30] * 19, 10, 1225]},
    ],
    ids=["polygon", "polygons", "compressed", "uncompressed"],
)
def test_pixels_come_back_when_there_is_a_segmentation(tmp_path, segmentation) -> None:
    defect = read(tmp_path, coco([{"segmentation": segmentation, "bbox": [1, 1, 2, 2], "iscrowd": 0}]))
    assert (defect.kind, defect.family) == ("mask", "scratch")
    np.testing.assert_array_equal(defect.read_marks(), BLOCK * 255)
    np.testing.assert_array_equal(defect.read_masks()["scratch"], BLOCK)


@pytest.mark.parametrize("missing", [{}, {"segmentation": []}, {"segmentation": None}])
def test_the_box_counts_when_there_is_no_segmentation(tmp_path, missing) -> None:
    defect = read(tmp_path, coco([{"bbox": [10, 5, 20, 10], "category_id": 2} | missing]))
    assert (defect.kind, defect.family) == ("box", "dent")
    np.testing.assert_array_equal(defect.read_marks(), BLOCK * 1)


def test_each_type_has_its_own_pixels_when_labels_differ(tmp_path) -> None:
    rows = [{"segmentation": [POLYGON]}, {"segmentation": [[40, 20, 50, 20, 50, 30, 40, 30]], "category_id": 2}]
    defect = read(tmp_path, coco([*rows, {"segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]], "category_id": 2}]))
    assert defect.family == "dent"
    masks = defect.read_masks()
    np.testing.assert_array_equal(masks["scratch"], BLOCK)
    np.testing.assert_array_equal(masks["dent"], block(20, 40, 30, 50) | block(0, 0, 2, 2))


def test_the_type_is_the_folders_when_there_are_no_categories(tmp_path) -> None:
    assert read(tmp_path, coco([{"bbox": [1, 1, 5, 5]}], categories=[])).family == "parts"


def test_the_image_is_good_when_it_is_listed_without_an_annotation(tmp_path, caplog) -> None:
    content = coco([{"bbox": [1, 1, 5, 5]}])
    content["images"].append({"id": 8, "file_name": "b.png", "height": SIZE[0], "width": SIZE[1]})
    save_image(tmp_path / "parts" / "b.png")
    assert read(tmp_path, content).image.name == "a.png"
    assert "annotated without a single mark, so they count as good" in caplog.text


def test_an_image_is_a_defect_somewhere_when_the_file_does_not_name_it(tmp_path) -> None:
    save_image(tmp_path / "parts" / "a.png")
    save_image(tmp_path / "parts" / "dent" / "b.png")
    save_text(tmp_path / "parts" / "annotations.json", coco([{"bbox": [1, 1, 5, 5]}]))
    found = list_defects(tmp_path / "parts")
    assert [(defect.kind, defect.family) for defect in found] == [("box", "scratch"), ("image", "dent")]
    assert (found[1].read_marks() == 1).all()


@pytest.mark.parametrize("annotations", ["annotations/instances_default.json", "instances_default.json", "x.coco.json"])
@pytest.mark.parametrize("name", ["a.png", "default/a.png", "default\\a.png"])
@pytest.mark.parametrize("given", ["root", "images", "default"])
def test_the_file_is_found_when_it_lies_where_tools_write_it(tmp_path, annotations, name, given) -> None:
    save_image(tmp_path / "root" / "images" / "default" / "a.png")
    content = coco([{"bbox": [1, 1, 5, 5]}])
    content["images"][0]["file_name"] = name
    save_text(tmp_path / "root" / annotations, content)
    folder = {"root": "root", "images": "root/images", "default": "root/images/default"}[given]
    assert [defect.kind for defect in list_defects(tmp_path / folder)] == ["box"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"bbox": [1, 1, 0, 5]}, r"annotation 0, which has `bbox` = \[1, 1, 0, 5\], which must be x, y, width and"),
        ({"bbox": [1, 1, 5]}, "has `bbox`"),
        ({"bbox": ["1", 1, 5, 5]}, "has `bbox`"),
        ({"bbox": [1, 1, 1e999, 5]}, "holds Infinity, which is no number"),
        ({}, "has neither `segmentation` nor `bbox`"),
        ({"segmentation": [[1, 1, 5, 5]]}, "x and y by turns, of at least 3 points"),
        ({"segmentation": [[1, 1, 5, 5, 9, 9]]}, "all lie on one line, so it has no area"),
        ({"segmentation": [[1, 1, 5, 5, 9]]}, "x and y by turns"),
        ({"segmentation": [[1, 1, True, 5, 9, 4]]}, "must be a list of numbers"),
        ({"segmentation": "x"}, "has `segmentation`"),
        ({"segmentation": {"size": [40, 60], "counts": [2400]}}, "marks no pixel"),
        ({"segmentation": {"size": [40, 60], "counts": [1, 5]}}, "6 pixels for a mask of 60 x 40"),
        ({"segmentation": {"size": [40, 60], "counts": "%%"}}, "damaged at '%'"),
        ({"segmentation": {"size": [40, 60], "counts": {}}}, "whole numbers, or text"),
        ({"segmentation": {"size": [60, 40], "counts": [1, 2399]}}, "for 40 x 60 pixels, but its image has 60 x 40"),
        ({"segmentation": {"counts": [1, 5]}}, "with the size None of run lengths, which must be height and width"),
        ({"bbox": [1, 1, 5, 5], "image_id": 9}, "of image 9, which `images` does not have"),
        ({"bbox": [1, 1, 5, 5], "category_id": 9}, "of category 9, which `categories` does not have"),
        ({"bbox": [60, 1, 5, 5]}, "must lie in its image of 60 x 40"),
        ({"segmentation": [[90, 1, 95, 5, 99, 4]]}, "must lie in its image of 60 x 40"),
    ],
)
def test_an_annotation_is_refused_when_it_cannot_be_meant(tmp_path, row, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, coco([row]))
    assert "annotations.json" in str(caught.value)


@pytest.mark.parametrize("name", ["../a.png", "/data/a.png", "..\\a.png", "", "x/../../a.png"])
def test_a_name_is_refused_when_it_leads_out_of_the_folder(tmp_path, name) -> None:
    content = coco([{"bbox": [1, 1, 5, 5]}])
    content["images"][0]["file_name"] = name
    with pytest.raises(ValueError, match="which must be a relative path that stays inside its folder"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {}}, "has `images` = {}, which must be a list"),
        ({"images": [{"id": 7, "file_name": "a.png"}] * 2}, "has two images with the id 7"),
        ({"categories": [{"id": 1}]}, "category 0, which must have the fields"),
        ({"categories": [{"id": 1, "name": "a\nb"}]}, "characters that can be printed"),
        ({"annotations": [3]}, "annotation 0, which is not an annotation"),
    ],
)
def test_a_file_is_refused_when_its_lists_are_malformed(tmp_path, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, coco([{"bbox": [1, 1, 5, 5]}]) | changes)


def test_a_file_is_refused_when_it_marks_an_image_that_is_not_there(tmp_path) -> None:
    content = coco([{"bbox": [1, 1, 5, 5]}, {"bbox": [1, 1, 5, 5], "image_id": 8}])
    content["images"].append({"id": 8, "file_name": "lost.png"})
    with pytest.raises(ValueError, match=r"marks 'lost.png', which is not there. Put it there, or give the images"):
        read(tmp_path, content)
    assert [defect.kind for defect in list_defects([tmp_path / "parts" / "a.png"])] == ["box"]


def test_a_file_is_refused_when_a_name_fits_two_images(tmp_path) -> None:
    for name in ("dent", "scratch"):
        save_image(tmp_path / name / "a.png")
    save_text(tmp_path / "annotations.json", coco([{"bbox": [1, 1, 5, 5]}]))
    with pytest.raises(ValueError, match=r"names 'a.png', which fits '.*dent/a.png' and '.*scratch/a.png'"):
        list_defects(tmp_path)

"""Which images have a defect, without anything being read of where it is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.defects import list_defect_images, list_defects
from tests.unit.defects.annotated import SIZE, block, coco, cvat, labelme, save_image, save_mask, save_text

_SAID = "Left out old.jp2 of `defects`: the format .jp2 is not read; convert it to PNG."
_BOX = [1, 1, 5, 5]
_GOOD = {"id": 8, "file_name": "b.png", "height": SIZE[0], "width": SIZE[1]}
_EMPTY_IN_CVAT = '</image><image id="1" name="b.png" width="60" height="40">'
_DRAWN = '<box label="scratch" xtl="1" ytl="1" xbr="5" ybr="5" occluded="0"></box>'


def _annotate(root, how: str) -> None:
    """Mark a.png, and name b.png without a mark."""
    if how == "coco":
        content = coco([{"bbox": _BOX}])
        content["images"].append(_GOOD)
        save_text(root / "images" / "annotations.json", content)
    elif how == "coco above":
        content = coco([{"bbox": _BOX}])
        content["images"].append(_GOOD)
        save_text(root / "annotations" / "instances_default.json", content)
    elif how == "cvat":
        save_text(root / "images" / "annotations.xml", cvat(_DRAWN + _EMPTY_IN_CVAT))
    elif how == "yolo":
        save_text(root / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1\n")
        save_text(root / "labels" / "b.txt", "")
    else:
        save_text(root / "images" / "a.json", labelme([{"shape_type": "point", "points": [[3, 3]]}]))
        save_text(root / "images" / "b.json", labelme([]))


@pytest.mark.parametrize("how", ["coco", "coco above", "cvat", "yolo", "labelme"])
def test_an_image_is_no_defect_when_annotations_call_it_good(tmp_path, caplog, how) -> None:
    for name in "abc":
        save_image(tmp_path / "images" / f"{name}.png")
    _annotate(tmp_path, how)
    found = list_defect_images(tmp_path / "images")
    assert [path.name for path in found] == ["a.png", "c.png"]
    assert "1 images of `defects` are annotated without a single mark" in caplog.text
    assert found == [defect.image for defect in list_defects(tmp_path / "images")]


def test_an_image_is_a_defect_when_a_mask_shows_what_annotations_do_not(tmp_path) -> None:
    for name in "ab":
        save_image(tmp_path / "images" / f"{name}.png")
    _annotate(tmp_path, "coco")
    save_mask(tmp_path / "images" / "b_mask.png", block(1, 1, 9, 9))
    assert [path.name for path in list_defect_images(tmp_path / "images")] == ["a.png", "b.png"]


@pytest.mark.parametrize("listing", [list_defects, list_defect_images])
def test_a_store_is_refused_when_real_defects_are_wanted(tmp_path, listing) -> None:
    """Its good sources would be taken for defects without a mark."""
    save_image(tmp_path / "sources" / "ab" / "0.png")
    save_text(tmp_path / "store.json", {})
    with pytest.raises(ValueError, match=r"`missed` must be a folder with images of real defects, but .* is a store"):
        listing(tmp_path, name="missed")


def test_there_is_no_defect_when_all_are_called_good(tmp_path) -> None:
    save_image(tmp_path / "a.png")
    save_text(tmp_path / "annotations.json", coco([]))
    with pytest.raises(ValueError, match=r"`real` .*holds no image of a defect .*without a mark"):
        list_defect_images(tmp_path, name="real")


def test_images_stay_and_the_reason_is_said_when_annotations_cannot_be_used(tmp_path, caplog) -> None:
    """Where the defects are does not matter here, so what is wrong with the marks stops nothing."""
    for name in "ab":
        save_image(tmp_path / f"{name}.png")
    save_text(tmp_path / "annotations.json", coco([{"bbox": "wide"}]))
    assert [path.name for path in list_defect_images(tmp_path)] == ["a.png", "b.png"]
    assert "count as defects, as the annotations cannot be used: " in caplog.text
    assert "annotations.json" in caplog.text


def test_images_stay_when_a_box_is_on_another_size_or_a_turned_image(tmp_path) -> None:
    save_image(tmp_path / "a.png", orientation=6)
    save_text(tmp_path / "annotations.json", coco([{"bbox": _BOX}]))
    assert [path.name for path in list_defect_images(tmp_path)] == ["a.png"]


def test_formats_that_are_not_read_are_named_once_when_a_folder_holds_some(tmp_path, caplog) -> None:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "old.jp2").write_bytes(b"x")
    for _ in range(2):
        assert [defect.image.name for defect in list_defects(tmp_path, name="defects")] == ["a.png"]
    assert caplog.text.count(_SAID) == 1

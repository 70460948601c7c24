"""What the package exports is read back to the masks it came from."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.defects import list_defects
from anomalib_synth.store import SampleStore, export_coco, export_mvtec, export_yolo
from tests.unit.store.samples import hard_masks, make_masked_store


@pytest.fixture
def store(tmp_path) -> SampleStore:
    masks = hard_masks()
    return make_masked_store(tmp_path / "store", masks, source_seed=list(range(len(masks))))


def expected_masks(store: SampleStore) -> list[tuple[str, bytes]]:
    return sorted((record.family, (store.read_mask(record) > 0).tobytes()) for record in store.records)


def read_back(folder, **arguments) -> list[tuple[str, bytes]]:
    found = list_defects(folder, **arguments)
    assert {defect.kind for defect in found} == {"mask"}
    for defect in found:
        marks, masks = defect.read_marks(), defect.read_masks()
        assert list(masks) == [defect.family]
        np.testing.assert_array_equal(marks, masks[defect.family] * 255)
    return sorted((defect.family, (defect.read_marks() == 255).tobytes()) for defect in found)


@pytest.mark.parametrize("segmentation", ["polygons", "run_lengths"])
def test_coco_comes_back_to_the_pixel_when_it_was_exported(store, tmp_path, segmentation) -> None:
    export_coco(store, tmp_path / "out", segmentation=segmentation, min_area=1)
    assert read_back(tmp_path / "out") == expected_masks(store)
    assert read_back(tmp_path / "out" / "images", marks=tmp_path / "out" / "annotations.json") == expected_masks(store)


def test_mvtec_comes_back_to_the_pixel_when_it_was_exported(store, tmp_path) -> None:
    export_mvtec(store, tmp_path / "out")
    assert read_back(tmp_path / "out" / "test") == expected_masks(store)


def test_yolo_polygons_come_back_to_the_pixel_when_exported(store, tmp_path, caplog) -> None:
    export_yolo(store, tmp_path / "out", segmentation="polygons", min_area=1)
    assert read_back(tmp_path / "out" / "images") == expected_masks(store)
    assert f"{len(store.records)} images of `defects` are annotated without a single mark" in caplog.text


def test_yolo_boxes_come_back_as_those_of_the_regions_when_exported(tmp_path) -> None:
    masks = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mask = np.zeros((641, 1283), dtype=bool)  # sides whose shares need rounding
        for row in range(3):
            top, left = row * 200 + int(rng.integers(0, 60)), int(rng.integers(0, 900))
            mask[top : top + int(rng.integers(5, 90)), left : left + int(rng.integers(5, 300))] = True
        masks.append(mask)
    store = make_masked_store(tmp_path / "s", masks, source_seed=list(range(6)))
    export_yolo(store, tmp_path / "out", min_area=1)
    found = list_defects(tmp_path / "out" / "images")
    assert {defect.kind for defect in found} == {"box"}
    boxes = {defect.image.stem: defect for defect in found}
    for record in store.records:
        marks = boxes[record.id].read_marks()
        np.testing.assert_array_equal(marks > 0, store.read_mask(record) > 0)  # each region is its own box
        assert marks.max() == 3
        assert boxes[record.id].family == record.family

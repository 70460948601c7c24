"""Exports hold the kept samples, as other tools want them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from anomalib_synth.store import StoreError, export_coco, export_mvtec, export_yolo
from anomalib_synth.store.export_outlines import run_lengths
from tests.unit.store.samples import make_store


def test_mvtec_export_is_what_anomalib_reads(tmp_path) -> None:
    from anomalib.data import Folder

    store = make_store(tmp_path / "s", 6, size=32)
    store.decide([store.records[0].id], accepted=False)
    out = tmp_path / "out"
    export_mvtec(store, out)
    assert {path.name for path in (out / "test").iterdir()} == {"scratch", "stain"}
    data = Folder(
        name="out", root=out, normal_dir="train/good", abnormal_dir=["test/scratch", "test/stain"],
        mask_dir=["ground_truth/scratch", "ground_truth/stain"], test_split_mode="from_dir",
        val_split_mode="none", num_workers=0, seed=0,
    )  # fmt: skip
    data.setup()
    samples = data.test_data.samples
    assert (samples.label_index == 1).sum() == 5
    first = store.records[2]
    pixels = np.array(Image.open(out / "test" / "scratch" / "00000.png"))
    assert np.array_equal(pixels, store.read_image(first))
    mask = np.array(Image.open(out / "ground_truth" / "scratch" / "00000_mask.png"))
    assert np.array_equal(mask, store.read_mask(first))
    assert len(list((out / "train" / "good").iterdir())) == 5


def decode(counts: list[int], size: list[int]) -> np.ndarray:
    """Run lengths to a mask, by the book."""
    flat = [value for position, run in enumerate(counts) for value in [position % 2] * run]
    return np.array(flat, dtype=bool).reshape(size[::-1]).T


def test_coco_export_holds_boxes_and_run_lengths(tmp_path) -> None:
    store = make_store(tmp_path / "s", 4)
    export_coco(store, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["scratch", "stain"]
    for image, annotation, record in zip(content["images"], content["annotations"], store.records, strict=True):
        mask = store.read_mask(record) > 0
        assert (tmp_path / "out" / "images" / image["file_name"]).is_file()
        segmentation = annotation["segmentation"]
        assert np.array_equal(decode(segmentation["counts"], segmentation["size"]), mask)
        rows, columns = np.nonzero(mask)
        left, top = int(columns.min()), int(rows.min())
        assert annotation["bbox"] == [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
        assert annotation["area"] == mask.sum()


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_come_back(seed) -> None:
    mask = np.random.default_rng(seed).random((7, 5)) > 0.5
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    assert np.array_equal(decode(counts, [7, 5]), mask)


def test_yolo_export_holds_boxes_in_shares(tmp_path) -> None:
    store = make_store(tmp_path / "s", 2)
    export_yolo(store, tmp_path / "out")
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["names"] == {0: "scratch", 1: "stain"}
    record = store.records[1]
    label = (tmp_path / "out" / "labels" / "train" / f"{record.id}.txt").read_text().split()
    rows, columns = np.nonzero(store.read_mask(record))
    centre = ((columns.min() + columns.max() + 1) / 32, (rows.min() + rows.max() + 1) / 32)
    assert label[0] == "1"
    assert [float(value) for value in label[1:]] == pytest.approx([*centre, 0.25, 0.25])


@pytest.mark.parametrize("export", [export_mvtec, export_coco, export_yolo])
def test_bad_exports_are_errors(export, tmp_path) -> None:
    store = make_store(tmp_path / "s", 2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(StoreError, match="`out` must be a new or empty folder"):
        export(store, tmp_path / "full")
    (store.path / store.records[0].image_file).write_bytes(b"")
    with pytest.raises(StoreError, match="was edited"):
        export(store, tmp_path / "a")
    store.decide([record.id for record in store.records], accepted=False)
    with pytest.raises(StoreError, match="has no kept sample to export"):
        export(store, tmp_path / "b")

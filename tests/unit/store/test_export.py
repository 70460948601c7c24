"""Exports hold the kept samples, and open in the packages they are for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from anomalib_synth.store import StoreError, export_coco, export_mvtec, export_yolo
from anomalib_synth.store.export_instances import find_instances
from anomalib_synth.store.export_mvtec import name_folders
from anomalib_synth.store.export_outlines import run_lengths
from anomalib_synth.store.export_yolo import split_sources
from tests.unit.store.samples import hard_masks, make_masked_store, make_record, make_store


def decode(counts: list[int], size: list[int]) -> np.ndarray:
    """Run lengths to a mask, by the book."""
    flat = [value for position, run in enumerate(counts) for value in [position % 2] * run]
    return np.array(flat, dtype=bool).reshape(size[::-1]).T


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_come_back(seed) -> None:
    mask = np.random.default_rng(seed).random((7, 5)) > 0.5
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    assert np.array_equal(decode(counts, [7, 5]), mask)


@pytest.mark.parametrize("segmentation", ["polygons", "run_lengths"])
def test_coco_gives_the_stored_pixels_when_pycocotools_reads_it(segmentation, tmp_path) -> None:
    store = make_masked_store(tmp_path / "s", hard_masks())
    export_coco(store, tmp_path / "out", segmentation=segmentation, min_area=1)
    coco = COCO(str(tmp_path / "out" / "annotations.json"))
    assert len(coco.imgs) == len(store.records)
    for record, image in zip(store.records, coco.loadImgs(coco.getImgIds()), strict=True):
        pixels = np.array(Image.open(tmp_path / "out" / "images" / image["file_name"]))
        assert np.array_equal(pixels, store.read_image(record))
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        decoded = [coco.annToMask(each).astype(bool) for each in annotations]
        assert np.array_equal(np.sum(decoded, axis=0), store.read_mask(record) > 0)  # each pixel once
        for annotation, mask in zip(annotations, decoded, strict=True):
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == coco_mask.toBbox(coco.annToRLE(annotation)).tolist()


@pytest.mark.parametrize("segmentation", ["polygons", "run_lengths"])
def test_coco_evaluates_when_results_are_loaded(segmentation, tmp_path) -> None:
    from pycocotools.cocoeval import COCOeval

    export_coco(make_masked_store(tmp_path / "s", hard_masks()), tmp_path / "out", segmentation=segmentation)
    coco = COCO(str(tmp_path / "out" / "annotations.json"))
    coco.info()
    assert {"info", "licenses"} <= coco.dataset.keys()
    results = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "score": 0.9,
         "segmentation": {**coco.annToRLE(each), "counts": coco.annToRLE(each)["counts"].decode()}}
        for each in coco.dataset["annotations"]
    ]  # fmt: skip
    evaluation = COCOeval(coco, coco.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_coco_has_one_polygon_an_instance_when_specks_are_joined(tmp_path) -> None:
    export_coco(make_masked_store(tmp_path / "s", hard_masks()), tmp_path / "out")
    annotations = json.loads((tmp_path / "out" / "annotations.json").read_bytes())["annotations"]
    assert all(len(each["segmentation"]) == 1 for each in annotations)  # Label Studio's converter reads the first alone
    assert sum(each["image_id"] == 3 for each in annotations) == 1
    assert next(each["area"] for each in annotations if each["image_id"] == 3) == 36 + 1 + 4


def test_numbers_of_kinds_stay_when_samples_are_rejected_or_added(tmp_path) -> None:
    store = make_store(tmp_path / "s", 4)
    with store.writing():
        store.append(make_record(store, 4, family="a_new_one"))
    expected = ["scratch", "stain", "a_new_one"]
    for name, family in (("all", ""), ("without", "scratch")):
        store.decide([record.id for record in store.records if record.family == family], accepted=False)
        export_coco(store, tmp_path / name)
        export_yolo(store, tmp_path / f"yolo_{name}")
        content = json.loads((tmp_path / name / "annotations.json").read_bytes())
        assert [(each["id"], each["name"]) for each in content["categories"]] == list(enumerate(expected, 1))
        data = yaml.safe_load((tmp_path / f"yolo_{name}" / "data.yaml").read_text())
        assert data["names"] == dict(enumerate(expected))


def read_yolo(folder: Path, split: str):
    """A split as supervision reads it, at the place where ultralytics looks: from data.yaml's folder on."""
    import supervision

    data = yaml.safe_load((folder / "data.yaml").read_text())
    images = (Path(data.get("path") or folder) / data[split]).resolve()
    labels = images.parents[1] / "labels" / images.name
    assert images.is_dir()
    assert {path.stem for path in images.iterdir()} == {path.stem for path in labels.iterdir()}
    return supervision.DetectionDataset.from_yolo(
        images_directory_path=str(images), annotations_directory_path=str(labels),
        data_yaml_path=str(folder / "data.yaml"), force_masks=False,
    )  # fmt: skip


def test_yolo_is_found_when_read_from_another_directory(tmp_path, monkeypatch) -> None:
    store = make_masked_store(tmp_path / "s", hard_masks() * 2)
    monkeypatch.chdir(tmp_path)
    export_yolo(store, "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").rename(tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    sizes, boxes = 0, {}
    for split in ("train", "val"):
        dataset = read_yolo(Path("moved"), split)
        sizes += len(dataset)
        boxes |= {Path(path).stem: found for path, _, found in dataset}
    assert sizes == 20
    for record in store.records:
        found = boxes[record.id]
        height, width = store.read_mask(record).shape
        expected = [
            (left, top, left + wide, top + high)
            for left, top, wide, high in (each.box for each in find_instances(store.read_mask(record) > 0))
        ]
        assert np.allclose(found.xyxy, expected, atol=max(height, width) * 2e-6)
        assert set(found.class_id) == {0 if record.family == "scratch" else 1}
        assert len(boxes[f"good_{record.source_hash}"]) == 0


def test_yolo_polygons_give_the_stored_pixels_when_decoded(tmp_path) -> None:
    store = make_masked_store(tmp_path / "s", hard_masks())
    export_yolo(store, tmp_path / "out", segmentation="polygons", min_area=1)
    for record in store.records:
        mask = store.read_mask(record) > 0
        height, width = mask.shape
        (label,) = (tmp_path / "out" / "labels").rglob(f"{record.id}.txt")
        total = np.zeros_like(mask, dtype=int)
        for line in label.read_text().splitlines():
            corners = np.array(line.split()[1:], dtype=float).reshape(-1, 2) * (width, height)
            total += coco_mask.decode(coco_mask.frPyObjects([corners.ravel().tolist()], height, width))[..., 0]
        assert np.array_equal(total, mask)
    masks = {
        Path(path).stem: found.mask
        for split in ("train", "val")
        for path, _, found in read_yolo(tmp_path / "out", split)
    }
    whole = store.read_mask(store.records[0]) > 0
    found = masks[store.records[0].id].any(axis=0)  # fills to the far edge, as OpenCV does: a pixel too much
    assert (found & whole).sum() == whole.sum()
    assert (found & whole).sum() / (found | whole).sum() > 0.8


def test_yolo_keeps_a_source_in_one_split_when_it_has_many_samples(tmp_path) -> None:
    sources = [index % 7 for index in range(28)]
    square = hard_masks()[0]
    store = make_masked_store(tmp_path / "s", [square] * 28, source_seed=sources)
    export_yolo(store, tmp_path / "out", val_share=0.3, seed=1)
    places = {path.stem: path.parent.name for path in (tmp_path / "out" / "images").rglob("*.png")}
    by_source: dict[str, set[str]] = {}
    for record in store.records:
        by_source.setdefault(record.source_hash, set()).add(places[record.id])
        assert places[f"good_{record.source_hash}"] == places[record.id]
    assert all(len(splits) == 1 for splits in by_source.values())
    assert set.union(*by_source.values()) == {"train", "val"}
    assert sum(name.startswith("good_") for name in places) == 7
    assert sum(splits == {"val"} for splits in by_source.values()) == round(0.3 * 7)
    gone = [record for record in store.records if record.source_hash == store.records[0].source_hash]
    store.decide([record.id for record in gone], accepted=False)
    export_yolo(store, tmp_path / "fewer", val_share=0.3, seed=1)
    fewer = {path.stem: path.parent.name for path in (tmp_path / "fewer" / "images").rglob("*.png")}
    left_out = {record.id for record in gone} | {f"good_{gone[0].source_hash}"}
    assert fewer == {name: split for name, split in places.items() if name not in left_out}


@pytest.mark.parametrize("seed", range(4))
def test_yolo_has_both_splits_when_all_that_was_drawn_is_rejected(seed, tmp_path) -> None:
    store = make_masked_store(tmp_path / "s", hard_masks() * 2)
    drawn = split_sources(store, store.records, val_share=0.5, seed=seed)
    for split in ("val", "train"):
        kept = [record for record in store.records if drawn[record.source_hash] == split]
        splits = split_sources(store, kept, val_share=0.5, seed=seed)
        assert set(splits.values()) == {"train", "val"}
        assert splits.keys() == {record.source_hash for record in kept}


def test_yolo_keeps_held_out_samples_apart_when_the_store_names_splits(tmp_path) -> None:
    splits = ["train", "train", "val", "test", "val"]
    store = make_masked_store(tmp_path / "s", hard_masks(), split=splits, source_seed=[0, 1, 2, 3, 1])
    export_yolo(store, tmp_path / "out")
    places = {path.stem: path.parent.name for path in (tmp_path / "out" / "images").rglob("*.png")}
    assert [places[record.id] for record in store.records] == ["train", "val", "val", "test", "val"]
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["test"] == "images/test"
    held_out = make_masked_store(tmp_path / "h", hard_masks(), split=["test"] * 5)
    with pytest.raises(StoreError, match="needs samples of the split 'train'"):
        export_yolo(held_out, tmp_path / "none")


def test_yolo_asks_for_a_second_source_when_there_is_one(tmp_path) -> None:
    store = make_masked_store(tmp_path / "s", hard_masks()[:2], source_seed=[0, 0])
    with pytest.raises(StoreError, match="give `--val_share 0`"):
        export_yolo(store, tmp_path / "out")
    summary = export_yolo(store, tmp_path / "out", val_share=0.0)
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["val"] == "images/train"
    assert "validation is on the training images" in summary.notes[0]


KINDS = ["oil stain", "oil_stain", "Oil_Stain", "good", "Good", "CON", "..", "a/b", "a\\b", "", "lpt1"]
KINDS += ["caf\u00e9", "cafe\u0301"]


def test_mvtec_has_every_sample_when_kinds_are_written_alike(tmp_path) -> None:
    from anomalib.data import MVTecAD

    families = [KINDS[index % len(KINDS)] for index in range(40)]
    store = make_masked_store(tmp_path / "s", [hard_masks()[0]] * 40, family=families)
    summary = export_mvtec(store, tmp_path / "out")
    folders = [path.name for path in (tmp_path / "out" / "test").iterdir()]
    assert len({name.casefold() for name in folders}) == len(KINDS)
    assert not {"good", "con", "lpt1", ".."} & {name.casefold() for name in folders}
    assert len(list((tmp_path / "out" / "test").rglob("*.png"))) == 40
    assert "'oil_stain' is in test/oil_stain_2." in summary.notes
    data = MVTecAD(root=tmp_path, category="out", num_workers=0, val_split_mode="none")
    data.setup()
    assert (data.test_data.samples.label_index == 1).sum() == 40
    assert len(data.train_data) + (data.test_data.samples.label_index == 0).sum() == 40  # it holds out a fifth itself
    first = int((data.test_data.samples.label_index == 1).argmax())
    assert np.array_equal(np.asarray(data.test_data[first].gt_mask).squeeze() > 0, hard_masks()[0])


def test_folders_differ_when_no_file_system_would_tell_kinds_apart() -> None:
    kinds = [
        "Stra\u00dfe",
        "STRASSE",
        "x" * 300,
        "x" * 301,
        "\ud800",
        "\u4e2d" * 100,
        "a.",
        "a ",
        "COM\u00b9",
        "nul.txt",
    ]
    names = list(name_folders(kinds).values())
    assert len({name.casefold() for name in names}) == len(kinds)
    assert all(
        len(name.encode()) < 100 and name.replace("-", "_").replace("_", "").isalnum()
        for name in names
        if name.strip("_")
    )
    assert names[8] == "COM\u00b9_2"


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


@pytest.mark.parametrize(
    ("export", "options", "message"),
    [
        (export_coco, {"segmentation": "boxes"}, "`segmentation` must be 'polygons' or 'run_lengths'"),
        (export_yolo, {"segmentation": "run_lengths"}, "`segmentation` must be 'boxes' or 'polygons'"),
        (export_coco, {"min_area": 0}, "`min_area` must be a whole number of pixels >= 1, got 0"),
        (export_yolo, {"min_area": 2.5}, "`min_area` must be a whole number"),
        (export_yolo, {"val_share": 1.0}, "`val_share` must satisfy 0 <= val_share < 1, got 1.0"),
        (export_yolo, {"val_share": float("nan")}, "`val_share` must satisfy"),
    ],
)
def test_options_are_refused_when_out_of_range(export, options, message, tmp_path) -> None:
    store = make_store(tmp_path / "s", 2)
    with pytest.raises(ValueError, match=message):
        export(store, tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


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

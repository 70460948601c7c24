"""Kept splits: stores that are the same from run to run, reused when nothing changed, refused when damaged."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
from itertools import count
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from anomalib.data.utils import read_image

from anomalib_synth.data import kept_split
from anomalib_synth.generators import RuleBasedGenerator, SampleChecks
from anomalib_synth.generators.keeping import to_levels
from anomalib_synth.report.review_session import ReviewSession
from anomalib_synth.store import SampleStore, hash_pixels
from tests.unit.data.image_sets import folder, generator, sources, tree_bytes, wrap, write_images


def test_kept_bytes_are_identical_when_rendered_twice(good: Path, tmp_path: Path):
    for name in ("one", "two"):
        torch.manual_seed(hash(name) % 1000)
        wrap(folder(good), tmp_path / name, splits=["val", "test"])
    one, two = tree_bytes(tmp_path / "one"), tree_bytes(tmp_path / "two")
    assert one == two
    assert sum(name.endswith(".png") for name in one) >= 4


def test_kept_pixels_are_identical_when_the_data_set_moved(good: Path, tmp_path: Path):
    wrap(folder(good), tmp_path / "one", splits=["val"])
    shutil.move(good, tmp_path / "elsewhere")
    wrap(folder(tmp_path / "elsewhere"), tmp_path / "two", splits=["val"])
    one, two = (
        {name: data for name, data in tree_bytes(tmp_path / run).items() if name.endswith("png")}
        for run in ("one", "two")
    )
    assert one == two
    assert one


def test_kept_split_is_reused_when_present(good: Path):
    first = wrap(folder(good), good, splits=["val"])

    class Broken(RuleBasedGenerator):
        @property
        def config(self) -> dict:
            return generator().config

        def prepare(self, normals):
            pytest.fail("prepared again")

        def __call__(self, *args, **kwargs):
            pytest.fail("drawn again")

    again = wrap(folder(good), good, splits=["val"], generator=Broken(["scratch"]))
    assert again.val_data.samples.equals(first.val_data.samples)


@pytest.mark.parametrize("change", ["generator", "seed", "ratio", "held-out image", "training image"])
def test_kept_split_is_redrawn_when_an_input_changes(good: Path, change: str):
    first = wrap(folder(good), good, splits=["val"])
    kwargs = {
        "generator": {"generator": generator(strength=(0.9, 1.0))},
        "seed": {"seed": 5},
        "ratio": {"anomalous_ratio": 0.7},
    }
    touched = {
        "held-out image": sorted(sources(first.val_data))[0],
        "training image": first.train_data.samples.image_path[0],
    }
    if change in touched:
        PIL.Image.open(touched[change]).point(lambda level: level // 2).save(touched[change])
    wrap(folder(good), good, splits=["val"], **kwargs.get(change, {}))
    assert len([path for path in (good / "kept" / "parts").iterdir() if not path.name.startswith(".")]) == 2


def open_kept(root: Path, *, position: int = 0) -> SampleStore:
    """The store of a kept split, by its place among those there are."""
    return SampleStore.open(sorted((root / "kept" / "parts").iterdir())[position])


def test_store_tells_how_each_defect_was_drawn(good: Path):
    datamodule = wrap(folder(good), good, splits=["val"], val_ratio=0.6)
    store = open_kept(good)
    defects = datamodule.val_data.samples[datamodule.val_data.samples.label_index == 1]
    kept = [record for record in store.records if store.is_accepted(record)]
    assert {record.source for record in kept} == {Path(path).name for path in defects.source_path}
    assert {record.split for record in store.records} == {"val"}
    normals = datamodule.train_data.samples.image_path
    prepared = generator().prepare(read_image(path, as_tensor=True) for path in normals)
    assert store.settings["prepare_digest"] == prepared.prepare_digest
    for record in kept:
        source = read_image(good / "good" / record.source, as_tensor=True)
        assert record.source_hash == hash_pixels(store.read_source(record))
        assert np.array_equal(store.read_source(record), to_levels(source))
        sample = prepared(source[None], seeds=[record.seed])
        assert np.array_equal(store.read_image(record), to_levels(sample.image[0]))
        assert np.array_equal(store.read_mask(record) > 0, sample.mask[0, 0].bool().numpy())
        assert record.quality == pytest.approx(float(sample.quality[0]))
        assert record.generator == sample.provenance[0].config
    assert store.verify() == []


def test_review_page_shows_a_kept_split_and_a_rejected_defect_counts_as_normal(good: Path):
    before = wrap(folder(good), good, splits=["val"], val_ratio=0.6).val_data.samples
    session = ReviewSession(open_kept(good))
    page = session.page("per_page=50")
    shown = [sample for sample in page["samples"] if sample["kept"]]
    assert len(shown) == int((before.label_index == 1).sum())
    session.decide([shown[0]["id"]], accepted=False)
    after = wrap(folder(good), good, splits=["val"], val_ratio=0.6).val_data.samples
    assert int((after.label_index == 1).sum()) == len(shown) - 1
    assert len(after) == len(before)
    name = open_kept(good).get(shown[0]["id"]).source
    assert str(good / "good" / name) in set(after[after.label_index == 0].image_path)


def test_split_of_an_earlier_version_is_refused_with_the_remedy(good: Path):
    wrap(folder(good), good, splits=["val"])
    (kept,) = (good / "kept" / "parts").iterdir()
    shutil.rmtree(kept)
    kept.mkdir()
    (kept / "settings.json").write_text("{}")  # as they were kept before they were stores
    (kept / "manifest.jsonl").write_text('{"file": "000000.png", "accepted": true}\n')
    with pytest.raises(
        ValueError, match=r"has the format of an earlier version.*Delete the folder; the next run renders"
    ):
        wrap(folder(good), good, splits=["val"])


def render(data: str, root: str, barrier) -> None:
    barrier.wait()
    wrap(folder(Path(data)), Path(root), splits=["val", "test"], val_ratio=0.3)


def test_processes_agree_when_they_render_at_once(good: Path, tmp_path: Path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=render, args=(str(good), str(tmp_path / "raced"), barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    wrap(folder(good), tmp_path / "alone", splits=["val", "test"], val_ratio=0.3)
    assert tree_bytes(tmp_path / "raced") == tree_bytes(tmp_path / "alone")
    assert len(list((tmp_path / "raced" / "kept" / "parts").iterdir())) == 2


def test_rename_race_is_won_by_the_first_when_both_finish(good: Path, monkeypatch: pytest.MonkeyPatch):
    rename, calls = Path.rename, []

    def late(self: Path, target: Path):
        if self.name.startswith("."):
            shutil.copytree(self, target)
            (target / "winner").touch()
            calls.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    datamodule = wrap(folder(good), good, splits=["val"])
    (target,) = calls
    assert (target / "winner").exists()
    assert datamodule.val_data.has_anomalous
    assert list(target.parent.iterdir()) == [target]


def test_nothing_is_left_when_drawing_fails(good: Path):
    class Failing(RuleBasedGenerator):
        def __call__(self, *args, **kwargs):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        wrap(folder(good), good, splits=["val"], generator=Failing(["scratch"]))
    assert not list((good / "kept" / "parts").iterdir())


def test_damaged_split_is_refused_when_a_file_is_missing(good: Path):
    wrap(folder(good), good, splits=["val"])
    next((good / "kept").rglob("images/*/*.png")).unlink()
    with pytest.raises(ValueError, match=r"is damaged\..*there is no such file.*Delete the folder"):
        wrap(folder(good), good, splits=["val"])


@pytest.mark.parametrize("what", ["masks", "manifest.jsonl", "store.json", "fewer rows"])
def test_damaged_split_is_refused_when_a_file_was_edited(good: Path, what: str):
    wrap(folder(good), good, splits=["val"], val_ratio=0.6)
    (kept,) = (good / "kept" / "parts").iterdir()
    if what == "fewer rows":
        lines = (kept / "manifest.jsonl").read_bytes().splitlines(keepends=True)
        (kept / "manifest.jsonl").write_bytes(b"".join(lines[:-1]))
    else:
        file = next((kept / what).rglob("*.png")) if what == "masks" else kept / what
        file.write_bytes(b"edited\n")
    with pytest.raises(ValueError, match=r"kept split .* is damaged\..*Delete the folder"):
        wrap(folder(good), good, splits=["val"], val_ratio=0.6)


def test_rejected_draws_stay_normal_when_some_fail(good: Path, caplog: pytest.LogCaptureFixture):
    class Choosy(RuleBasedGenerator):
        def __call__(self, images, *, seeds=None, masks=None):
            sample = super().__call__(images, seeds=seeds, masks=masks)
            for n, seed in enumerate(seeds):
                if seed % 2:
                    sample.accepted[n], sample.reason[n] = False, "odd seed"
            return sample

    with caplog.at_level(logging.INFO):
        datamodule = wrap(
            folder(good), good, splits=["val"], val_ratio=0.75, anomalous_ratio=0.8, generator=Choosy(["noise"])
        )
    records = open_kept(good).records
    rejected = {str(good / "good" / record.source) for record in records if not record.accepted}
    assert 0 < len(rejected) < len(records) == 7
    assert {record.reason for record in records} == {"odd seed", ""}
    normal = datamodule.val_data.samples[datamodule.val_data.samples.label_index == 0]
    assert rejected < set(normal.image_path)
    assert len(datamodule.val_data) == 9
    assert f"{len(rejected)} rejected draws stay normal (odd seed)" in caplog.text


def test_error_says_why_when_every_draw_is_rejected(good: Path):
    impossible = generator(checks=SampleChecks(min_visibility=1e6))
    with pytest.raises(
        ValueError, match=r"`generator` must draw at least one accepted defect.*nothing changed visibly"
    ):
        wrap(folder(good), good, splits=["val"], generator=impossible)


def test_foreign_samples_are_refused_when_the_split_must_not_leak(good: Path):
    class Stored(RuleBasedGenerator):
        def __call__(self, images, *, seeds=None, masks=None):
            return super().__call__(1 - images, seeds=seeds, masks=masks)

    with pytest.raises(ValueError, match="another image than the held-out normal"):
        wrap(folder(good), good, splits=["val"], generator=Stored(["noise"]))


def test_progress_bar_appears_when_the_work_is_long(monkeypatch: pytest.MonkeyPatch):
    shown = []

    def track(rest, description, **kwargs):
        shown.append((list(rest), kwargs["completed"]))
        return iter(rest)

    monkeypatch.setattr(kept_split, "track", track)
    for second, expected in ((0.1, []), (1.0, [(["b", "c"], 1)])):
        clock = count(0, second)
        monkeypatch.setattr(kept_split.time, "monotonic", lambda clock=clock: next(clock))
        assert list(kept_split._show_progress(["a", "b", "c"], "Drawing")) == ["a", "b", "c"]
        assert shown == expected


def test_images_of_several_sizes_are_drawn_when_mixed(good: Path):
    write_images(good / "good", 6, first=50, side=80)
    datamodule = wrap(folder(good), good, splits=["val"], val_ratio=0.7)
    assert {entry.image.shape[-1] for entry in datamodule.val_data if entry.gt_label} == {64, 80}
    assert len(next(iter(datamodule.val_dataloader()))) == len(datamodule.val_data)


def test_images_are_drawn_apart_when_xmp_turns_one_of_them(tmp_path: Path):
    """Their files have one size, and stand upright in two."""
    image = PIL.Image.fromarray(np.zeros((32, 48, 3), np.uint8))
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    held_out = []
    for name, tags in (("a.tif", {}), ("b.tif", {700: xmp})):
        image.save(tmp_path / name, tiffinfo=tags)
        held_out.append(kept_split.HeldOut(path=str(tmp_path / name), content="", seed=0, anomalous=True))
    assert [len(batch) for batch in kept_split._batches(held_out)] == [1, 1]

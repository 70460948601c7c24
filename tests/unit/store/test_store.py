"""A store gives back what was put into it, or says what is wrong; never a wrong sample."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anomalib_synth.store import (
    Record,
    SampleStore,
    StoreError,
    decode_png,
    encode_png,
    hash_bytes,
    hash_pixels,
    sample_id,
)
from anomalib_synth.store.verify import put_in_order
from tests.unit.store.samples import CONFIG, make_record, make_store, reject

PARTS = {
    "source_hash": "a", "prepare_digest": "b", "config": CONFIG, "prompt": "c", "mask_hash": "d", "files_digest": "e",
    "weights_hash": "f", "algorithm": 1, "seed": 7,
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_id_changes_with_each_part(part) -> None:
    other = {**PARTS, part: {"config": {**CONFIG, "x": 1}, "algorithm": 2, "seed": 8}.get(part, "other")}
    assert sample_id(**PARTS) != sample_id(**other)
    assert len(sample_id(**PARTS)) == 32


def test_id_does_not_depend_on_the_order_of_the_config() -> None:
    turned = dict(reversed(CONFIG.items()))
    assert sample_id(**PARTS) == sample_id(**{**PARTS, "config": turned})


def test_pixels_of_another_shape_have_another_hash() -> None:
    pixels = np.arange(12, dtype=np.uint8)
    assert hash_pixels(pixels.reshape(3, 4)) != hash_pixels(pixels.reshape(4, 3))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_png_is_lossless(shape) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(decode_png(encode_png(image)), image)
    assert encode_png(image) == encode_png(image.copy())


def test_store_opens_with_what_was_written(tmp_path) -> None:
    made = make_store(tmp_path / "s", 4)
    with made.writing():
        made.append(reject(make_record(made, 4)))
    store = SampleStore.open(tmp_path / "s")
    assert store.settings == {"seed": 0}
    assert store.records == made.records
    record = store.records[1]
    image, mask, source = store.read_image(record), store.read_mask(record), store.read_source(record)
    assert np.array_equal(image[mask == 0], source[mask == 0])
    assert set(np.unique(mask)) == {0, 255}
    assert [store.is_accepted(each) for each in store.records] == [True] * 4 + [False]
    assert store.verify() == []
    with pytest.raises(StoreError, match=r"was rejected \(scratch: nothing changed visibly\), so it has no image"):
        store.read_image(store.records[4])


def test_manifest_opens_with_pandas(tmp_path) -> None:
    store = make_store(tmp_path / "s", 3)
    table = pd.read_json(tmp_path / "s" / "manifest.jsonl", lines=True)
    assert list(table["id"]) == [record.id for record in store.records]
    store.decide([store.records[0].id], accepted=False)
    frame = store.frame()
    assert list(frame["kept"]) == [False, True, True]
    assert list(frame["decision"]) == [False, None, None]


def test_the_last_decision_counts_and_none_takes_it_back(tmp_path) -> None:
    store = make_store(tmp_path / "s", 3)
    ids = [record.id for record in store.records]
    store.decide(ids, accepted=False)
    store.decide(ids[:1], accepted=True)
    store.decide(ids[1:2], accepted=None)
    again = SampleStore.open(tmp_path / "s")
    assert again.decisions == store.decisions == {ids[0]: True, ids[2]: False}
    with pytest.raises(StoreError, match="has no sample 'nobody'"):
        store.decide(["nobody"], accepted=True)


def test_a_rejected_draw_is_not_kept_when_a_person_accepts_it(tmp_path) -> None:
    store = SampleStore.create(tmp_path / "s", {})
    with store.writing():
        store.append(reject(make_record(store, 0)))
    store.decide([store.records[0].id], accepted=True)
    assert not store.is_accepted(store.records[0])


def test_a_reader_sees_what_a_writer_appends(tmp_path) -> None:
    writer, reader = make_store(tmp_path / "s", 1), SampleStore.open(tmp_path / "s")
    with writer.writing():
        writer.append(make_record(writer, 1))
    writer.decide([writer.records[0].id], accepted=False)
    reader.refresh()
    assert reader.records == writer.records
    assert reader.decisions == writer.decisions


def test_unfinished_last_row_is_ignored_and_cut_off_by_the_next_writer(tmp_path) -> None:
    make_store(tmp_path / "s", 3)
    manifest = tmp_path / "s" / "manifest.jsonl"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-20])
    store = SampleStore.open(tmp_path / "s")
    assert len(store.records) == 2
    assert "unfinished row" in store.verify()[0]
    with store.writing():
        store.append(make_record(store, 2))
    assert manifest.read_bytes() == whole


def test_broken_row_in_the_middle_is_an_error(tmp_path) -> None:
    make_store(tmp_path / "s", 3)
    manifest = tmp_path / "s" / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(lines[0] + lines[1][:50] + b"\n" + lines[2])
    with pytest.raises(StoreError, match=r"manifest.jsonl', line 2, is not JSON"):
        SampleStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_file": "../secret.png"},
            r"line 1, has `image_file` = '../secret.png', which must be 'images/ab/<32 hex",
        ),
        ({"mask_file": "/etc/passwd"}, r"line 1, has `mask_file` = '/etc/passwd', which must be 'masks/ab/<32 hex"),
        ({"source_file": "C:\\x.png"}, r"which must be 'sources/ab/<32 hex"),
        ({"quality": ...}, r"missing \['quality'\]"),
        ({"extra": 1}, r"unknown \['extra'\]"),
    ],
)
def test_bad_row_is_an_error(tmp_path, change, message) -> None:
    store = make_store(tmp_path / "s", 1)
    row = {key: value for key, value in {**store.records[0].to_dict(), **change}.items() if value is not ...}
    (tmp_path / "s" / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(StoreError, match=message):
        SampleStore.open(tmp_path / "s")


def test_sample_that_is_there_twice_is_an_error(tmp_path) -> None:
    store = make_store(tmp_path / "s", 1)
    with store.writing(), pytest.raises(StoreError, match="already"):
        store.append(store.records[0])
    manifest = tmp_path / "s" / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes() * 2)
    with pytest.raises(StoreError, match="twice"):
        SampleStore.open(tmp_path / "s")


def test_damaged_files_are_found_and_never_served(tmp_path) -> None:
    store = make_store(tmp_path / "s", 5)
    edited, missing, linked = store.records[1], store.records[2], store.records[3]
    (store.path / edited.image_file).write_bytes(encode_png(np.zeros((16, 16, 3), dtype=np.uint8)))
    (store.path / missing.mask_file).unlink()
    outside = tmp_path / "outside.png"
    outside.write_bytes((store.path / linked.image_file).read_bytes())
    (store.path / linked.image_file).unlink()
    (store.path / linked.image_file).symlink_to(outside)
    with pytest.raises(StoreError, match="was edited"):
        store.read_image(edited)
    with pytest.raises(StoreError, match="cannot be read"):
        store.read_mask(missing)
    with pytest.raises(StoreError, match="leads out of the store"):
        store.read_image(linked)
    assert len(store.verify()) == 3


def test_repair_keeps_every_sound_row_and_the_store_can_be_completed(tmp_path) -> None:
    store = make_store(tmp_path / "s", 5)
    whole = (store.path / "manifest.jsonl").read_bytes()
    (store.path / store.records[2].image_file).unlink()
    done = store.repair()
    assert "cannot be read" in done[0]
    assert "keeps 4 rows" in done[-1]
    assert [record.index for record in store.records] == [0, 1, 3, 4]
    assert store.verify() == []
    with store.writing():
        store.append(make_record(store, 2))
        assert [record.index for record in store.records] == [0, 1, 2, 3, 4]
        put_in_order(store)
    assert (store.path / "manifest.jsonl").read_bytes() == whole
    assert store.verify() == []
    assert store.repair() == []


def test_only_a_store_opens_and_only_an_empty_folder_becomes_one(tmp_path) -> None:
    with pytest.raises(StoreError, match=r"is no store: it has no store.json"):
        SampleStore.open(tmp_path / "none")
    make_store(tmp_path / "s", 1)
    with pytest.raises(StoreError, match="is a store already"):
        SampleStore.create(tmp_path / "s", {})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(StoreError, match="holds other files"):
        SampleStore.create(tmp_path / "full", {})


def test_newer_format_and_damaged_head_say_so(tmp_path) -> None:
    make_store(tmp_path / "s", 1)
    head = tmp_path / "s" / "store.json"
    head.write_text(json.dumps({**json.loads(head.read_text()), "format": 2}))
    with pytest.raises(StoreError, match=r"has format 2, this version of anomalib-synth reads format 1. Upgrade"):
        SampleStore.open(tmp_path / "s")
    head.write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        SampleStore.open(tmp_path / "s")


def test_quarantine_keeps_one_reason_an_input(tmp_path) -> None:
    store = make_store(tmp_path / "s", 1)
    for _ in range(2):
        store.quarantine("bad.png", "empty file")
    assert SampleStore.open(tmp_path / "s").quarantined == {"bad.png": "empty file"}
    assert len((tmp_path / "s" / "quarantine.jsonl").read_text().splitlines()) == 1


def test_full_disk_is_an_error_and_leaves_no_half_file(tmp_path, monkeypatch) -> None:
    store = make_store(tmp_path / "s", 2)
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    real = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) > 100:
            return real(descriptor, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    record = make_record(SampleStore.create(tmp_path / "other", {}), 2)
    with store.writing(), monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: half(descriptor, data[: 150 if len(data) > 150 else 90]))
        with pytest.raises(StoreError, match=r"The disk is full: .*manifest.jsonl"):
            store.append(record)

    def refuse(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(StoreError, match=r"The disk is full: .*images"):
            store.put("images", "ab" * 16, b"data")
    after = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    assert {path: data for path, data in after.items() if path.name != ".lock"} == {
        path: data for path, data in before.items() if path.name != ".lock"
    }
    assert len(SampleStore.open(store.path).records) == 2


def test_put_is_idempotent_and_replaces_a_damaged_file(tmp_path) -> None:
    store = make_store(tmp_path / "s", 1)
    place, digest = store.put("images", "ab" * 16, b"data")
    assert (place, digest) == (f"images/ab/{'ab' * 16}.png", hash_bytes(b"data"))
    stamp = (store.path / place).stat().st_mtime_ns
    assert store.put("images", "ab" * 16, b"data") == (place, digest)
    assert (store.path / place).stat().st_mtime_ns == stamp
    (store.path / place).write_bytes(b"dat")
    store.put("images", "ab" * 16, b"data")
    assert (store.path / place).read_bytes() == b"data"


def hold(path: Path, ready: multiprocessing.synchronize.Event) -> None:
    """Write to a store until killed, leaving half a row."""
    store = SampleStore.open(path)
    with store.writing():
        with (path / "manifest.jsonl").open("ab") as file:
            file.write(b'{"id": "half')
        ready.set()
        time.sleep(60)


def test_second_writer_is_refused_until_the_first_is_gone(tmp_path) -> None:
    store = make_store(tmp_path / "s", 2)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(store.path, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(StoreError, match=r"Another run is writing to"), store.writing(wait=0.1):
        pass
    store.decide([store.records[0].id], accepted=False)  # reviewing goes on meanwhile
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with store.writing():
        store.append(make_record(store, 2))
    assert len(SampleStore.open(store.path).records) == 3


def test_twenty_thousand_samples_open_quickly(tmp_path) -> None:
    store = make_store(tmp_path / "s", 1)
    row = store.records[0].to_dict()
    with (store.path / "manifest.jsonl").open("wb") as file:
        for index in range(20_000):
            file.write(Record(**{**row, "index": index, "id": f"{index:032x}"}).to_line())
    start = time.perf_counter()
    assert len(SampleStore.open(store.path).records) == 20_000
    assert time.perf_counter() - start < 10  # about half a second on an idle machine


def test_source_of_earlier_rows_stays_when_it_is_encoded_to_other_bytes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", count=1)
    row = store.records[0]
    path = store.path / row.source_file
    pixels = decode_png(path.read_bytes())
    other = io.BytesIO()  # as another version of Pillow would write the same pixels
    Image.fromarray(pixels).save(other, "PNG", compress_level=9)

    place, digest = SampleStore(store.path).put("sources", row.source_hash, other.getvalue())

    assert other.getvalue() != path.read_bytes()
    assert (place, digest) == (row.source_file, row.source_file_hash)
    assert np.array_equal(SampleStore.open(store.path).read_source(row), pixels)


def test_damaged_source_is_written_again_when_it_is_put(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", count=1)
    row = store.records[0]
    path = store.path / row.source_file
    sound = path.read_bytes()
    path.write_bytes(sound[:-9])

    assert store.put("sources", row.source_hash, sound) == (row.source_file, row.source_file_hash)
    assert path.read_bytes() == sound

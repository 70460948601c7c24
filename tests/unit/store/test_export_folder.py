"""An export is there whole or not at all; one that was stopped goes on; nothing of anyone else is touched."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anomalib_synth.store import SampleStore, StoreError, export_coco, export_folder, export_mvtec, export_yolo
from tests.unit.store.samples import make_record, make_store

EXPORTS = [export_mvtec, export_coco, export_yolo]


def read_all(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stop_at(monkeypatch, number: int, error: BaseException) -> None:
    """Let the writing of a file fail, half of it on disk, after so many that went well."""
    written = iter(range(10_000))
    original = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if next(written) == number:
            original(path, data[: len(data) // 2])
            raise error
        return original(path, data)

    monkeypatch.setattr(Path, "write_bytes", write)


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_goes_on_when_it_was_stopped_at_any_file(export, tmp_path, monkeypatch) -> None:
    store = make_store(tmp_path / "s", 4)
    export(store, tmp_path / "whole")
    expected = read_all(tmp_path / "whole")
    for number in range(len(expected) + 1):
        out = tmp_path / f"out{number}"
        with monkeypatch.context() as patch:
            stop_at(patch, number, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                export(store, out)
        assert not out.exists()
        export(store, out)
        assert read_all(out) == expected
        assert not out.with_name(f"{out.name}.partial").exists()


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_goes_on_when_the_disk_was_full(export, tmp_path, monkeypatch) -> None:
    store = make_store(tmp_path / "s", 4)
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        stop_at(patch, 5, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(StoreError, match=r"disk is full: .* run the same command again, it goes on"):
            export(store, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out.partial").rglob("*.png")}
    assert kept
    export(store, tmp_path / "out")
    for path, written in kept.items():
        assert (tmp_path / "out" / path.relative_to(tmp_path / "out.partial")).stat().st_mtime_ns == written


def test_an_export_goes_on_when_the_disk_was_full_for_a_folder(tmp_path, monkeypatch) -> None:
    store = make_store(tmp_path / "s", 2)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(StoreError, match="The disk is full"):
            export_coco(store, tmp_path / "out")
    export_coco(store, tmp_path / "out")


def test_an_export_goes_on_when_its_process_was_killed(tmp_path) -> None:
    store = make_store(tmp_path / "s", 6)
    code = (
        "import os, signal, sys\n"
        "from anomalib_synth.store import SampleStore, export_folder, export_yolo\n"
        "write, left = export_folder.write_whole, [9]\n"
        "def last(path, data):\n"
        "    write(path, data)\n"
        "    left[0] -= 1\n"
        "    left[0] or os.kill(os.getpid(), signal.SIGKILL)\n"
        "export_folder.write_whole = last\n"
        "export_yolo(SampleStore.open(sys.argv[1]), sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(store.path), str(tmp_path / "out")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    export_yolo(store, tmp_path / "out")
    export_yolo(store, tmp_path / "whole")
    assert read_all(tmp_path / "out") == read_all(tmp_path / "whole")


@pytest.mark.parametrize("export", EXPORTS)
def test_an_export_is_recognised_when_it_is_finished(export, tmp_path) -> None:
    store = make_store(tmp_path / "s", 4)
    first = export(store, tmp_path / "out")
    (tmp_path / "out" / "train.cache").write_bytes(b"what a reader leaves beside it")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = export(store, tmp_path / "out")
    assert (first.finished_before, again.finished_before) == (False, True)
    assert again.describe() == first.describe()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_finished_export_is_refused_when_anything_differs(tmp_path) -> None:
    store, out = make_store(tmp_path / "s", 4), tmp_path / "out"
    export_coco(store, out)
    before = read_all(out)
    for export, options in ((export_coco, {"min_area": 9}), (export_yolo, {}), (export_mvtec, {})):
        with pytest.raises(StoreError, match=r"holds another export.* Choose another, or remove that one"):
            export(store, out, **options)
    store.decide([store.records[0].id], accepted=False)
    with pytest.raises(StoreError, match="or one made before the store changed"):
        export_coco(store, out)
    assert read_all(out) == before
    store.decide([store.records[0].id], accepted=None)
    (out / "annotations.json").write_text("{}")
    with pytest.raises(StoreError, match=r"'annotations.json' was changed or removed since"):
        export_coco(store, out)
    marker = json.loads((out / "export.json").read_bytes())
    (out / "export.json").write_text(json.dumps({**marker, "files": {}, "summary": 3}))
    with pytest.raises(StoreError, match="holds other files"):
        export_coco(store, out)


def stop(export, store: SampleStore, out: Path, monkeypatch, **options: object) -> Path:
    """Stop an export after five files; return its work folder."""
    with monkeypatch.context() as patch:
        stop_at(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            export(store, out, **options)
    return out.with_name(f"{out.name}.partial")


@pytest.mark.parametrize("export", EXPORTS)
def test_a_stopped_export_goes_on_when_the_store_changed(export, tmp_path, monkeypatch) -> None:
    store = make_store(tmp_path / "s", 4)
    stop(export, store, tmp_path / "out", monkeypatch)
    store.decide([record.id for record in store.records if record.family == "scratch"], accepted=False)
    with store.writing():
        store.append(make_record(store, 4, family="another"))
    export(store, tmp_path / "out")
    export(store, tmp_path / "whole")
    assert read_all(tmp_path / "out") == read_all(tmp_path / "whole")
    assert all(any(path.iterdir()) for path in (tmp_path / "out").rglob("*") if path.is_dir())


def test_a_stopped_export_is_left_alone_when_another_command_comes(tmp_path, monkeypatch) -> None:
    store = make_store(tmp_path / "s", 4)
    work = stop(export_coco, store, tmp_path / "out", monkeypatch)
    before = read_all(work)
    for export, options in ((export_coco, {"segmentation": "run_lengths"}), (export_mvtec, {})):
        with pytest.raises(StoreError, match=r"of another command \(coco --segmentation polygons"):
            export(store, tmp_path / "out", **options)
    other = SampleStore.create(tmp_path / "other", {"seed": 1})
    with other.writing():
        other.append(make_record(other, 0))
    with pytest.raises(StoreError, match="unfinished export of another command"):
        export_coco(other, tmp_path / "out")
    assert read_all(work) == before


@pytest.mark.parametrize("made", ["alone", "beside"])
def test_files_of_others_are_kept_when_they_are_in_the_way(made, tmp_path, monkeypatch) -> None:
    store, work = make_store(tmp_path / "s", 4), tmp_path / "out.partial"
    if made == "beside":
        stop(export_coco, store, tmp_path / "out", monkeypatch)
    (work / "images").mkdir(parents=True, exist_ok=True)
    (work / "images" / "mine.png").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"mine.png' is not of the export that was to go on"):
        export_coco(store, tmp_path / "out")
    assert (work / "images" / "mine.png").read_bytes() == b"mine"
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_through_a_link_when_one_is_in_the_work_folder(tmp_path, monkeypatch) -> None:
    store = make_store(tmp_path / "s", 4)
    work = stop(export_coco, store, tmp_path / "out", monkeypatch)
    (tmp_path / "outside").mkdir()
    (work / "images").rename(tmp_path / "aside")
    (work / "images").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="is not of the export"):
        export_coco(store, tmp_path / "out")
    assert not any((tmp_path / "outside").iterdir())
    (work / "images").unlink()
    (tmp_path / "aside").rename(work / "images")
    first = min((work / "images").iterdir())
    first.rename(tmp_path / "outside" / "first.png")
    first.symlink_to(tmp_path / "outside" / "first.png")
    with pytest.raises(StoreError, match="is not of the export"):
        export_coco(store, tmp_path / "out")


def test_out_is_refused_when_it_cannot_be_put_in_place(tmp_path, monkeypatch) -> None:
    store = make_store(tmp_path / "s", 2)
    (tmp_path / "file").touch()
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "disk")
    for out, message in (
        (store.path / "new", "which is in the store. Choose one outside"),
        (tmp_path / "file", "which is a file"),
        (tmp_path / "disk", "which is a mount point .* Name a folder in it"),
        (tmp_path / "file" / "deeper", "cannot be written"),
    ):
        with pytest.raises(StoreError, match=message):
            export_coco(store, out)
    export_coco(store, tmp_path / "disk" / "out")


def test_two_exports_at_once_are_refused_when_they_write_to_one_folder(tmp_path) -> None:
    store, work = make_store(tmp_path / "s", 2), tmp_path / "out.partial"
    work.mkdir()
    with (
        export_folder.exclusive(work / ".lock", wait=0.0),
        pytest.raises(StoreError, match="Another run is writing to"),
    ):
        export_coco(store, tmp_path / "out")
    export_coco(store, tmp_path / "out")


@pytest.mark.parametrize("export", EXPORTS)
def test_the_count_is_of_files_on_disk_when_some_went_missing(export, tmp_path, monkeypatch) -> None:
    store, write = make_store(tmp_path / "s", 3), export_folder.write_whole
    lost = store.records[1].source_hash if export is export_mvtec else store.records[1].id

    def write_most(path: Path, data: bytes) -> None:
        if path.name != f"{lost}.png":
            write(path, data)

    monkeypatch.setattr(export_folder, "write_whole", write_most)
    with pytest.raises(StoreError, match=r"1 of the \d+ files of the export are not on disk"):
        export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("bad", ["../../evil", "..\\evil", "C:evil"])
def test_nothing_is_written_outside_when_ids_are_paths(export, bad, tmp_path) -> None:
    store = make_store(tmp_path / "s", 2)
    for name in ("id", "source_hash"):
        object.__setattr__(store.records[0], name, bad)
    with pytest.raises(StoreError, match="cannot name files"):
        export(store, tmp_path / "a" / "b" / "out")
    assert not list(tmp_path.rglob("*evil*"))

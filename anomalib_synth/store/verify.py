"""Checks whether a store holds what its manifest says, and repairs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

from anomalib_synth.progress import track
from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.files import end_last_line, is_row, side_file, write_whole
from anomalib_synth.store.identity import png_size
from anomalib_synth.store.locking import exclusive
from anomalib_synth.store.log_repair import LogRepair, repair_filter_results, repair_log
from anomalib_synth.store.logs import read_log
from anomalib_synth.store.record import RECORD, name_of
from anomalib_synth.store.schemas import DECISION, INPUT, QUARANTINED

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from anomalib_synth.store.record import Record

_QUIET = 1000
_LOGS = {"normals.jsonl": INPUT, "decisions.jsonl": DECISION, "quarantine.jsonl": QUARANTINED}
_WAIT = 10.0


class OpenStore(Protocol):
    """The part of :class:`~anomalib_synth.store.SampleStore` that is used here; its own file imports this one."""

    path: Path

    @property
    def records(self) -> list[Record]: ...  # noqa: D102

    @property
    def problems(self) -> list[str]: ...  # noqa: D102

    @property
    def is_ordered(self) -> bool: ...  # noqa: D102

    def reload(self, *, strict: bool = True) -> None: ...  # noqa: D102

    def check_file(self, record: Record, place: str, digest: str) -> bytes: ...  # noqa: D102


def find_problems(store: OpenStore) -> dict[str, str]:
    """Return what is wrong with the files of each damaged sample, by id."""
    problems = {}
    is_quick = len(store.records) < _QUIET
    for record in store.records if is_quick else track(store.records, "Checking"):
        if found := _find_problem(store, record):
            problems[record.id] = found
    return problems


def verify(store: OpenStore) -> list[str]:
    """Return every problem of a store as a sentence; none when it is sound."""
    store.reload(strict=False)
    problems = list(store.problems)
    for name in ("normals.jsonl", "quarantine.jsonl"):
        problems += [str(problem) for problem in read_log(store.path / name, _LOGS[name]).problems]
    problems += find_problems(store).values()
    for name in ("manifest.jsonl", *_LOGS):
        if rest := _count_unfinished(store.path / name):
            problems.append(f"{name} ends in {rest} bytes of an unfinished row, as a killed writer leaves it.")
    return problems


def repair(store: OpenStore) -> list[str]:
    """Put what is damaged aside, line by line, and keep the rest; return what was done, as sentences.

    Lines that are no row, second rows of a sample, and rows whose files are missing or edited go to
    ``manifest.removed.jsonl`` (likewise for the other logs). Where lines were glued together, their sound rows are
    kept. The same ``generate`` then draws the missing samples again; decisions about them stay.

    Raises:
        StoreError: If another process is writing, or the store's head is damaged.
    """
    done = []
    with exclusive(store.path / ".lock", wait=0.0), exclusive(store.path / ".decisions.lock", wait=_WAIT):
        for name, schema in {"manifest.jsonl": RECORD, **_LOGS}.items():
            if rest := end_last_line(store.path / name):
                done.append(f"Cut {rest} bytes of an unfinished row off {name}: {_went(store.path / name)}")
            done += _report(store.path / name, repair_log(store.path / name, schema))
        done += repair_filter_results(store.path / "filter.json")
        store.reload(strict=False)
        if problems := find_problems(store):
            done += [f"{problem} Removed." for problem in problems.values()]
            done += set_aside(store, problems)
    return done


def set_aside(store: OpenStore, samples: Iterable[str]) -> list[str]:
    """Take the rows of samples out of the manifest, so that they are drawn again; the caller holds the store's lock."""
    unwanted = set(samples)
    return _report(store.path / "manifest.jsonl", repair_log(store.path / "manifest.jsonl", RECORD, unwanted=unwanted))


def put_in_order(store: OpenStore) -> None:
    """Sort the manifest's lines by index if they are not sorted; the caller holds the store's lock."""
    if not store.is_ordered:
        path = store.path / "manifest.jsonl"
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
        write_whole(path, b"".join(line + b"\n" for line in sorted(lines, key=_index)))
        store.reload()


def _index(line: bytes) -> int:
    return json.loads(line)["index"]


def _count_unfinished(path: Path) -> int:
    """Return the bytes of an unfinished row at the end of a log."""
    if not path.is_file():
        return 0
    tail = path.read_bytes().rpartition(b"\n")[2]
    return 0 if is_row(tail) else len(tail)


def _find_problem(store: OpenStore, record: Record) -> str:
    """Return what is wrong with a sample's files, "" when nothing is."""
    files = [
        (record.source_file, record.source_file_hash),
        (record.image_file, record.image_hash),
        (record.mask_file, record.mask_hash),
    ]
    sizes = set()
    if name_of(record.source_file) != record.source_hash or name_of(record.image_file) not in {"", record.id}:
        return f"Sample {record.id} names the files of another."
    try:
        for place, digest in files[: 3 if record.image_file else 1]:
            size = png_size(store.check_file(record, place, digest))
            sizes.add(size)
            if not all(size):
                return f"{str(store.path / place)!r} of sample {record.id} is no PNG."
    except StoreError as error:
        return str(error)
    return f"The files of sample {record.id} have several sizes: {sorted(sizes)}." if len(sizes) > 1 else ""


def _report(path: Path, repair: LogRepair) -> list[str]:
    if not repair.said:
        return []
    aside = f" {_went(path)}" if repair.removed else ""
    return [*repair.said, f"{path.name} keeps {repair.kept} rows.{aside}"]


def _went(path: Path) -> str:
    return f"What was taken out went to {side_file(path).name}."

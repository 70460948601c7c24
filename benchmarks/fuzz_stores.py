"""Can an edited store make the package crash, write elsewhere, or lose a good row?

    python benchmarks/fuzz_stores.py --edits 40000

Hypothesis edits the files of a small store: lines are cut, doubled, glued, swapped, bytes are inserted and removed,
fields get values of other types, paths that lead out, numbers that are none. Each edited store is opened; a sound one
is served, counted and exported, a refused one repaired and opened again. Prints how many edits were refused, how many
were read as valid, how many ended in anything but a StoreError, how many wrote files outside, how many rows that were
not touched are lost (neither in the repaired store nor beside it) or only set aside, and how many stores could not be
mended.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from anomalib_synth.generators import StoredGenerator
from anomalib_synth.report.review_session import ReviewSession
from anomalib_synth.store import (
    Record,
    SampleStore,
    StoreError,
    encode_png,
    export_mvtec,
    hash_bytes,
    hash_pixels,
    measure_costs,
    sample_id,
)

LOGS = ("manifest.jsonl", "decisions.jsonl", "quarantine.jsonl", "normals.jsonl")
FILES = (*LOGS, "filter.json", "store.json")
CONFIG = {"class_path": "anomalib_synth.generators.RuleBasedGenerator", "init_args": {"families": ["scratch"]}}
ODD = [
    "../../outside", "/tmp/outside", "..\\outside", "images/../../x.png", "", "false", "true", "0", "\ud800", "\0",
    "é" * 99, None, True, False, 0, -1, 1, 5, 0.5, 1e308, 10**40, float("nan"), float("inf"), [], {},
    ["x"], {"id": "x"}, "a" * 32,
]  # fmt: skip
_json = st.recursive(
    st.sampled_from(ODD) | st.text(max_size=8) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_place = st.floats(0, 1)
_kinds = {
    "value": st.tuples(_place, _place, _json),
    "key": st.tuples(_place, _place, st.sampled_from(["delete", "rename", "add"])),
    "row": st.tuples(_place, _json),
    "line": st.tuples(_place, st.sampled_from(["delete", "double", "blank", "glue", "cut", "swap", "torn"]), _place),
    "bytes": st.tuples(_place, st.integers(0, 40), st.binary(max_size=20)),
    "file": st.binary(max_size=60) | st.sampled_from([b"", b"{}", b"[]", b"null\n", b"[" * 3000, b'{"a":' * 3000]),
}
EDITS = st.tuples(st.sampled_from(FILES), st.one_of(*(st.tuples(st.just(k), v) for k, v in _kinds.items())))


@dataclass
class Counts:
    """What came of the edits."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Write them in a line."""
        names = ("edits", "unchanged", "refused", "valid", "tracebacks", "outside", "lost", "unmended", "aside")
        return ", ".join(f"{name} {self.outcomes[name]}" for name in names)


def make_store(path: Path, count: int = 6) -> SampleStore:
    """Make a store of small samples with decisions, a filter's verdicts, a quarantine and inputs."""
    store = SampleStore.create(path, {"generator": CONFIG, "seed": 0, "image_size": None, "split": "train"})
    rng = np.random.default_rng(0)
    with store.writing():
        for index in range(count):
            store.append(make_record(store, index, rng.integers(0, 200, (16, 16, 3), dtype=np.uint8)))
        store.quarantine("bad.png", "the file is empty")
        store.quarantine("worse.png", "not an image of a known format")
    ids = [record.id for record in store.records]
    store.decide(ids[:2], accepted=False)
    store.decide(ids[1:3], accepted=True)
    store.write_filter_results(
        {ids[3]: {"reason": "too odd", "similarity": 0.4}, ids[4]: {"reason": "", "similarity": 0.9}}, {}
    )
    inputs = [{"name": f"{n}.png", "content": hash_bytes(b"%d" % n), "reason": ""} for n in range(3)]
    (path / "normals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in inputs))
    return store


def make_record(store: SampleStore, index: int, source: np.ndarray) -> Record:
    """Put the files of a sample and return its row."""
    mask = np.zeros(source.shape[:2], dtype=np.uint8)
    mask[4:8, 2 + index : 6 + index] = 255
    image = np.where(mask[..., None] > 0, np.uint8(255), source)
    digest = hash_pixels(source)
    identity = sample_id(
        source_hash=digest, prepare_digest="", config=CONFIG, prompt="", mask_hash="", files_digest="", weights_hash="",
        seed=index,
    )  # fmt: skip
    data = {"images": encode_png(image), "masks": encode_png(mask), "sources": encode_png(source)}
    names = {"images": identity, "masks": identity, "sources": digest}
    place = {kind: store.put(kind, names[kind], data[kind])[0] for kind in data}
    return Record(
        id=identity, index=index, split="train", source=f"{index % 3}.png", source_hash=digest,
        image_file=place["images"], mask_file=place["masks"], source_file=place["sources"],
        image_hash=hash_bytes(data["images"]), mask_hash=hash_bytes(data["masks"]),
        source_file_hash=hash_bytes(data["sources"]), generator=CONFIG, prepare_digest="", files_digest="",
        weights_hash="", seed=index, attempt=0, prompt="", caption="a bright square", family="scratch",
        params={"strength": 0.5}, strength=0.5, area=0.06, visibility=3.0, agreement=1.0, foreground=1.0, quality=0.5,
        accepted=True, reason="", seconds=0.01, version="0.1.0",
    )  # fmt: skip


def edit(data: bytes, kind: str, how: Any) -> bytes:
    """Return the edited contents of a file."""
    if kind == "file":
        return how
    if kind == "bytes":
        place, length, new = how
        start = int(place * len(data))
        return data[:start] + new + data[start + length :]
    is_log = kind == "line" or data.count(b"\n{") > 0 or data.count(b"\n") == 1
    lines = data.splitlines(keepends=kind == "line") if is_log else [data]
    at = min(int(how[0] * len(lines)), len(lines) - 1)
    if kind == "line":
        lines[at : at + 1] = _edit_line(lines[at], how[1], how[2])
        if how[1] == "swap":
            lines.insert(0, lines.pop(at))
        return b"".join(lines)
    if kind == "row":
        lines[at] = json.dumps(how[1]).encode()
    else:
        row = json.loads(lines[at])
        _edit_value(row, how) if kind == "value" else _edit_key(row, how)
        lines[at] = json.dumps(row).encode()
    return b"\n".join(lines) + b"\n"


def _edit_line(line: bytes, how: str, place: float) -> list[bytes]:
    cut = line[: int(place * len(line))]
    return {
        "delete": [],
        "double": [line, line],
        "blank": [line, b"\n"],
        "glue": [line.rstrip(b"\n")],
        "cut": [cut + b"\n"],
        "torn": [cut],
        "swap": [line],
    }[how]


def _holders(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in a value that can be set: its holder, and the key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [each for key in keys for each in _holders(value[key])]


def _edit_value(row: Any, how: Any) -> None:
    if holders := _holders(row):
        holder, key = holders[min(int(how[1] * len(holders)), len(holders) - 1)]
        holder[key] = how[2]


def _edit_key(row: Any, how: Any) -> None:
    holders = [(holder, key) for holder, key in _holders(row) if isinstance(holder, dict)]
    if holders:
        holder, key = holders[min(int(how[1] * len(holders)), len(holders) - 1)]
        value = holder[key] if how[2] == "add" else holder.pop(key)
        if how[2] != "delete":
            holder[f"{key}_"] = value


def use(path: Path, out: Path, *, export: bool) -> None:
    """Do with a store what people do."""
    store = SampleStore.open(path)
    if export:
        store.frame()
    kept = [store.is_accepted(record) for record in store.records]
    measure_costs(store.records, kept)
    _ = store.quarantined
    session = ReviewSession(store)
    page = session.page("sort=quality&find=a")
    for sample in page["samples"][:2]:
        json.dumps(session.detail(sample["id"]), allow_nan=False)
    if any(kept):
        _ = StoredGenerator(path).files_digest
        if export:
            export_mvtec(store, out)
            shutil.rmtree(out)


class Fuzzer:
    """A store that is edited again and again.

    Args:
        work: Folder to work in.
    """

    def __init__(self, work: Path) -> None:
        self.path = work / "deep" / "store"
        make_store(self.path)
        self.work = work
        self.base = {name: (self.path / name).read_bytes() for name in FILES}
        self.tree = self._list()
        self.counts = Counts()

    def try_edit(self, name: str, kind: str, how: Any) -> None:
        """Edit a file, see what comes of it, and put everything back."""
        edited = edit(self.base[name], kind, how)
        count = self.counts.outcomes
        count["edits"] += 1
        if edited == self.base[name]:
            count["unchanged"] += 1
            return
        (self.path / name).write_bytes(edited)
        try:
            self._judge(name, edited, f"{kind} {how!r}")
        except Exception:
            count["tracebacks"] += 1
            self.counts.faults.append(f"{name} {kind} {how!r}\n{traceback.format_exc()}")
        if self._list() - self.tree - {Path(f"{name[: name.rindex('.')]}.removed{name[name.rindex('.') :]}")}:
            count["outside"] += 1
            self.counts.faults.append(f"{name} {kind} {how!r}: files {self._list() - self.tree}")
        self._restore()

    def _judge(self, name: str, edited: bytes, what: str) -> None:
        try:
            use(self.path, self.work / "out", export=self.counts.outcomes["valid"] % 8 == 0)
            self.counts.outcomes["valid"] += 1
            store = SampleStore.open(self.path)
            if store.verify() and (store.repair(), left := store.verify())[1]:
                self.counts.outcomes["unmended"] += 1
                self.counts.faults.append(f"{name} {what}: {left}")
        except StoreError as error:
            self.counts.outcomes["refused"] += 1
            if "check --store" not in str(error):
                return  # the head, for which a copy is needed; or nothing is kept
            SampleStore.open(self.path, strict=False).repair()
            try:
                use(self.path, self.work / "out", export=False)
            except StoreError as again:
                if "keeps 0 samples" not in str(again) and "but none of split" not in str(again):
                    self.counts.outcomes["unmended"] += 1
                    self.counts.faults.append(f"{name} {what}: {again}")
        if name in LOGS:
            self._compare(name, edited)

    def _compare(self, name: str, edited: bytes) -> None:
        """Count the untouched rows that are not read any more."""
        now = (self.path / name).read_bytes() if (self.path / name).exists() else b""
        beside = self.path / name.replace(".jsonl", ".removed.jsonl")
        aside = beside.read_bytes() if beside.exists() else b""
        for line in self.base[name].splitlines():
            if line in edited and line not in now:
                self.counts.outcomes["aside" if line in aside else "lost"] += 1
                if line not in aside:
                    self.counts.faults.append(f"{name}: lost {line[:60]!r}")

    def _list(self) -> set[Path]:
        skip = {self.path / name for name in (".lock", ".decisions.lock")}
        found = {path for path in self.work.rglob("*") if path not in skip and path.is_file()}
        return {path.relative_to(self.path) if path.is_relative_to(self.path) else path for path in found}

    def _restore(self) -> None:
        for path in self.path.glob("*.removed*"):
            path.unlink()
        for name, data in self.base.items():
            (self.path / name).write_bytes(data)


def fuzz(work: Path, edits: int, *, seed_of_run: int = 0) -> Counts:
    """Try a number of edits, others for another seed; return what came of them."""
    fuzzer = Fuzzer(work)

    @seed(seed_of_run)
    @settings(
        max_examples=edits, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(EDITS)
    def run(each: tuple[str, tuple[str, Any]]) -> None:
        fuzzer.try_edit(each[0], *each[1])

    run()
    return fuzzer.counts


def main() -> None:
    """Fuzz and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="another one tries other edits")
    parser.add_argument("--folder", type=Path, default=None, help="where to work, as on a disk in memory")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        counts = fuzz(Path(name), options.edits, seed_of_run=options.seed)
    for fault in counts.faults[:20]:
        print(fault)
    print(f"{counts} ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()

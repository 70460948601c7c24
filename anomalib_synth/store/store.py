"""A directory of kept samples."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.files import append_lines, read_lines, write_whole
from anomalib_synth.store.identity import ALGORITHM, decode_png, hash_bytes
from anomalib_synth.store.locking import exclusive
from anomalib_synth.store.record import Record
from anomalib_synth.store.verify import repair, verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pandas as pd

FORMAT = 1
Kind = Literal["images", "masks", "sources"]
_DECISION_WAIT = 10.0


class SampleStore:
    """Kept samples: lossless PNG files, a manifest, and the decisions of people who looked at them.

    The manifest is JSON Lines: it grows by appending, a killed writer can spoil no more than its last line, and
    pandas, DuckDB and jq open it. Decisions are in a log of their own, so that one can review while samples are still
    being made. Make one with :meth:`create`, open one with :meth:`open`; a bare ``SampleStore(path)`` reads nothing and
    can only :meth:`put`.

    Layout::

        store.json  manifest.jsonl  decisions.jsonl  quarantine.jsonl  filter.json
        images/ab/<id>.png  masks/ab/<id>.png  sources/ab/<source hash>.png

    Attributes:
        path: The directory.
        settings: What the run that made it was asked for.
        records: The samples, in the order of their index.
        decisions: What people decided, by id: True to keep, False to leave out.
        verdicts: What a filter said of samples, by id: ``reason`` ("" to keep) and its scores.
    """

    def __init__(self, path: Path | str, settings: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.settings = settings or {}
        self._forget()

    @classmethod
    def create(cls, path: Path | str, settings: dict[str, Any]) -> SampleStore:
        """Make a new store in a folder that is empty or not there.

        Raises:
            StoreError: If the folder holds anything.
        """
        path = Path(path)
        if (path / "store.json").is_file():
            msg = f"{str(path)!r} is a store already. Open it, or choose another folder."
            raise StoreError(msg)
        if path.exists() and (not path.is_dir() or any(each.name != ".lock" for each in path.iterdir())):
            msg = f"{str(path)!r} must be a new or empty folder for a store, but it holds other files. Choose another."
            raise StoreError(msg)
        path.mkdir(parents=True, exist_ok=True)
        head = {"format": FORMAT, "algorithm": ALGORITHM, "settings": settings}
        write_whole(path / "store.json", json.dumps(head, indent=1).encode() + b"\n")
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str) -> SampleStore:
        """Open a store and read its manifest.

        Raises:
            StoreError: If there is none, it is of a newer format, or its manifest is damaged.
        """
        path = Path(path)
        file = path / "store.json"
        try:
            head = json.loads(file.read_bytes())
            version, settings = head["format"], head["settings"]
        except FileNotFoundError as error:
            msg = f"{str(path)!r} is no store: it has no store.json. Make one with `anomalib-synth generate --out`."
            raise StoreError(msg) from error
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{str(file)!r} is damaged ({error!r}). Restore it from a copy."
            raise StoreError(msg) from error
        if version != FORMAT:
            msg = (
                f"{str(path)!r} has format {version}, this version of anomalib-synth reads format {FORMAT}. "
                "Upgrade the package."
            )
            raise StoreError(msg)
        store = cls(path, settings)
        store.refresh()
        return store

    def refresh(self) -> None:
        """Read what was appended to the manifest and the decisions since the last look."""
        if self._size("manifest.jsonl") < self._read["manifest.jsonl"]:
            self._forget()  # repaired meanwhile
        for row in self._new_rows("manifest.jsonl"):
            record = Record.from_dict(row, where=f"Row {len(self.records)} of {str(self.path)!r}")
            if record.id in self._by_id:
                msg = f"The manifest of {str(self.path)!r} has sample {record.id} twice. Restore it from a copy."
                raise StoreError(msg)
            self._by_id[record.id] = record
            self.records.append(record)
        for row in self._new_rows("decisions.jsonl"):
            if row["accepted"] is None:
                self.decisions.pop(row["id"], None)
            else:
                self.decisions[row["id"]] = row["accepted"]
        self._read_verdicts()

    def get(self, sample: str) -> Record:
        """Return the record with an id.

        Raises:
            StoreError: If there is none.
        """
        if sample not in self._by_id:
            msg = f"Store {str(self.path)!r} has no sample {sample!r}."
            raise StoreError(msg)
        return self._by_id[sample]

    @contextmanager
    def writing(self, *, wait: float = 0.0) -> Iterator[SampleStore]:
        """Be the only writer of the manifest; a line that a killed writer left unfinished is cut off.

        Args:
            wait: Seconds to wait for another writer.

        Raises:
            StoreError: If another process is writing.
        """
        with exclusive(self.path / ".lock", wait=wait):
            self.refresh()
            if self.unread_tail():
                os.truncate(self.path / "manifest.jsonl", self._read["manifest.jsonl"])
            yield self

    def put(self, kind: Kind, name: str, data: bytes) -> str:
        """Write a file, whole or not at all; nothing to do if it is there. Needs no lock.

        Returns:
            Its path in the store.

        Raises:
            StoreError: If the disk is full.
        """
        place = f"{kind}/{name[:2]}/{name}.png"
        path = self.path / place
        if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
            write_whole(path, data)
        return place

    def append(self, record: Record) -> None:
        """Add a row to the manifest; only within :meth:`writing`.

        Raises:
            StoreError: If the sample is there already, or the disk is full.
        """
        if record.id in self._by_id:
            msg = f"Store {str(self.path)!r} has sample {record.id} already."
            raise StoreError(msg)
        line = record.to_line()
        append_lines(self.path / "manifest.jsonl", line)
        self._read["manifest.jsonl"] += len(line)
        self._by_id[record.id] = record
        self.records.append(record)

    def quarantine(self, source: str, reason: str) -> None:
        """Note an input that could not be read, once."""
        if source not in self.quarantined:
            line = json.dumps({"source": source, "reason": reason}, ensure_ascii=False).encode() + b"\n"
            append_lines(self.path / "quarantine.jsonl", line)

    @property
    def quarantined(self) -> dict[str, str]:
        """Inputs that could not be read, and why."""
        return {row["source"]: row["reason"] for row in read_lines(self.path / "quarantine.jsonl")[0]}

    def decide(self, ids: Sequence[str], accepted: bool | None) -> None:
        """Write down what a person decided; None takes earlier decisions back.

        Raises:
            StoreError: If there is no such sample, or the disk is full.
        """
        for sample in ids:
            self.get(sample)
        now = round(time.time(), 3)
        lines = [json.dumps({"id": sample, "accepted": accepted, "time": now}).encode() + b"\n" for sample in ids]
        with exclusive(self.path / ".decisions.lock", wait=_DECISION_WAIT):
            self.refresh()
            path = self.path / "decisions.jsonl"
            if self._size("decisions.jsonl") > self._read["decisions.jsonl"]:
                os.truncate(path, self._read["decisions.jsonl"])
            append_lines(path, b"".join(lines), sync=True)
            self.refresh()

    def write_verdicts(self, verdicts: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
        """Write down what a filter says of samples, in place of what one said before; people's decisions go first.

        Args:
            verdicts: By id: ``reason``, "" for a sample to keep, and numbers by name.
            facts: What the filter was, as plain data.

        Raises:
            StoreError: If there is no such sample, or the disk is full.
        """
        for sample in verdicts:
            self.get(sample)
        content = json.dumps({"facts": facts, "samples": verdicts}, indent=1, ensure_ascii=False)
        write_whole(self.path / "filter.json", content.encode() + b"\n")
        self._read_verdicts()

    def is_accepted(self, record: Record) -> bool:
        """Return whether a sample is kept: what a person decided, else what the checks and the last filter said."""
        passed = record.accepted and not self.verdicts.get(record.id, {}).get("reason")
        return record.image_file != "" and self.decisions.get(record.id, passed)

    def frame(self) -> pd.DataFrame:
        """Return the manifest as a table, with what was decided and whether each sample is kept."""
        import pandas as pd

        table = pd.DataFrame([vars(record) for record in self.records], columns=list(Record.__dataclass_fields__))
        table["decision"] = pd.Series([self.decisions.get(record.id) for record in self.records], dtype=object)
        table["kept"] = [self.is_accepted(record) for record in self.records]
        return table

    def read_image(self, record: Record) -> np.ndarray:
        """Return the image with the defect, uint8 (H, W, C) or (H, W).

        Raises:
            StoreError: If the file is missing, edited, or outside the store; as for the two below.
        """
        return self._read_file(record, record.image_file, record.image_hash)

    def read_mask(self, record: Record) -> np.ndarray:
        """Return the mask, uint8 (H, W) in {0, 255}."""
        return self._read_file(record, record.mask_file, record.mask_hash)

    def read_source(self, record: Record) -> np.ndarray:
        """Return the image without the defect, uint8 (H, W, C) or (H, W)."""
        return self._read_file(record, record.source_file, record.source_file_hash)

    def verify(self) -> list[str]:
        """Return every problem of the store as a sentence; none when it is sound."""
        return verify(self)

    def repair(self) -> list[str]:
        """Take what is damaged out of the manifest; see :func:`anomalib_synth.store.verify.repair`."""
        return repair(self)

    def unread_tail(self) -> int:
        """Return the bytes of an unfinished row at the end of the manifest."""
        return self._size("manifest.jsonl") - self._read["manifest.jsonl"]

    def reload(self) -> None:
        """Read everything anew."""
        self._forget()
        self.refresh()

    def check_file(self, record: Record, place: str, digest: str) -> bytes:
        """Return the bytes of a sample's file.

        Raises:
            StoreError: If it is missing, edited, or outside the store.
        """
        path = self.path / place
        remedy = "Run `SampleStore.repair`, then the same `anomalib-synth generate` again, which draws it anew."
        if not path.resolve().is_relative_to(self.path.resolve()):
            msg = f"{str(path)!r} of sample {record.id} leads out of the store. Remove the link. {remedy}"
            raise StoreError(msg)
        try:
            data = path.read_bytes()
        except OSError as error:
            msg = f"{str(path)!r} of sample {record.id} cannot be read ({error.strerror}). {remedy}"
            raise StoreError(msg) from error
        if hash_bytes(data) != digest:
            msg = (
                f"{str(path)!r} of sample {record.id} was edited or damaged: its digest is not the manifest's. {remedy}"
            )
            raise StoreError(msg)
        return data

    def _read_file(self, record: Record, place: str, digest: str) -> np.ndarray:
        if not place:
            msg = f"Sample {record.id} was rejected ({record.reason}), so it has no image and no mask."
            raise StoreError(msg)
        return decode_png(self.check_file(record, place, digest))

    def _forget(self) -> None:
        self.records: list[Record] = []
        self.decisions: dict[str, bool] = {}
        self.verdicts: dict[str, dict[str, Any]] = {}
        self._verdicts_read = (0, 0)
        self._by_id: dict[str, Record] = {}
        self._read = {"manifest.jsonl": 0, "decisions.jsonl": 0}

    def _read_verdicts(self) -> None:
        """Read the filter's verdicts if they are others than at the last look."""
        path = self.path / "filter.json"
        found = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
        if found == self._verdicts_read:
            return
        try:
            self.verdicts = dict(json.loads(path.read_bytes())["samples"]) if found[1] else {}
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{str(path)!r} is damaged ({error!r}). Remove it, or run `anomalib-synth filter` again."
            raise StoreError(msg) from error
        self._verdicts_read = found

    def _size(self, name: str) -> int:
        path = self.path / name
        return path.stat().st_size if path.is_file() else 0

    def _new_rows(self, name: str) -> list[Any]:
        rows, self._read[name] = read_lines(self.path / name, self._read[name])
        return rows

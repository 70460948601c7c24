"""A directory of kept samples."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from anomalib_synth.store.decisions import DecisionLog
from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.files import append_lines, end_last_line, write_whole
from anomalib_synth.store.filter_results import FilterResults
from anomalib_synth.store.head import read_settings, write_settings
from anomalib_synth.store.identity import decode_png, hash_bytes, hash_pixels, png_size
from anomalib_synth.store.locking import exclusive
from anomalib_synth.store.logs import raise_problem, read_log, remedy
from anomalib_synth.store.manifest import Manifest
from anomalib_synth.store.record import Record, file_place
from anomalib_synth.store.rules import is_hash
from anomalib_synth.store.schemas import QUARANTINED
from anomalib_synth.store.verify import repair, verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import pandas as pd

    from anomalib_synth.store.decisions import PreviousDecision

Kind = Literal["images", "masks", "sources"]
_PNG_END = b"IEND\xaeB`\x82"
_BEFORE = frozenset({".lock", "normals.jsonl"})  # what a run writes before it makes its store


class SampleStore:
    """Kept samples: lossless PNG files, a manifest, and the decisions of people who looked at them.

    The manifest is JSON Lines: it grows by appending, a killed writer can spoil no more than its last line, and
    pandas, DuckDB and jq open it. Decisions are in a log of their own, so that one can review while samples are still
    being made. Make one with :meth:`create`, open one with :meth:`open`; a bare ``SampleStore(path)`` reads nothing and
    can only :meth:`put`.

    Every field is checked when it is read: its type, its range, that ids and digests are hexadecimal and that paths are
    those of files in the store. What is wrong is a :class:`StoreError` that names the file and the line, and
    ``anomalib-synth check --repair`` puts it aside.

    Layout::

        store.json  normals.jsonl  manifest.jsonl  decisions.jsonl  quarantine.jsonl  filter.json
        images/ab/<id>.png  masks/ab/<id>.png  sources/ab/<source hash>.png

    Attributes:
        path: The directory.
        settings: The settings of the run that made it.
    """

    def __init__(self, path: Path | str, settings: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.settings = settings or {}
        self._manifest = Manifest(self.path)
        self._decided = DecisionLog(self.path)
        self._filtered = FilterResults(self.path)
        self._folders: set[Path] = set()

    @property
    def records(self) -> list[Record]:
        """The samples, in the order of their index."""
        return self._manifest.records

    @property
    def decisions(self) -> dict[str, bool]:
        """What people decided, by id: True to keep, False to leave out."""
        return self._decided.accepted

    @property
    def versions(self) -> dict[str, int]:
        """Version of the last decision about a sample, by id; samples without a decision are not there."""
        return self._decided.versions

    @property
    def version(self) -> int:
        """Version of all decisions together."""
        return self._decided.version

    @property
    def judgements(self) -> dict[str, dict[str, Any]]:
        """The last filter's judgements by id: ``reason`` ("" to keep) and its scores."""
        return self._filtered.samples

    @property
    def is_ordered(self) -> bool:
        """Whether the manifest's lines are in the order of their index."""
        return self._manifest.is_ordered

    @property
    def problems(self) -> list[str]:
        """Lines that were left out when the store was read, as sentences."""
        found = [str(problem) for problem in (*self._manifest.problems, *self._decided.problems)]
        return found + ([self._filtered.problem] if self._filtered.problem else [])

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
        if path.exists() and (not path.is_dir() or any(each.name not in _BEFORE for each in path.iterdir())):
            msg = f"{str(path)!r} must be a new or empty folder for a store, but it holds other files. Choose another."
            raise StoreError(msg)
        path.mkdir(parents=True, exist_ok=True)
        write_settings(path, settings)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str, *, strict: bool = True) -> SampleStore:
        """Open a store and read its manifest.

        Args:
            path: Its folder.
            strict: Whether a bad line is an error. Otherwise it is left out and named in ``problems``.

        Raises:
            StoreError: If there is no store, it has another format, or it is damaged.
        """
        path = Path(path)
        store = cls(path, read_settings(path))
        store.refresh(strict=strict)
        return store

    def refresh(self, *, strict: bool = True) -> None:
        """Read what was appended to the manifest and the decisions since the last look.

        Args:
            strict: Whether a bad line is an error. Otherwise it is left out and named in ``problems``.

        Raises:
            StoreError: If a line is bad.
        """
        self._manifest.refresh(strict=strict)
        self._decided.refresh(strict=strict)
        self._filtered.refresh(strict=strict)

    def get(self, sample: str) -> Record:
        """Return the record with an id.

        Raises:
            StoreError: If there is no such sample.
        """
        if sample not in self._manifest.by_id:
            msg = f"Store {str(self.path)!r} has no sample {sample!r}."
            raise StoreError(msg)
        return self._manifest.by_id[sample]

    @contextmanager
    def writing(self, *, wait: float = 0.0) -> Iterator[SampleStore]:
        """Be the only writer of the manifest; a line that a killed writer left unfinished is set aside.

        Args:
            wait: Seconds to wait for another writer, >= 0.

        Raises:
            StoreError: If another process is writing, or a line is bad.
        """
        with exclusive(self.path / ".lock", wait=wait):
            self.refresh()
            for name in ("manifest.jsonl", "quarantine.jsonl"):
                end_last_line(self.path / name)
            yield self

    def put(self, kind: Kind, name: str, data: bytes) -> tuple[str, str]:
        """Write a file, whole or not at all; nothing to do if it is there. Needs no lock.

        A source that is there with these pixels is kept, although another version of Pillow may have compressed it to
        other bytes: earlier rows hold the digest of that file.

        Args:
            kind: ``images``, ``masks`` or ``sources``.
            name: What the file is called: a digest, that of the pixels for a source.
            data: The bytes.

        Returns:
            Its path in the store, and the digest of its bytes.

        Raises:
            StoreError: If the disk is full, or the folder is a link that leads out of the store.
            ValueError: If the kind is unknown, or the name is no digest.
        """
        if kind not in get_args(Kind) or not is_hash(name):
            kinds = ", ".join(get_args(Kind))
            msg = f"`kind` must be one of {kinds}, and `name` 32 hexadecimal digits, got {kind!r} and {name!r}."
            raise ValueError(msg)
        place = file_place(kind, name)
        path = self.path / place
        if path.parent not in self._folders:
            self._require_inside(path.parent)
            self._folders.add(path.parent)
        there = path.read_bytes() if path.is_file() else None
        if there is not None and (there == data or (kind == "sources" and _shows(there, name))):
            return place, hash_bytes(there)
        write_whole(path, data)
        return place, hash_bytes(data)

    def append(self, record: Record) -> None:
        """Add a row to the manifest; only within :meth:`writing`.

        Raises:
            StoreError: If the sample is there already, or the disk is full.
        """
        self._manifest.append(record)

    def quarantine(self, source: str, reason: str) -> None:
        """Note, once, that an input could not be read; only within :meth:`writing`."""
        if source not in self.quarantined:
            line = json.dumps({"source": source, "reason": reason}, ensure_ascii=False).encode() + b"\n"
            append_lines(self.path / "quarantine.jsonl", line)

    @property
    def quarantined(self) -> dict[str, str]:
        """Inputs that could not be read, and why.

        Raises:
            StoreError: If a line is bad.
        """
        update = read_log(self.path / "quarantine.jsonl", QUARANTINED)
        if update.problems:
            raise_problem(update.problems[0], self.path)
        return {row["source"]: row["reason"] for _, row in update.rows}

    def decide(self, ids: Sequence[str], accepted: bool | None, *, seen: Mapping[str, int] | None = None) -> None:
        """Write down what a person decided.

        Args:
            ids: The samples.
            accepted: True to keep them, False to leave them out, None to take earlier decisions back.
            seen: Version of the decision that the person saw, by id; see :meth:`decide_each`.

        Raises:
            OutdatedDecisionError: If somebody has decided about one of them meanwhile; nothing is written.
            StoreError: If there is no such sample, or the disk is full.
        """
        self.decide_each(dict.fromkeys(ids, accepted), seen=seen)

    def decide_each(
        self, wanted: Mapping[str, bool | None], *, seen: Mapping[str, int] | None = None, seen_all: int | None = None
    ) -> dict[str, PreviousDecision]:
        """Write down a decision about each sample; see :meth:`anomalib_synth.store.decisions.DecisionLog.write`."""
        for sample in wanted:
            self.get(sample)
        return self._decided.write(wanted, seen=seen, seen_all=seen_all)

    def write_filter_results(self, judgements: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
        """Replace the judgements of the last filter; people's decisions take precedence over both.

        Args:
            judgements: By id: ``reason``, "" for a sample to keep, and numbers by name.
            facts: The filter's settings, as plain data.

        Raises:
            StoreError: If there is no such sample, or the disk is full.
        """
        for sample in judgements:
            self.get(sample)
        self._filtered.write(judgements, facts)

    def is_accepted(self, record: Record) -> bool:
        """Return whether a sample is kept: by a person's decision, else by the checks and the last filter."""
        passed = record.accepted and not self.judgements.get(record.id, {}).get("reason")
        return record.image_file != "" and self.decisions.get(record.id, passed)

    def frame(self) -> pd.DataFrame:
        """Return the manifest as a table, with the columns ``decision`` (a person's or None) and ``kept``."""
        import pandas as pd

        table = pd.DataFrame([vars(record) for record in self.records], columns=list(Record.__dataclass_fields__))
        table["decision"] = pd.Series([self.decisions.get(record.id) for record in self.records], dtype=object)
        table["kept"] = [self.is_accepted(record) for record in self.records]
        return table

    def read_image(self, record: Record) -> np.ndarray:
        """Return the image with the defect, uint8 (H, W, C) or (H, W).

        Raises:
            StoreError: If the sample has no image, or the file is missing, edited, or outside the store.
        """
        return self._read_file(record, record.image_file, record.image_hash)

    def read_mask(self, record: Record) -> np.ndarray:
        """Return the mask, uint8 (H, W) in {0, 255}.

        Raises:
            StoreError: As for :meth:`read_image`, or if its size is not that of the image.
        """
        mask = self._read_file(record, record.mask_file, record.mask_hash)
        with (self.path / record.image_file).open("rb") as file:
            size = png_size(file.read(24))
        if mask.shape != size[::-1]:
            path = self.path / record.mask_file
            msg = f"{str(path)!r} must be a grey mask of its image's size, {size}, but has the shape {mask.shape}."
            raise StoreError(msg)
        return mask

    def read_source(self, record: Record) -> np.ndarray:
        """Return the image without the defect, uint8 (H, W, C) or (H, W).

        Raises:
            StoreError: If the file is missing, edited, or outside the store.
        """
        return self._read_file(record, record.source_file, record.source_file_hash)

    def verify(self) -> list[str]:
        """Return every problem of the store as a sentence; none when it is sound."""
        return verify(self)

    def repair(self) -> list[str]:
        """Put what is damaged aside; see :func:`anomalib_synth.store.verify.repair`."""
        done = repair(self)
        self.reload()
        return done

    def reload(self, *, strict: bool = True) -> None:
        """Read everything anew; see :meth:`refresh`."""
        self._manifest.forget()
        self._decided.forget()
        self._filtered = FilterResults(self.path)
        self.refresh(strict=strict)

    def check_file(self, record: Record, place: str, digest: str) -> bytes:
        """Return the bytes of a sample's file.

        Raises:
            StoreError: If it is missing, edited, or outside the store.
        """
        path = self.path / place
        mend = f"{remedy(self.path)} The same `anomalib-synth generate` then draws it anew."
        self._require_inside(path)
        try:
            data = path.read_bytes() if path.is_file() else None
        except OSError as error:
            msg = f"{str(path)!r} of sample {record.id} cannot be read ({error.strerror}). {mend}"
            raise StoreError(msg) from error
        if data is None:
            msg = f"{str(path)!r} of sample {record.id} cannot be read (there is no such file). {mend}"
            raise StoreError(msg)
        if hash_bytes(data) != digest:
            msg = f"{str(path)!r} of sample {record.id} was edited or damaged: its digest is not the manifest's. {mend}"
            raise StoreError(msg)
        return data

    def _read_file(self, record: Record, place: str, digest: str) -> np.ndarray:
        if not place:
            msg = f"Sample {record.id} was rejected ({record.reason}), so it has no image and no mask."
            raise StoreError(msg)
        data = self.check_file(record, place, digest)
        try:
            return decode_png(data)
        except StoreError as error:
            msg = f"{str(self.path / place)!r} of sample {record.id}: {error}"
            raise StoreError(msg) from error

    @cached_property
    def _resolved(self) -> Path:
        return self.path.resolve()

    def _require_inside(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self._resolved):
            msg = f"{str(path)!r} leads out of the store. Remove the link. {remedy(self.path)}"
            raise StoreError(msg)


def _shows(data: bytes, name: str) -> bool:
    """Return whether these are the bytes of a whole PNG whose pixels have this digest."""
    try:
        return data.endswith(_PNG_END) and hash_pixels(decode_png(data)) == name
    except StoreError:
        return False

"""The manifest of a store: one row per sample, appended as samples are drawn."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.files import append_lines
from anomalib_synth.store.logs import LogPosition, LogProblem, is_replaced, raise_problem, read_log
from anomalib_synth.store.record import RECORD, Record

if TYPE_CHECKING:
    from pathlib import Path

_by_place = attrgetter("index")


class Manifest:
    """The rows of a store.

    Args:
        folder: Folder of the store.

    Attributes:
        records: The samples, in the order of their index, whatever the order of their lines.
        by_id: The samples by id.
        problems: Lines that are no sample, and second lines of a sample.
        is_ordered: Whether the lines are in the order of their index; a repair leaves gaps that are filled later.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "manifest.jsonl"
        self.forget()

    def forget(self) -> None:
        """Start reading anew."""
        self.records: list[Record] = []
        self.by_id: dict[str, Record] = {}
        self.problems: list[LogProblem] = []
        self.is_ordered = True
        self._indices: set[int] = set()
        self._position = LogPosition()

    def refresh(self, *, strict: bool) -> None:
        """Read what was appended since the last look.

        Args:
            strict: Whether a bad line is an error; otherwise it is noted in ``problems`` and the others are read.

        Raises:
            StoreError: If there is a bad line and ``strict`` is on; then none of the new lines is taken over.
        """
        if is_replaced(self.path, self._position):
            self.forget()
        update = read_log(self.path, RECORD, self._position)
        problems, records = update.problems, []
        seen: tuple[set[str], set[int]] = (set(), set())
        for line, row in update.rows:
            if fault := self._find_double(row, *seen):
                problems.append(LogProblem(self.path, line, fault))
                continue
            seen[0].add(row["id"])
            seen[1].add(row["index"])
            records.append(Record.of_checked(row))
        problems.sort(key=attrgetter("line"))
        if strict and problems:
            raise_problem(problems[0], self.path.parent)
        for record in records:
            self._add(record)
        self.problems += problems
        self._position = update.position

    def append(self, record: Record) -> None:
        """Write a row.

        Raises:
            StoreError: If the sample is there already, a field breaks its rule, or the disk is full.
        """
        if fault := self._find_double(vars(record), set(), set()):
            msg = f"A row for {str(self.path)!r} {fault} already."
            raise StoreError(msg)
        if fault := RECORD.find_fault(vars(record)):
            msg = f"A sample for {str(self.path)!r} {fault}. It was not written; the generator should not make it."
            raise StoreError(msg)
        line = record.to_line()
        append_lines(self.path, line)
        size = self.path.stat()
        self._position = LogPosition(size.st_size, self._position.lines + 1, size.st_ino)
        self._add(record)

    def _add(self, record: Record) -> None:
        self.by_id[record.id] = record
        self._indices.add(record.index)
        if self.records and record.index < self.records[-1].index:
            self.is_ordered = False
            insort(self.records, record, key=_by_place)
        else:
            self.records.append(record)

    def _find_double(self, row: dict[str, Any], ids: set[str], indices: set[int]) -> str:
        if row["id"] in self.by_id or row["id"] in ids:
            return f"has sample {row['id']} twice"
        return f"has index {row['index']} twice" if row["index"] in self._indices or row["index"] in indices else ""

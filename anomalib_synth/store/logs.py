"""Reads logs of JSON Lines from where the last look ended; every row is checked, and bad ones are named by line."""

from __future__ import annotations

import gc
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.files import is_row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anomalib_synth.store.rules import RecordSchema


@dataclass(frozen=True)
class LogPosition:
    """The position up to which a log was read.

    Args:
        offset: Number of bytes.
        lines: Number of lines, blank and bad ones included.
        file: Inode of the file, to tell when another file took its place.
    """

    offset: int = 0
    lines: int = 0
    file: int = 0


class LogProblem(NamedTuple):
    """A line of a log that is no row."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        """Name the file, the line and what is wrong."""
        return f"{str(self.path)!r}, line {self.line}, {self.text}."


@dataclass(frozen=True)
class LogUpdate:
    """The rows that were appended to a log since the last look.

    Args:
        rows: Number of the line, and the row, of each sound line.
        problems: The bad lines.
        position: Where the next look begins: after the last whole row. An unfinished row is left for that look.
    """

    rows: list[tuple[int, dict[str, Any]]]
    problems: list[LogProblem]
    position: LogPosition


def read_log(path: Path, schema: RecordSchema, position: LogPosition = LogPosition()) -> LogUpdate:
    """Return the rows of a log from a position on; blank lines count as lines, but hold no row.

    Args:
        path: The log; a file that is not there counts as an empty log.
        schema: What a row must be.
        position: Where the last look ended.
    """
    if not path.is_file():
        return LogUpdate([], [], LogPosition())
    with path.open("rb") as file:
        number_of_file = os.fstat(file.fileno()).st_ino
        file.seek(position.offset)
        data = file.read()
    end = data.rfind(b"\n") + 1
    if is_row(data[end:]):
        end = len(data)  # a row that only lacks the line's end, as an editor or a copy leaves it
    lines = data[:end].split(b"\n")
    if not lines[-1]:
        lines.pop()
    rows: list[tuple[int, dict[str, Any]]] = []
    problems: list[LogProblem] = []
    for number, row in enumerate(_parse_all(lines), position.lines + 1):
        if row is BLANK:
            continue
        fault = row.text if isinstance(row, NotJSON) else schema.find_fault(row)
        if fault:
            problems.append(LogProblem(path, number, fault))
        else:
            rows.append((number, row))
    # a row that still lacks its line's end is not counted yet: the blank rest of the line will be
    count = data[:end].count(b"\n")
    reached = LogPosition(position.offset + end, position.lines + count, number_of_file)
    return LogUpdate(rows, problems, reached)


def is_replaced(path: Path, position: LogPosition) -> bool:
    """Return whether a log is no longer the one that was read up to a position: shorter, or another file."""
    if not position.file or not path.is_file():
        return position.offset > 0
    found = path.stat()
    return found.st_size < position.offset or found.st_ino != position.file


def raise_problem(problem: LogProblem, store: Path) -> NoReturn:
    """Raise the error of a bad line, with the command that mends it."""
    msg = f"{problem} {remedy(store)}"
    raise StoreError(msg)


def remedy(store: Path) -> str:
    """Return how to mend a store."""
    return (
        f"Run `anomalib-synth check --store {store} --repair`: it puts what is bad into a file beside it and "
        "keeps the rest."
    )


@dataclass(frozen=True)
class NotJSON:
    """Stands for a line that is not JSON; ``text`` says why."""

    text: str


BLANK = object()


def _parse_all(lines: list[bytes]) -> Iterator[Any]:
    """Yield the value of each line, ``BLANK`` or a ``NotJSON`` where it holds none."""
    with _no_collector():
        try:
            rows = json.loads(b"[" + b",".join(lines) + b"]", parse_constant=_refuse_constant)
            if len(rows) == len(lines):  # a line may not hold two rows
                yield from rows
                return
        except (ValueError, RecursionError):
            pass
        yield from map(parse_line, lines)


def parse_line(line: bytes) -> Any:
    """Return the value of a line; see :func:`_parse_all`."""
    if not line.strip():
        return BLANK
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return NotJSON(f"is not JSON ({error})")


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is no number"
    raise ValueError(msg)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep the garbage collector from looking again and again at many small objects, none of which is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

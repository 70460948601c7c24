"""Takes bad lines out of a log, and keeps all that is sound, byte by byte."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anomalib_synth.store.files import append_lines, side_file, write_whole
from anomalib_synth.store.filter_results import read_filter_results
from anomalib_synth.store.logs import BLANK, NotJSON, parse_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from anomalib_synth.store.rules import RecordSchema

_UNIQUE = ("id", "index")
_decoder = json.JSONDecoder()


@dataclass
class LogRepair:
    """The result of the repair of a log.

    Args:
        kept: Number of rows that are left.
        removed: Number of lines that were taken out.
        said: Sentences on what was taken out; empty when nothing was.
    """

    kept: int = 0
    removed: int = 0
    said: list[str] = field(default_factory=list)


def repair_log(path: Path, schema: RecordSchema, *, unwanted: Collection[str] = ()) -> LogRepair:
    """Rewrite a log without its bad lines, which are appended to its side file first; a sound log is left alone.

    Args:
        path: The log.
        schema: What a row must be. If it has an ``index``, a second row with the same ``id`` or ``index`` is bad too.
        unwanted: Ids of rows to take out as well.
    """
    repair = LogRepair()
    if not path.is_file():
        return repair
    kept: list[bytes] = []
    removed: list[bytes] = []
    seen: set[tuple[str, Any]] = set()
    wanted_once = _UNIQUE if "index" in schema.rules else ()
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    blank = 0
    for number, line in enumerate(lines, 1):
        row = parse_line(line)
        if row is BLANK:
            blank += 1
            continue
        fault = row.text if isinstance(row, NotJSON) else schema.find_fault(row)
        if fault:
            parts = list(_salvage(line, schema))
            fault += f"; {len(parts)} sound rows of it are kept" if parts else ""
        else:
            parts = [(line, row)]
        for part, sound in parts:
            keys = [(name, sound[name]) for name in wanted_once]
            double = next((f"has {name} {value} twice" for name, value in keys if (name, value) in seen), "")
            if double or sound.get("id") in unwanted:
                fault = fault or double
                removed.append(part)
                continue
            seen.update(keys)
            kept.append(part)
        if fault:
            repair.said.append(f"{path.name}, line {number}, {fault}.")
            removed += [] if line in removed else [line]
    repair.kept, repair.removed = len(kept), len(removed)
    if blank and any(lines):
        repair.said.append(f"{path.name} had {blank} blank lines.")
    if removed:
        append_lines(side_file(path), b"".join(line + b"\n" for line in removed), sync=True)
    if removed or (blank and any(lines)):
        write_whole(path, b"".join(line + b"\n" for line in kept))
        repair.said = repair.said or [f"{len(removed)} rows were taken out of {path.name}."]
    return repair


def repair_filter_results(path: Path) -> list[str]:
    """Keep the sound judgements of a filter's report; the whole of a damaged one is kept beside it."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    sound, faults = read_filter_results(data)
    if not faults:
        return []
    aside = side_file(path)
    count = 1
    while aside.exists() and aside.read_bytes() != data:
        count += 1
        aside = side_file(path).with_suffix(f".{count}{path.suffix}")
    write_whole(aside, data)
    if sound:
        facts = json.loads(data).get("facts")
        write_whole(path, json.dumps({"facts": facts, "samples": sound}, indent=1, ensure_ascii=False).encode() + b"\n")
    else:
        path.unlink()
    return [
        *(f"{path.name} {fault}." for fault in faults),
        f"{path.name} keeps {len(sound)} judgements; as it was, it is in {aside.name}. What it had left out is kept "
        "now: run `anomalib-synth filter` again, or `look_alikes` where that chose.",
    ]


def _salvage(line: bytes, schema: RecordSchema) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the sound rows within a bad line: where the end of a line was lost, a row is glued to its neighbour."""
    text = line.decode("utf-8", "surrogateescape")
    opening = f'{{"{next(iter(schema.rules))}":'
    start = text.find(opening)
    while start >= 0:
        try:
            row, end = _decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            row, end = None, start + 1
        if row is not None and not schema.find_fault(row) and _is_utf8(part := text[start:end]):
            yield part.encode(), row
        else:
            end = start + 1
        start = text.find(opening, end)


def _is_utf8(text: str) -> bool:
    """Return whether text that was read byte by byte is UTF-8, as every reader of the log takes it to be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

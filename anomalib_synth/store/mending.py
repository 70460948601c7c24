"""Taking bad lines out of a log, and keeping all that is sound, byte by byte."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anomalib_synth.store.files import append_lines, side_file, write_whole
from anomalib_synth.store.logs import BLANK, NotJSON, parse_line
from anomalib_synth.store.verdicts import read_verdicts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from anomalib_synth.store.rules import Form

_UNIQUE = ("id", "index")
_decoder = json.JSONDecoder()


@dataclass
class Mended:
    """What was done to a log.

    Args:
        kept: How many rows are left.
        removed: How many lines were taken out.
        said: What was taken out, as sentences; none when nothing was.
    """

    kept: int = 0
    removed: int = 0
    said: list[str] = field(default_factory=list)


def mend_log(path: Path, form: Form, *, unwanted: Collection[str] = ()) -> Mended:
    """Rewrite a log without its bad lines, which are appended to its side file first; nothing to do for a sound one.

    Args:
        path: The log.
        form: What a row must be. Of rows with an ``index`` a second one with the same ``id`` or ``index`` is bad too.
        unwanted: Ids of rows to take out as well.
    """
    mended = Mended()
    if not path.is_file():
        return mended
    kept: list[bytes] = []
    removed: list[bytes] = []
    seen: set[tuple[str, Any]] = set()
    wanted_once = _UNIQUE if "index" in form.rules else ()
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    blank = 0
    for number, line in enumerate(lines, 1):
        row = parse_line(line)
        if row is BLANK:
            blank += 1
            continue
        fault = row.text if isinstance(row, NotJSON) else form.find_fault(row)
        if fault:
            parts = list(_salvage(line, form))
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
            mended.said.append(f"{path.name}, line {number}, {fault}.")
            removed += [] if line in removed else [line]
    mended.kept, mended.removed = len(kept), len(removed)
    if blank and any(lines):
        mended.said.append(f"{path.name} had {blank} blank lines.")
    if removed:
        append_lines(side_file(path), b"".join(line + b"\n" for line in removed), sync=True)
    if removed or (blank and any(lines)):
        write_whole(path, b"".join(line + b"\n" for line in kept))
        mended.said = mended.said or [f"{len(removed)} rows were taken out of {path.name}."]
    return mended


def mend_verdicts(path: Path) -> list[str]:
    """Keep the sound verdicts of a filter's report; the whole of a damaged one is kept beside it."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    sound, faults = read_verdicts(data)
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
        f"{path.name} keeps {len(sound)} verdicts; as it was, it is in {aside.name}. What it had left out is kept now: "
        "run `anomalib-synth filter` again, or `look_alikes` where that chose.",
    ]


def _salvage(line: bytes, form: Form) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the sound rows in a line that is none: a lost line's end glues a row to what comes before or after it."""
    text = line.decode("utf-8", "surrogateescape")
    opening = f'{{"{next(iter(form.rules))}":'
    start = text.find(opening)
    while start >= 0:
        try:
            row, end = _decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            row, end = None, start + 1
        if row is not None and not form.find_fault(row) and _is_utf8(part := text[start:end]):
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

"""The rows of a comparison as they come: one JSON line a run, on the disk before the next run starts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from anomalib_synth.store import StoreError
from anomalib_synth.store.files import append_lines, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class TrialLog:
    """A file of rows, one a run; later rows of a run replace earlier ones.

    What a killed writer left half-written at the end is cut off when the log is opened. Only one process may have it
    open.

    Args:
        path: The file (JSON Lines).

    Raises:
        StoreError: If a whole line is no row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            rows, end = read_lines(path)
            for row in rows:
                if not isinstance(row, dict) or "config_hash" not in row:
                    msg = f"{str(path)!r} has a line that is no row: {str(row)[:80]}."
                    raise StoreError(msg)
        except StoreError as error:
            msg = f"{error} In a comparison, delete that line: only its run is done again."
            raise StoreError(msg) from error
        if path.is_file() and path.stat().st_size > end:
            with path.open("r+b") as file:
                file.truncate(end)
        self._rows = {row["config_hash"]: row for row in rows}

    def append(self, row: Mapping[str, Any]) -> None:
        """Keep a row; it is on the disk when this returns."""
        text = json.dumps(row, allow_nan=False, ensure_ascii=False, default=str)
        line = text.encode("utf-8", "replace")  # an error may name a file whose name is not UTF-8
        append_lines(self._path, line + b"\n", sync=True)
        kept = json.loads(line)
        self._rows[kept["config_hash"]] = kept

    def done(self, cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of those cells that ran, in the order of the cells."""
        return [row for row in self._of(cells) if "error" not in row]

    def failed(self, cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of those cells whose last run failed."""
        return [row for row in self._of(cells) if "error" in row]

    def _of(self, cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [self._rows[cell["config_hash"]] for cell in cells if cell["config_hash"] in self._rows]

"""The rows of a comparison as they come: one JSON line per run, on the disk before the next run starts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from anomalib_synth.store import StoreError
from anomalib_synth.store.files import append_lines, end_last_line
from anomalib_synth.store.logs import read_log
from anomalib_synth.store.rules import TEXT, RecordSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


_ROW = RecordSchema(name="a row of a comparison", rules={"config_hash": TEXT}, open_ended=True)


class TrialLog:
    """A file of rows, one per run; a later row of the same run replaces the earlier one.

    What a killed writer left half-written at the end is set aside when the log is opened. Only one process may have it
    open.

    Args:
        path: The file (JSON Lines).

    Raises:
        StoreError: If a line is whole and still no row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        end_last_line(path)
        update = read_log(path, _ROW)
        if update.problems:
            msg = f"{update.problems[0]} In a comparison, delete that line: only its run is done again."
            raise StoreError(msg)
        self._rows = {row["config_hash"]: row for _, row in update.rows}

    def append(self, row: Mapping[str, Any]) -> None:
        """Keep a row; it is on the disk when this returns."""
        text = json.dumps(row, allow_nan=False, ensure_ascii=False, default=str)
        line = text.encode("utf-8", "replace")  # an error may name a file whose name is not UTF-8
        append_lines(self._path, line + b"\n", sync=True)
        kept = json.loads(line)
        self._rows[kept["config_hash"]] = kept

    def done(self, trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of those trials that ran, in the order of the trials."""
        return [row for row in self._of(trials) if "error" not in row]

    def failed(self, trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of those trials whose last run failed."""
        return [row for row in self._of(trials) if "error" in row]

    def _of(self, trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [self._rows[trial["config_hash"]] for trial in trials if trial["config_hash"] in self._rows]

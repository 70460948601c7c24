"""The folder a prediction writes to: rows as they come, pictures, and which detector they are from.

``predictions.jsonl`` is the one that counts: it grows by whole lines, and a run that goes on reads it.
``predictions.csv`` has the same rows for people and spreadsheets, and is rewritten from it when a run begins.
"""

from __future__ import annotations

import csv
import io
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anomalib_synth._version import __version__
from anomalib_synth.images import WhitePoint
from anomalib_synth.store.files import append_lines, write_whole
from anomalib_synth.store.locking import exclusive
from anomalib_synth.store.logs import read_log
from anomalib_synth.store.rules import FieldRule, RecordSchema, is_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anomalib_synth.prediction.detector import DetectorInfo

VERDICTS = ("good", "defect", "unreadable")
ROWS, TABLE, SETTINGS = "predictions.jsonl", "predictions.csv", "detector.json"
PICTURE_FOLDERS = ("pictures", "crops")
_COLUMNS = (
    "file", "verdict", "score", "threshold", "raw_score", "raw_threshold", "left", "top", "width", "height", "peak_x",
    "peak_y", "seconds", "time", "picture", "crop", "content", "reason",
)  # fmt: skip
_SCHEMA = RecordSchema(
    name="a row of a prediction",
    rules={
        "file": FieldRule("text", is_text),
        "content": FieldRule("text", is_text),
        "verdict": FieldRule("good, defect or unreadable", lambda value: type(value) is str and value in VERDICTS),
    },
    open_ended=True,
)


class Journal:
    """The rows of a prediction.

    Args:
        out: The folder; :meth:`opened` makes it if it is not there.
        about: The detector.
        white_point: White of images of more than 8 bits.

    Raises:
        ValueError: If the folder holds rows of another detector or white point, or files that no prediction wrote.
    """

    def __init__(self, out: Path, about: DetectorInfo, white_point: WhitePoint) -> None:
        self.out = out
        self._settings = {
            "version": __version__, **about.to_dict(), "white_point": white_point.to_dict()
        }  # fmt: skip
        self._check_settings()
        self._verdicts: dict[tuple[str, str], str] = {}
        self._failed: set[tuple[str, str, str]] = set()
        self._files: dict[str, tuple[str, str]] = {}  # file and content by picture

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Keep another run out of the folder, and read what was judged before.

        Raises:
            StoreError: If another run writes into it.
            ValueError: If a row is damaged.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        with exclusive(self.out / ".lock", wait=0.5):
            self._check_settings()
            write_whole(self.out / SETTINGS, json.dumps(self._settings, indent=1).encode())
            update = read_log(self.out / ROWS, _SCHEMA)
            if update.problems:
                msg = f"{update.problems[0]} Take the line away, or name another `out`."
                raise ValueError(msg)
            rows = [row for _, row in update.rows]
            for row in rows:
                self._remember(row)
            write_whole(self.out / TABLE, _to_csv(rows, head=True))
            yield

    def find_verdict(self, file: str, content: str) -> str:
        """Return the verdict on a file of this name and digest, "" if it was not judged."""
        return self._verdicts.get((file, content), "")

    def has_failed(self, file: str, content: str, reason: str) -> bool:
        """Return whether it is known already that a file cannot be judged, and why."""
        return (file, content, reason) in self._failed

    def name_picture(self, file: str, content: str, folder: str, suffix: str) -> str:
        """Return the path, relative to ``out``, of a picture of a file; no two files share one."""
        stem = f"{folder}/{file.rpartition('.')[0]}"
        for name in (f"{stem}{suffix}", f"{stem}-{content[:8]}{suffix}", f"{stem}-{content}{suffix}"):
            if self._files.setdefault(name, (file, content)) == (file, content):
                break
        return name

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows to both files.

        Raises:
            StoreError: If the disk is full.
        """
        lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        append_lines(self.out / ROWS, lines.encode())
        append_lines(self.out / TABLE, _to_csv(rows))
        for row in rows:
            self._remember(row)

    def _remember(self, row: dict[str, Any]) -> None:
        key = row["file"], row["content"]
        if row["verdict"] == "unreadable":
            self._failed.add((*key, str(row.get("reason"))))
        else:
            self._verdicts[key] = row["verdict"]
        for name in ("picture", "crop"):
            if isinstance(row.get(name), str):
                self._files[row[name]] = key

    def _check_settings(self) -> None:
        path = self.out / SETTINGS
        if not path.is_file():
            strange = [name for name in (ROWS, TABLE, *PICTURE_FOLDERS) if (self.out / name).exists()]
            if strange:
                msg = f"`out` {str(self.out)!r} holds {strange[0]}, but no prediction wrote it. Name another folder."
                raise ValueError(msg)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            same = all(before[name] == self._settings[name] for name in ("content", "inference"))
            white = WhitePoint.from_dict(before["white_point"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            msg = f"{str(path)!r} cannot be read ({error!r}), so nobody knows whose rows these are. Name another `out`."
            raise ValueError(msg) from error
        if not same:
            msg = (
                f"`out` {str(self.out)!r} holds the verdicts of another detector, {before.get('path')!r} as it was "
                "then: trained, calibrated or taught again, or another file. Name another folder."
            )
            raise ValueError(msg)
        now = WhitePoint.from_dict(self._settings["white_point"])
        if white not in (now, WhitePoint()):
            msg = f"`out` {str(self.out)!r} holds verdicts for white at {white}, got {now}. Name another folder."
            raise ValueError(msg)


def _to_csv(rows: Sequence[dict[str, Any]], *, head: bool = False) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    if head:
        writer.writeheader()
    for row in rows:
        box = dict(zip(("left", "top", "width", "height"), row.get("box") or (), strict=False))
        peak = dict(zip(("peak_x", "peak_y"), row.get("peak") or (), strict=False))
        writer.writerow({name: "" if value is None else value for name, value in {**row, **box, **peak}.items()})
    return text.getvalue().encode()

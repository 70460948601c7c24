"""What people decided about samples: a log in which the last decision counts, and none is overruled unseen."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

from anomalib_synth.store.errors import OutdatedDecisionError
from anomalib_synth.store.files import append_lines
from anomalib_synth.store.locking import exclusive
from anomalib_synth.store.logs import LogPosition, LogProblem, is_replaced, raise_problem, read_log
from anomalib_synth.store.schemas import DECISION

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_WAIT = 10.0


class PreviousDecision(NamedTuple):
    """The decision about a sample before a new one: ``accepted`` is None for none, ``version`` 0 if there never was."""

    accepted: bool | None
    version: int


class DecisionLog:
    """The decisions of a store.

    The version of a decision is the number of its line in the log. Whoever decides may name the versions that they saw:
    if somebody else has decided since, nothing is written.

    Args:
        folder: Folder of the store.

    Attributes:
        accepted: What was decided, by id: True to keep, False to leave out.
        versions: Version of the last decision about each sample, a decision that was taken back included.
        problems: Lines that are no decision.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "decisions.jsonl"
        self._lock = folder / ".decisions.lock"
        self.forget()

    @property
    def version(self) -> int:
        """Version of the whole log: its number of lines."""
        return self._position.lines

    def forget(self) -> None:
        """Start reading anew."""
        self.accepted: dict[str, bool] = {}
        self.versions: dict[str, int] = {}
        self.problems: list[LogProblem] = []
        self._position = LogPosition()

    def refresh(self, *, strict: bool) -> None:
        """Read what was appended since the last look.

        Args:
            strict: Whether a bad line is an error; otherwise it is noted in ``problems``.

        Raises:
            StoreError: If there is a bad line.
        """
        if is_replaced(self.path, self._position):
            self.forget()
        update = read_log(self.path, DECISION, self._position)
        if strict and update.problems:
            raise_problem(update.problems[0], self.path.parent)
        for line, row in update.rows:
            self.versions[row["id"]] = line
            if row["accepted"] is None:
                self.accepted.pop(row["id"], None)
            else:
                self.accepted[row["id"]] = row["accepted"]
        self.problems += update.problems
        self._position = update.position

    def write(
        self, wanted: Mapping[str, bool | None], *, seen: Mapping[str, int] | None = None, seen_all: int | None = None
    ) -> dict[str, PreviousDecision]:
        """Write decisions down; they are on the disk when this returns. Decisions that hold already are not written.

        Args:
            wanted: Decision by id, None to take an earlier one back.
            seen: Version by id of the decision that was seen, 0 for none; samples that are not named are not compared.
            seen_all: Version of the whole log that was seen; none of the samples may have been decided since.

        Returns:
            The previous decision by id of each sample whose decision changed.

        Raises:
            OutdatedDecisionError: If somebody has decided about one of the samples meanwhile.
            StoreError: If the disk is full, or another process holds the lock for too long.
        """
        now = round(time.time(), 3)
        with exclusive(self._lock, wait=_WAIT):
            self.refresh(strict=False)
            outdated = [sample for sample in wanted if self._is_outdated(sample, seen or {}, seen_all)]
            if outdated:
                raise OutdatedDecisionError(outdated)
            before = {
                sample: PreviousDecision(self.accepted.get(sample), self.versions.get(sample, 0))
                for sample, value in wanted.items()
                if self.accepted.get(sample) is not value
            }
            rows = [
                {"id": sample, "accepted": wanted[sample], "time": now, "after": previous.version}
                for sample, previous in before.items()
            ]
            if rows:
                append_lines(self.path, b"".join(json.dumps(row).encode() + b"\n" for row in rows), sync=True)
                self.refresh(strict=False)
        return before

    def _is_outdated(self, sample: str, seen: Mapping[str, int], seen_all: int | None) -> bool:
        version = self.versions.get(sample, 0)
        return version != seen.get(sample, version) or (seen_all is not None and version > seen_all)

"""A session of reviewing a store: pages of samples, decisions, and undo."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from anomalib_synth.report.catalogue import Catalogue
from anomalib_synth.report.query import parse_query
from anomalib_synth.store import OutdatedDecisionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anomalib_synth.store import Record, SampleStore
    from anomalib_synth.store.decisions import PreviousDecision

_STEPS = 200
_STATES = 500
_PROBLEMS = 5


class OutdatedError(ValueError):
    """The samples, or the decisions about them, have changed since the person saw them. Nothing was written.

    Attributes:
        present: What a page needs to show their present state.
    """

    def __init__(self, message: str, present: dict[str, Any] | None = None) -> None:
        self.present = present or {}
        super().__init__(message)


class UnknownSampleError(StoreError):
    """There is no sample with this id."""


class _Made(NamedTuple):
    """A decision that can be undone: the decisions before it, and its own version."""

    before: PreviousDecision
    made: int


_Step = dict[str, _Made]


class ReviewSession:
    """Answers a review page's questions about a store, one at a time.

    Args:
        store: An open store.
        price_per_hour: Price of an hour of the device that drew the samples, None if it is not known.
    """

    def __init__(self, store: SampleStore, *, price_per_hour: float | None = None) -> None:
        self.store = store
        self._catalogue = Catalogue(store, price_per_hour=price_per_hour)
        self._steps: deque[_Step] = deque(maxlen=_STEPS)
        self._lock = threading.Lock()

    def page(self, text: str) -> dict[str, Any]:
        """Return a page of samples, the facets to filter by, and the histogram of a score.

        Args:
            text: The query, see :func:`anomalib_synth.report.query.parse_query`.

        Raises:
            ValueError: If the query is wrong.
        """
        with self._lock:
            self._catalogue.refresh()
            query = parse_query(text, self._catalogue.scores)
            selection = self._catalogue.select(query)
            rows = selection.order[selection.start : selection.start + query.per_page]
            return {
                "samples": [self._catalogue.describe(row) for row in rows.tolist()],
                "matching": len(selection.order),
                "start": selection.start,
                "per_page": query.per_page,
                "facets": selection.facets,
                "histogram": selection.histogram,
                "scores": list(self._catalogue.scores),
                **self._summary(),
            }

    def find(self, sample: str) -> Record:
        """Return the record with an id.

        Raises:
            UnknownSampleError: If there is none.
        """
        try:
            return self.store.get(sample)
        except StoreError as error:
            raise UnknownSampleError(str(error)) from error

    def detail(self, sample: str) -> dict[str, Any]:
        """Return everything that is known about one sample.

        Raises:
            UnknownSampleError: If there is none.
        """
        with self._lock:
            self._catalogue.refresh()
            record = self.find(sample)
            names = ("generator", "params", "attempt", "prompt", "seconds", "version", "source_hash")
            return {
                **self._catalogue.describe(self._catalogue.rows[sample]),
                **{name: getattr(record, name) for name in names},
                "seed": str(record.seed),  # a browser's numbers hold 53 bits
            }

    def decide(
        self, ids: Sequence[str], accepted: bool | None, *, seen: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """Record a decision about some samples; those that were never drawn are skipped.

        Args:
            ids: The samples.
            accepted: The decision, None to take earlier ones back.
            seen: For each sample, the version of the decision that the person saw. The decision about other samples
                overrides earlier ones in any case.

        Raises:
            UnknownSampleError: If there is no such sample; nothing is written.
            OutdatedError: If somebody else has decided meanwhile; nothing is written.
        """
        with self._lock:
            return self._decide(list(dict.fromkeys(ids)), accepted, seen=seen)

    def decide_matching(
        self, text: str, accepted: bool | None, *, expected: int, version: int | None = None
    ) -> dict[str, Any]:
        """Record a decision about all samples of a query.

        Args:
            text: The query.
            accepted: The decision, None to take earlier ones back.
            expected: How many samples the person was told that the query matches.
            version: Version of all decisions at that time; None overrides later decisions of others.

        Raises:
            OutdatedError: If the query matches another number now, or somebody has decided about one of them since.
        """
        with self._lock:
            self._catalogue.refresh()
            rows = self._catalogue.select(parse_query(text, self._catalogue.scores)).order
            if len(rows) != expected:
                msg = f"The filter holds {len(rows)} samples now, not {expected}. Look at them again, then decide."
                raise OutdatedError(msg)
            ids = [self.store.records[row].id for row in rows.tolist()]
            return self._decide(ids, accepted, seen_all=version)

    def undo(self) -> dict[str, Any]:
        """Undo the last decision, for samples about which nobody has decided since."""
        with self._lock:
            if not self._steps:
                return self._answer([], since=self.store.version, skipped=0)
            step = self._steps.pop()
            wanted = {sample: each.before.accepted for sample, each in step.items() if sample in self._catalogue.rows}
            seen = {sample: each.made for sample, each in step.items()}
            since = self.store.version
            while True:
                try:
                    self.store.decide_each(wanted, seen=seen)
                    break
                except OutdatedDecisionError as error:
                    wanted = {sample: value for sample, value in wanted.items() if sample not in error.samples}
            self._follow(step, wanted)
            return self._answer(list(wanted), since=since, skipped=len(step) - len(wanted))

    def _follow(self, step: _Step, restored: Collection[str]) -> None:
        """Give earlier steps the versions that their decisions have after they were restored."""
        for sample in restored:
            for earlier in self._steps:
                if sample in earlier and earlier[sample].made == step[sample].before.version:
                    earlier[sample] = earlier[sample]._replace(made=self.store.versions[sample])

    def _decide(
        self,
        ids: list[str],
        accepted: bool | None,
        *,
        seen: Mapping[str, int] | None = None,
        seen_all: int | None = None,
    ) -> dict[str, Any]:
        drawn = [sample for sample in ids if self.find(sample).image_file]
        since = self.store.version
        try:
            before = self.store.decide_each(dict.fromkeys(drawn, accepted), seen=seen, seen_all=seen_all)
        except OutdatedDecisionError as error:
            present = self._answer(error.samples, since=since, changed=0, skipped=len(ids))
            raise OutdatedError(str(error), present) from error
        if before:
            versions = self.store.versions
            self._steps.append({sample: _Made(was, versions[sample]) for sample, was in before.items()})
        return self._answer(drawn, since=since, changed=len(before), skipped=len(ids) - len(drawn))

    def _answer(self, ids: list[str], *, since: int, skipped: int, changed: int | None = None) -> dict[str, Any]:
        """Return what a page needs to show a change; if many samples changed, the page requests their states itself.

        ``since`` is the version of all decisions before the change. A page that had seen that version has now seen all
        decisions.
        """
        self._catalogue.refresh()
        rows = self._catalogue.rows
        states = {sample: self._catalogue.describe_state(rows[sample]) for sample in ids[:_STATES] if sample in rows}
        changed = len(ids) if changed is None else changed
        return {
            "changed": changed,
            "skipped": skipped,
            "ids": ids[:_STATES],
            "states": states,
            "versions": {sample: self.store.versions.get(sample, 0) for sample in states},
            "since": since,
            **self._summary(),
        }

    def _summary(self) -> dict[str, Any]:
        return {
            "counts": self._catalogue.count(),
            "costs": self._catalogue.costs(),
            "undoable": len(self._steps),
            "version": self.store.version,
            "problems": self.store.problems[:_PROBLEMS],
        }

"""The work on a store under review: pages of samples, decisions, and taking decisions back."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from anomalib_synth.report.catalogue import Catalogue
from anomalib_synth.report.query import parse_query
from anomalib_synth.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.store import Record, SampleStore

_STEPS = 200
_STATES = 500


class OutdatedError(ValueError):
    """The samples are not those that were seen when the decision was made."""


class UnknownSampleError(StoreError):
    """There is no sample with this id."""


class ReviewDesk:
    """Answers a review page's questions about a store, one at a time.

    Args:
        store: An open store.
        price_per_hour: Price of an hour of the device that drew the samples, None where it is not known.
    """

    def __init__(self, store: SampleStore, *, price_per_hour: float | None = None) -> None:
        self.store = store
        self._catalogue = Catalogue(store, price_per_hour=price_per_hour)
        self._steps: deque[tuple[dict[str, bool | None], bool | None]] = deque(maxlen=_STEPS)
        self._lock = threading.Lock()

    def page(self, text: str) -> dict[str, Any]:
        """Return a page of samples, what there is to filter by, and the histogram of a score.

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
        """Return everything that is known of one sample.

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

    def decide(self, ids: Sequence[str], accepted: bool | None) -> dict[str, Any]:
        """Write down a decision about some samples; one that was never drawn is skipped, there is nothing to keep.

        Raises:
            UnknownSampleError: If there is no such sample; nothing is written.
        """
        with self._lock:
            return self._decide(list(dict.fromkeys(ids)), accepted)

    def decide_matching(self, text: str, accepted: bool | None, *, expected: int) -> dict[str, Any]:
        """Write down a decision about all samples of a query.

        Args:
            text: The query.
            accepted: The decision, None to take earlier ones back.
            expected: How many samples the person was told it holds.

        Raises:
            OutdatedError: If it holds another number by now.
        """
        with self._lock:
            self._catalogue.refresh()
            rows = self._catalogue.select(parse_query(text, self._catalogue.scores)).order
            if len(rows) != expected:
                msg = f"The filter holds {len(rows)} samples now, not {expected}. Look at them again, then decide."
                raise OutdatedError(msg)
            return self._decide([self.store.records[row].id for row in rows.tolist()], accepted)

    def undo(self) -> dict[str, Any]:
        """Take the last decision back, where nobody has decided otherwise since."""
        with self._lock:
            if not self._steps:
                return {"changed": 0, "skipped": 0, "ids": [], "states": {}, **self._summary()}
            before, made = self._steps.pop()
            self.store.refresh()
            wanted = {
                sample: was
                for sample, was in before.items()
                if sample in self._catalogue.rows and self.store.decisions.get(sample) == made
            }
            for value in (True, False, None):
                if group := [sample for sample, was in wanted.items() if was is value]:
                    self.store.decide(group, value)
            return self._answer(list(wanted), skipped=len(before) - len(wanted))

    def _decide(self, ids: list[str], accepted: bool | None) -> dict[str, Any]:
        drawn = [sample for sample in ids if self.find(sample).image_file]
        decided = self.store.decisions
        before = {sample: decided.get(sample) for sample in drawn if decided.get(sample) is not accepted}
        if before:
            self.store.decide(list(before), accepted)
            self._steps.append((before, accepted))
        return self._answer(drawn, changed=len(before), skipped=len(ids) - len(drawn))

    def _answer(self, ids: list[str], *, skipped: int, changed: int | None = None) -> dict[str, Any]:
        """Return what a page needs to show a change; the states of many samples it asks for itself."""
        self._catalogue.refresh()
        rows = self._catalogue.rows
        states = {sample: self._catalogue.describe_state(rows[sample]) for sample in ids[:_STATES] if sample in rows}
        changed = len(ids) if changed is None else changed
        return {"changed": changed, "skipped": skipped, "ids": ids[:_STATES], "states": states, **self._summary()}

    def _summary(self) -> dict[str, Any]:
        return {"counts": self._catalogue.count(), "costs": self._catalogue.costs(), "undoable": len(self._steps)}

"""The records of a store as columns, so that 20,000 of them are filtered, sorted and counted in milliseconds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_synth.store.cost import Cost, name_generator

if TYPE_CHECKING:
    from anomalib_synth.report.query import Query
    from anomalib_synth.store import Record, SampleStore

SCORES = ("quality", "visibility", "agreement", "foreground", "area", "strength")
_BINS = 40
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])", re.IGNORECASE)
_WIDE = 50


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The rows of a query.

    Args:
        order: Rows of the store that match the query, in its order.
        start: Position in ``order`` where the page begins.
        facets: For each group, the count of each name among the rows that match the rest of the query.
        histogram: Counts of a score among the rows that match the query without that score's own range.
    """

    order: np.ndarray
    start: int
    facets: dict[str, list[dict[str, Any]]]
    histogram: dict[str, Any]


class Catalogue:
    """Columns of a store's records, and what was decided about each.

    Args:
        store: An open store. :meth:`refresh` reads what was appended to it.
        price_per_hour: Price of an hour of the device that drew the samples, None if it is not known.
    """

    def __init__(self, store: SampleStore, *, price_per_hour: float | None = None) -> None:
        self.store = store
        self.price_per_hour = price_per_hour
        self._records: list[Record] = []
        self._length = -1
        self._read_columns()

    def refresh(self) -> None:
        """Read what was appended to the store since the last call; the store leaves out bad lines and names them."""
        self.store.refresh(strict=False)
        is_same = self.store.records is self._records and len(self.store.records) == self._length
        if not is_same or self.store.judgements is not self._judgements:
            self._read_columns()
        self.read_decisions()

    def read_decisions(self) -> None:
        """Read the store's decisions."""
        decided = self.store.decisions
        codes = {None: -1, False: 0, True: 1}
        self.decision = np.array([codes[decided.get(record.id)] for record in self._records], dtype=np.int8)
        self.kept = self.drawn & np.where(self.decision < 0, self._passed, self.decision == 1)

    def count(self) -> dict[str, int]:
        """Return how many samples there are, are kept, left out, accepted or rejected in the review, and undrawn."""
        return {
            "total": len(self._records),
            "kept": int(self.kept.sum()),
            "out": int((~self.kept).sum()),
            "accepted": int((self.decision == 1).sum()),
            "rejected": int((self.decision == 0).sum()),
            "undrawn": int((~self.drawn).sum()),
        }

    def costs(self) -> list[dict[str, Any]]:
        """Return what the samples of each generator cost; see :func:`anomalib_synth.store.measure_costs`."""
        names, codes = self._generators
        sums = [np.bincount(codes, weights, len(names)) for weights in (None, self.kept, self._seconds)]
        return [
            Cost(
                generator=name, samples=int(count), accepted=int(kept), device_seconds=float(seconds),
                price_per_hour=self.price_per_hour,
            ).to_dict()
            for name, count, kept, seconds in zip(names, *sums, strict=True)
        ]  # fmt: skip

    def select(self, query: Query) -> Selection:
        """Return the rows of a query."""
        masks = self._match(query)
        everything = np.ones(len(self._records), dtype=bool)
        matched = np.logical_and.reduce([everything, *masks.values()])
        order = self._sort(query)
        chosen = matched[order]
        facets = {}
        for group, (names, codes) in self.labels.items():
            others = np.logical_and.reduce([everything, *(mask for key, mask in masks.items() if key != group)])
            counts = np.bincount(codes[others], minlength=len(names)).tolist()
            facets[group] = [{"name": name, "count": count} for name, count in zip(names, counts, strict=True)]
        own = ("range", query.score)
        others = np.logical_and.reduce([everything, *(mask for key, mask in masks.items() if key != own)])
        return Selection(
            order=order[chosen],
            start=self._find_start(query, order, chosen),
            facets=facets,
            histogram=self._draw_histogram(query.score, others),
        )

    def describe(self, row: int) -> dict[str, Any]:
        """Return what a card shows of a sample, as plain data."""
        record = self._records[row]
        return {
            "id": record.id,
            "index": record.index,
            "family": _text(record.family),
            "caption": _text(record.caption),
            "reason": _text(self._reasons[row]),
            "source": _text(record.source),
            "split": _text(record.split),
            "drawn": bool(self.drawn[row]),
            "scores": {name: _finite(values[row]) for name, values in self.scores.items()},
            "version": self.store.versions.get(record.id, 0),
            **self.describe_state(row),
        }

    def describe_state(self, row: int) -> dict[str, Any]:
        """Return what was decided about a sample."""
        return {
            "decision": {-1: None, 0: False, 1: True}[int(self.decision[row])],
            "kept": bool(self.kept[row]),
        }

    def _read_columns(self) -> None:
        records = self.store.records
        self._records, self._length = records, len(records)
        self._judgements = self.store.judgements
        judgements = [self._judgements.get(record.id, {}) for record in records]
        self._reasons = [
            judgement.get("reason") or record.reason for judgement, record in zip(judgements, records, strict=True)
        ]
        self.rows = {record.id: row for row, record in enumerate(records)}
        self.drawn = np.array([record.image_file != "" for record in records], dtype=bool)
        self._passed = np.array(
            [
                record.accepted and not judgement.get("reason")
                for record, judgement in zip(records, judgements, strict=True)
            ],
            dtype=bool,
        )
        scores = [
            record.scores | {name: value for name, value in judgement.items() if name != "reason"}
            for record, judgement in zip(records, judgements, strict=True)
        ]
        extra = sorted({name for each in scores for name in each} - set(SCORES))
        columns: dict[str, list[Any]] = {name: [getattr(record, name) for record in records] for name in SCORES}
        columns |= {name: [each.get(name) for each in scores] for name in extra}
        self.scores: dict[str, np.ndarray] = {}
        for name, values in columns.items():
            column = np.array([_number(value) for value in values], dtype=float)
            self.scores[name] = np.where(self.drawn, column, np.nan)  # what was not drawn was not measured
        self.labels = {
            "family": _encode([_text(record.family) for record in records]),
            "reason": _encode([generalise(_text(reason)) for reason in self._reasons]),
            "split": _encode([_text(record.split) for record in records]),
        }
        self._generators = _encode([_text(name_generator(record.generator)) for record in records])
        self._seconds = np.array([_number(record.seconds) for record in records], dtype=float)
        self._index = np.array([record.index for record in records], dtype=np.int64)
        self._words = [
            _text(f"{record.caption}\n{record.source}\n{record.family}\n{record.id}").lower() for record in records
        ]
        self.read_decisions()

    def _match(self, query: Query) -> dict[Any, np.ndarray]:
        """Return which rows match each part of a query, without the parts that are empty."""
        masks: dict[Any, np.ndarray] = {}
        for group, wanted in (("family", query.families), ("reason", query.reasons), ("split", query.splits)):
            if wanted:
                names, codes = self.labels[group]
                masks[group] = np.isin(codes, [code for code, name in enumerate(names) if name in wanted])
        for name, low, high in query.ranges:
            inside = (self.scores[name] >= low) & (self.scores[name] <= high)
            masks["range", name] = masks.get(("range", name), True) & inside
        if query.decision != "any":
            masks["decision"] = {
                "kept": self.kept,
                "out": ~self.kept,
                "undecided": self.decision < 0,
                "accepted": self.decision == 1,
                "rejected": self.decision == 0,
            }[query.decision]
        if text := query.find.strip().lower():
            masks["find"] = np.array([text in words for words in self._words], dtype=bool)
        return masks

    def _sort(self, query: Query) -> np.ndarray:
        """Return all rows in order: rows without the score last, and equal rows by their index."""
        values = self._index.astype(float) if query.sort == "index" else self.scores[query.sort]
        return np.lexsort((self._index, -values if query.descending else values))

    def _find_start(self, query: Query, order: np.ndarray, chosen: np.ndarray) -> int:
        """Return where the page begins among the rows that match."""
        total = int(chosen.sum())
        neighbour = query.after or query.before
        if neighbour in self.rows:
            place = int(np.flatnonzero(order == self.rows[neighbour])[0])
            if query.after:
                return int(chosen[: place + 1].sum())
            return max(0, int(chosen[:place].sum()) - query.per_page)
        return min(query.offset, max(total - 1, 0) // query.per_page * query.per_page)

    def _draw_histogram(self, score: str, matched: np.ndarray) -> dict[str, Any]:
        """Count a score in equal steps or, if it spans several orders of magnitude, in equal steps of its logarithm."""
        every = self.scores[score]
        every = every[np.isfinite(every)]
        low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
        scale = "log" if low > 0 and high / low > _WIDE else "linear"
        if score in {"quality", "agreement", "foreground"} and low >= 0 and high <= 1:
            low, high, scale = 0.0, 1.0, "linear"
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges = np.geomspace(low, high, _BINS + 1) if scale == "log" else np.linspace(low, high, _BINS + 1)
        edges[0], edges[-1] = low, high
        shown = matched & np.isfinite(self.scores[score])
        kept, _ = np.histogram(self.scores[score][shown & self.kept], edges)
        out, _ = np.histogram(self.scores[score][shown & ~self.kept], edges)
        return {"score": score, "scale": scale, "edges": edges.tolist(), "kept": kept.tolist(), "out": out.tolist()}


def generalise(reason: str) -> str:
    """Return a reason without its numbers, so that equal reasons are one.

    Example:
        >>> generalise("visibility 0.52 below 1")
        'visibility … below …'
    """
    return _NUMBER.sub("…", reason)


def _encode(values: list[str]) -> tuple[list[str], np.ndarray]:
    """Return the names that occur, sorted, and for each value the position of its name."""
    names = sorted(set(values))
    code = {name: position for position, name in enumerate(names)}
    return names, np.array([code[value] for value in values], dtype=np.int64)


def _text(value: Any) -> str:
    """Return text that can be sent: a file name may hold bytes that are not text."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

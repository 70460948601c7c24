"""The query of a page of samples, parsed and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DECISIONS = {
    "any": "all",
    "kept": "kept for training",
    "out": "left out",
    "undecided": "not decided by a person",
    "accepted": "accepted by a person",
    "rejected": "rejected by a person",
}
MAX_PER_PAGE = 240
_SINGLE = ("sort", "order", "decision", "find", "score", "per_page", "offset", "after", "before")
_REPEATED = ("family", "reason", "split", "range")


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which samples, in which order, and which page of them.

    Args:
        sort: ``index`` or the name of a score.
        descending: Whether the largest come first.
        families: Families to show; empty shows all, also for the next two.
        reasons: Reasons of the generator's checks, with ``…`` for their numbers.
        splits: Roles of the source.
        decision: ``kept`` or ``out``: the outcome; ``accepted`` or ``rejected``: a person's decision; ``undecided``: no
            person has decided; ``any``: all samples.
        find: Text to look for in caption, source, family and id; case does not matter.
        ranges: (score, least, largest), both inclusive; a sample without the score is left out.
        score: The score of the histogram.
        per_page: Samples per page, in [1, 240].
        offset: How many samples come before the page.
        after: Id of the sample before the page, ``""`` for none. It takes precedence over ``offset``, and stays right
            while decisions change which samples match.
        before: Id of the sample after the page, "" for none.
    """

    sort: str = "index"
    descending: bool = False
    families: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    decision: str = "any"
    find: str = ""
    ranges: tuple[tuple[str, float, float], ...] = ()
    score: str = "quality"
    per_page: int = 60
    offset: int = 0
    after: str = ""
    before: str = ""


def parse_query(text: str, scores: Iterable[str]) -> Query:
    """Parse the query string of a URL.

    Args:
        text: The part after the question mark, such as ``family=scratch&range=quality:0.5:1``.
        scores: The names of the known scores.

    Raises:
        ValueError: If an argument is unknown, given twice, or out of range.

    Example:
        >>> parse_query("family=scratch&range=quality:0.5:", ["quality"]).ranges
        (('quality', 0.5, inf),)
    """
    scores = tuple(scores)
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=2000):
        given.setdefault(name, []).append(value)
    for name, values in given.items():
        if name not in (*_SINGLE, *_REPEATED):
            msg = f"`{name}` is no argument of a query. Use one of {', '.join((*_SINGLE, *_REPEATED))}."
            raise ValueError(msg)
        if name in _SINGLE and len(values) > 1:
            msg = f"`{name}` must be given once, got {values}. Remove all but one."
            raise ValueError(msg)
    single = {name: values[0] for name, values in given.items() if name in _SINGLE}
    return Query(
        sort=_choose(single, "sort", "index", ("index", *scores)),
        descending=_choose(single, "order", "asc", ("asc", "desc")) == "desc",
        families=tuple(given.get("family", ())),
        reasons=tuple(given.get("reason", ())),
        splits=tuple(given.get("split", ())),
        decision=_choose(single, "decision", "any", tuple(DECISIONS)),
        find=single.get("find", ""),
        ranges=tuple(_read_range(value, scores) for value in given.get("range", ())),
        score=_choose(single, "score", "quality", scores),
        per_page=_count(single, "per_page", 60, lambda value: 1 <= value <= MAX_PER_PAGE, f"in [1, {MAX_PER_PAGE}]"),
        offset=_count(single, "offset", 0, lambda value: value >= 0, ">= 0"),
        after=single.get("after", ""),
        before=single.get("before", ""),
    )


def _choose(single: dict[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    value = single.get(name, default)
    if value not in choices:
        msg = f"`{name}` must be one of {', '.join(choices)}, got {value!r}."
        raise ValueError(msg)
    return value


def _count(single: dict[str, str], name: str, default: int, is_right: Callable[[int], bool], rule: str) -> int:
    text = single.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and is_right(int(text))):
        msg = f"`{name}` must be a whole number {rule}, got {text!r}."
        raise ValueError(msg)
    return int(text)


def _read_range(text: str, scores: tuple[str, ...]) -> tuple[str, float, float]:
    parts = text.rsplit(":", 2)
    try:
        name, low, high = parts
        least = float(low) if low else -math.inf
        largest = float(high) if high else math.inf
    except ValueError as error:
        msg = f"`range` must be score:least:largest, got {text!r}. Leave a side empty for no limit."
        raise ValueError(msg) from error
    if name not in scores:
        msg = f"`range` must name one of {', '.join(scores)}, got {name!r}."
        raise ValueError(msg)
    if not least <= largest:
        msg = f"`range` must have least <= largest, got {text!r}."
        raise ValueError(msg)
    return name, least, largest

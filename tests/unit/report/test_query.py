"""Queries of the review page."""

from __future__ import annotations

import math

import pytest

from anomalib_synth.report.query import Query, parse_query

SCORES = ("quality", "area")


def test_nothing_asked_is_the_default() -> None:
    assert parse_query("", SCORES) == Query()


def test_everything_can_be_asked() -> None:
    text = (
        "sort=area&order=desc&family=scratch&family=dent&reason=r%26b&split=train&decision=out&find=a%20b"
        "&range=quality:0.25:&range=area::0.5&score=area&per_page=7&offset=14&after=x&before=y"
    )
    assert parse_query(text, SCORES) == Query(
        sort="area",
        descending=True,
        families=("scratch", "dent"),
        reasons=("r&b",),
        splits=("train",),
        decision="out",
        find="a b",
        ranges=(("quality", 0.25, math.inf), ("area", -math.inf, 0.5)),
        score="area",
        per_page=7,
        offset=14,
        after="x",
        before="y",
    )


@pytest.mark.parametrize(
    "text",
    [
        "colour=red",
        "sort=a&sort=b",
        "sort=strength",
        "order=up",
        "decision=maybe",
        "score=none",
        "per_page=0",
        "per_page=241",
        "per_page=1e3",
        "offset=-1",
        "offset=٣",
        "range=quality",
        "range=quality:a:b",
        "range=nothing:0:1",
        "range=quality:1:0",
        "range=quality:nan:1",
    ],
)
def test_a_wrong_query_names_its_argument(text) -> None:
    with pytest.raises(ValueError, match=f"`{text.split('=')[0]}`"):
        parse_query(text, SCORES)

"""Recall by family and strength, counted by hand."""

from __future__ import annotations

import math

import pytest

from anomalib_synth.calibration.recall import above, measure_recall, plain
from anomalib_synth.calibration.scoring import Row
from anomalib_synth.host.thresholds import Level

LEVEL = Level(threshold=0.5, low=0.0, high=1.0)


def draw(score: float = math.nan, **changes: object) -> Row:
    return Row(role="synthetic", path="", **{"family": "hole", "strength": 1.0, "score": score, **changes})


def test_only_defects_that_can_be_seen_count_when_recall_is_measured() -> None:
    rows = [
        draw(0.9, visibility=4.0, area=0.1, inside=0.9),
        draw(0.5, visibility=2.0, area=0.3, inside=0.5),  # at the threshold is below it
        draw(0.6, visibility=math.nan, area=0.2, inside=math.nan),
        draw(visible=False, visibility=99.0),
        draw(0.9, in_view=False, area=0.9),
        draw(0.1, strength=0.5),
        draw(0.2, family="burn"),
    ]
    hole, faint, burn = measure_recall(rows, LEVEL, LEVEL)
    assert [(each.family, each.strength) for each in (hole, faint, burn)] == [
        ("hole", 1.0), ("hole", 0.5), ("burn", 1.0)
    ]  # fmt: skip
    assert (hole.drawn, hole.out_of_view, hole.scores) == (5, 1, [0.9, 0.5, 0.6])
    assert (hole.found.count, hole.found.of) == (2, 3)
    assert (hole.located.count, hole.located.of) == (1, 2)
    assert (hole.visibility, hole.area) == (3.0, 0.2)
    assert math.isnan(faint.visibility)
    assert (faint.found.count, faint.found.of, faint.located.of) == (0, 1, 0)
    row = hole.to_dict()
    assert (row["drawn"], row["out_of_view"], row["visible"], row["found"]) == (5, 1, 3, 2)
    assert (row["recall"], row["located"], row["median_visibility"], row["median_area"]) == (0.666667, 0.5, 3.0, 0.2)
    assert (row["recall_low"], row["recall_high"]) == (plain(hole.found.low), plain(hole.found.high))
    assert faint.to_dict()["median_visibility"] is None


def test_nothing_is_located_when_there_is_no_threshold_of_maps() -> None:
    (found,) = measure_recall([draw(0.9, inside=0.9)], LEVEL, None)
    assert found.located is None
    assert found.to_dict()["located"] is None


def test_numbers_are_rounded_and_unknown_ones_are_none() -> None:
    assert plain(0.12345678) == pytest.approx(0.123457, abs=0)
    assert plain(math.nan) is None
    assert above([0.4, 0.6, 0.7], LEVEL).value == pytest.approx(2 / 3)

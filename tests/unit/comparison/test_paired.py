"""Paired differences and their intervals against hand-worked values and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import t as student

from anomalib_synth.comparison.paired import Estimate, bootstrap_mean, estimate_gain, estimate_mean, judge


def make_rows(values: dict[tuple[str, str, int], float | None]) -> list[dict]:
    return [{"arm": a, "data": d, "seed": s, "image_auroc": v} for (a, d, s), v in values.items()]


ROWS = make_rows(
    {
        ("base", "cap", 0): 50.0, ("base", "cap", 1): 60.0, ("base", "cap", 2): 70.0,
        ("base", "tile", 0): 90.0, ("base", "tile", 1): 80.0,
        ("ours", "cap", 0): 53.0, ("ours", "cap", 1): 61.0, ("ours", "cap", 2): 75.0,
        ("ours", "tile", 0): 89.0, ("ours", "tile", 1): 80.0, ("ours", "tile", 2): 99.0,
        ("ours", "lone", 0): 10.0,
    }
)  # fmt: skip


def test_gain_pairs_by_data_and_seed_and_weighs_data_alike_when_counts_differ() -> None:
    gain = estimate_gain(ROWS, "ours", "base", "image_auroc")
    assert gain.means == pytest.approx({"cap": (3 + 1 + 5) / 3, "tile": (-1 + 0) / 2})  # seed 2 of tile has no pair
    assert gain.counts == {"cap": 3, "tile": 2}
    assert gain.value == pytest.approx((3.0 - 0.5) / 2)


def test_mean_weighs_data_alike_when_counts_differ() -> None:
    mean = estimate_mean(ROWS, "base", "image_auroc")
    assert mean.value == pytest.approx((60.0 + 85.0) / 2)
    assert mean.counts == {"cap": 3, "tile": 2}


def test_missing_values_are_left_out_when_a_run_has_none() -> None:
    rows = [*ROWS, *make_rows({("base", "lone", 0): None})]
    assert estimate_gain(rows, "ours", "base", "image_auroc").counts == {"cap": 3, "tile": 2}
    assert math.isnan(estimate_gain(ROWS, "ours", "base", "pixel_ap").value)


def test_interval_equals_the_enumeration_when_strata_have_two_values() -> None:
    # Each round draws one value a stratum: 0 or 2, and 0 or 4, so rounds are 0, 1, 2 or 3, a quarter each.
    estimate = bootstrap_mean({"a": [0.0, 2.0], "b": [0.0, 4.0]})
    # Variances of the means 1 and 4: (1 + 4)^2 / (1 + 16) degrees of freedom of Student's t, over the normal quantile.
    stretch = student.ppf(0.975, 25 / 17) / 1.959964
    assert estimate.value == 1.5
    assert (estimate.low, estimate.high) == pytest.approx((1.5 - 1.5 * stretch, 1.5 + 1.5 * stretch), rel=1e-6)


def test_interval_equals_the_enumeration_when_one_stratum_has_two_values() -> None:
    estimate = bootstrap_mean({"a": [1.0, 3.0]})
    stretch = 12.706205 / 1.959964
    assert (estimate.low, estimate.high) == pytest.approx((2 - stretch, 2 + stretch), rel=1e-6)


def test_interval_equals_the_enumeration_when_each_round_draws_one_value_less() -> None:
    values = [0.0, 1.0, 2.0, 5.0]
    rounds = sorted(sum(drawn) / 3 for drawn in itertools.product(values, repeat=3))  # 64, all as likely
    low, high = rounds[1], rounds[62]  # of each end the first is 1.6 %, the next more than another 0.9 %
    assert (low, high) == (1 / 3, 4.0)
    stretch = student.ppf(0.975, 3) / 1.959964
    estimate = bootstrap_mean({"a": values})
    assert (estimate.low, estimate.high) == pytest.approx((2 - stretch * (2 - low), 2 + stretch * (high - 2)), rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_errors_are_unbiased_however_few_the_values(count) -> None:
    random = np.random.default_rng(7)
    values = random.normal(size=(40, count))  # many data sets: quantiles are those of a normal distribution
    estimate = bootstrap_mean(dict(enumerate(values)), draws=20_000)
    error = math.sqrt(sum(row.var(ddof=1) / count for row in values)) / 40
    assert estimate.below == pytest.approx(error, rel=0.03)
    assert estimate.above == pytest.approx(error, rel=0.03)


def test_interval_nears_students_when_values_are_many_and_normal() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, size=(2, 60))
    estimate = bootstrap_mean({"a": values[0], "b": values[1]})
    error = math.sqrt(values[0].var(ddof=1) / 60 + values[1].var(ddof=1) / 60) / 2
    assert estimate.half_width == pytest.approx(student.ppf(0.975, 118) * error, rel=0.05)


@pytest.mark.parametrize(("strata", "count"), [(1, 3), (3, 3), (4, 5)])
def test_interval_holds_the_truth_in_nine_of_ten_repetitions_when_seeds_are_few(strata, count) -> None:
    random = np.random.default_rng(3)
    hits = 0
    for repetition in range(400):
        values = random.normal(1.0, 2.0, size=(strata, count))
        estimate = bootstrap_mean(dict(enumerate(values)), draws=500, seed=repetition)
        hits += estimate.low <= 1.0 <= estimate.high
    assert hits / 400 >= 0.9


def test_interval_holds_the_truth_when_one_data_set_varies_alone() -> None:
    random = np.random.default_rng(4)
    spreads = np.array([5.0] + [0.1] * 14)[:, None]
    hits = 0
    for repetition in range(400):
        estimate = bootstrap_mean(dict(enumerate(spreads * random.normal(size=(15, 3)))), draws=500, seed=repetition)
        hits += estimate.low <= 0.0 <= estimate.high
    assert hits / 400 >= 0.89


def test_pairs_are_by_seed_when_rows_come_in_another_order() -> None:
    rows = make_rows({("b", "x", 0): 50.0, ("b", "x", 1): 90.0, ("o", "x", 1): 91.0, ("o", "x", 0): 51.5})
    gain = estimate_gain(rows, "o", "b", "image_auroc")
    assert gain.value == 1.25
    assert gain.low > -5  # pairs of other seeds would differ by forty


def test_interval_repeats_when_called_again() -> None:
    strata = {"a": [1.0, 4.0, 6.0], "b": [0.0, 1.0, 5.0]}
    assert bootstrap_mean(strata) == bootstrap_mean(strata)


def test_there_is_no_interval_when_a_stratum_has_one_value() -> None:
    estimate = bootstrap_mean({"a": [1.0, 2.0], "b": [3.0]})
    assert (estimate.value, estimate.known) == (2.25, False)
    verdict = judge(estimate, label="image AUROC")
    assert verdict.word == "cannot be told"
    assert "b has one" in verdict.sentence


@pytest.mark.parametrize(
    ("values", "higher_is_better", "word"),
    [
        ([2.0, 2.1, 1.9], True, "better"),
        ([-2.0, -2.1, -1.9], True, "worse"),
        ([2.0, 2.1, 1.9], False, "worse"),
        ([-2.0, -2.1, -1.9], False, "better"),
        ([5.0, -4.0, 1.0], True, "no evidence of benefit"),
        ([0.0, 0.0, 0.0], True, "no evidence of benefit"),
        ([3.0, 3.0, 3.0], True, "cannot be told"),  # no spread, so nothing to judge it by
        ([0.01, 0.011, 0.012], True, "no evidence of benefit"),  # would be shown as 0.0
    ],
)
def test_verdict_follows_the_interval(values, higher_is_better, word) -> None:
    verdict = judge(bootstrap_mean({"a": values}), label="image AUROC", higher_is_better=higher_is_better)
    assert verdict.word == word


def test_verdict_says_what_it_rests_on() -> None:
    verdict = judge(estimate_gain(ROWS, "ours", "base", "image_auroc"), label="image AUROC")
    assert verdict.word == "no evidence of benefit"
    assert "image AUROC +1.2 points" in verdict.sentence
    assert "5 pairs of runs with the same seed on 2 data sets, higher on 1 of 2" in verdict.sentence


def test_verdict_is_open_when_there_is_no_pair() -> None:
    assert judge(bootstrap_mean({}), label="image AUROC").word == "cannot be told"


def test_verdict_counts_the_data_sets_on_which_less_is_better() -> None:
    gain = bootstrap_mean({"a": [-2.0, -2.2], "b": [1.0, 1.1], "c": [0.0, 0.0], "d": [-1.0, -1.4]})
    said = judge(gain, label="false alarms", higher_is_better=False).sentence
    assert "8 pairs of runs with the same seed on 4 data sets, lower on 2 of 4" in said
    assert "higher on 1 of 4" in judge(gain, label="recall").sentence


def test_verdict_speaks_of_one_pair_when_there_is_one() -> None:
    verdict = judge(bootstrap_mean({"cap": [1.26]}), label="recall", unit="%")
    assert verdict.sentence.startswith(
        "recall +1.3 % from 1 pair of runs with the same seed on 1 data set, higher on 1"
    )
    assert "cap has one" in verdict.sentence


@pytest.mark.parametrize(("low", "high", "word"), [(0.02, 0.08, "better"), (0.02, 0.04, "no evidence of benefit")])
def test_difference_counts_from_what_would_be_shown(low, high, word) -> None:
    middle, spread = (low + high) / 2, (high - low) / 2 / student.ppf(0.975, 5)
    gain = Estimate(value=middle, counts={"a": 6}, means={"a": middle}, below=spread, above=spread, degrees=5)
    assert (gain.low, gain.high) == pytest.approx((low, high))
    assert judge(gain, label="recall").word == word
    assert gain.half_width == pytest.approx((high - low) / 2)


def test_level_widens_the_interval_by_students_quantile() -> None:
    estimate = bootstrap_mean({"a": [1.0, 2.0, 4.0], "b": [0.0, 3.0, 5.0]})
    narrow, wide = estimate.interval(0.95), estimate.interval(0.99)
    ratio = student.ppf(0.995, estimate.degrees) / student.ppf(0.975, estimate.degrees)
    for end, other in zip(narrow, wide, strict=True):
        assert other - estimate.value == pytest.approx(ratio * (end - estimate.value))


def test_degrees_of_freedom_are_those_of_the_data_set_that_varies_alone() -> None:
    lone = bootstrap_mean({"a": [0.0, 5.0, 9.0, 2.0], "b": [1.0, 1.0], "c": [2.0, 2.0, 2.0]})
    assert lone.degrees == pytest.approx(3)
    alike = bootstrap_mean({"a": [0.0, 1.0, 2.0], "b": [3.0, 4.0, 5.0]})
    assert alike.degrees == pytest.approx(4)
    assert bootstrap_mean({"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0]}).degrees == 3


@pytest.mark.parametrize(("below", "above", "p_value"), [(0.0, 1.0, 0.0), (math.inf, 0.0, 1.0)])
def test_p_value_is_that_of_the_side_towards_no_difference(below, above, p_value) -> None:
    gain = Estimate(value=2.0, counts={"a": 3}, means={"a": 2.0}, below=below, above=above, degrees=2)
    assert gain.p_value == p_value
    assert math.isnan(Estimate(value=2.0, counts={"a": 3}, means={"a": 2.0}, below=0.0, above=0.0, degrees=2).p_value)

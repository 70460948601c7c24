"""The statistics against hand-worked values and independent implementations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from anomalib_synth.calibration.statistics import (
    Proportion,
    compare_scores,
    conformal_threshold,
    correlation_within,
    design_effect,
    faintest_strength,
    least_count,
    likely_rate,
    monotone_fit,
    prediction_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # z^2 / (n + z^2) = 3.8415 / 13.8415
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),  # Agresti and Coull 1998: (0.5 +- sqrt(...)) by hand
        (1, 20, 0.0089, 0.2361),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),  # Newcombe 1998, table I
    ],
)
def test_wilson_interval_equals_published_values_when_worked_by_hand(count, of, low, high) -> None:
    assert wilson_interval(count, of) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(("count", "of"), [(0, 7), (3, 7), (7, 7), (40, 41)])
def test_wilson_interval_solves_its_equation_when_inserted(count, of) -> None:
    # The ends are where the distance to the observed share is z standard errors *of the end*.
    z, share = 1.959963984540054, count / of
    for end in wilson_interval(count, of):
        assert (share - end) ** 2 == pytest.approx(z * z * end * (1 - end) / of, abs=1e-12)


def test_wilson_interval_is_wider_when_more_is_asked_of_it() -> None:
    z, end = 2.5758293035489, wilson_interval(3, 7, level=0.99)[0]
    assert (3 / 7 - end) ** 2 == pytest.approx(z * z * end * (1 - end) / 7, abs=1e-12)


def test_wilson_interval_is_undefined_when_there_is_no_trial() -> None:
    assert all(math.isnan(end) for end in wilson_interval(0, 0))
    assert Proportion(0, 0).to_dict() == {"count": 0, "of": 0, "value": None, "low": None, "high": None}


@pytest.mark.parametrize(("count", "of"), [(-1, 3), (4, 3)])
def test_wilson_interval_refuses_when_counts_contradict(count, of) -> None:
    with pytest.raises(ValueError, match="`count` must satisfy"):
        wilson_interval(count, of)


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.1, 0.05, 0.01, 1 / 3, 1 / 7])
def test_conformal_threshold_keeps_the_rate_when_every_rank_is_as_likely(rate) -> None:
    # Of m + 1 exchangeable scores each is equally likely to be the new one, so the chance can be counted.
    least = least_count(rate)
    for count in range(least, least + 25):
        everything = list(range(count + 1))
        alarms = sum(
            everything[new] > conformal_threshold([*everything[:new], *everything[new + 1 :]], rate)
            for new in range(count + 1)
        )
        assert alarms <= rate * (count + 1) + 1e-9, count
        assert alarms + 1 > rate * (count + 1) - 1e-9, "a lower threshold would keep the rate too"


@pytest.mark.parametrize(("rate", "least"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1), (0.9, 1), (1 / 3, 2)])
def test_conformal_threshold_refuses_when_the_rate_cannot_be_resolved(rate, least) -> None:
    assert least_count(rate) == least
    assert conformal_threshold(range(least), rate) <= least - 1
    with pytest.raises(ValueError, match="at least"):
        conformal_threshold(range(least - 1), rate)


def test_conformal_threshold_does_not_depend_on_order() -> None:
    scores = np.random.default_rng(0).normal(size=40)
    assert conformal_threshold(scores, 0.1) == conformal_threshold(sorted(scores), 0.1)


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (60, 0.1), (99, 0.01)])
def test_one_threshold_in_twenty_is_above_the_likely_rate_when_normals_are_drawn_anew(count, rate) -> None:
    # Of uniform scores the rate of a threshold is what is above it.
    random = np.random.default_rng(0)
    rates = np.array([1 - conformal_threshold(random.random(count), rate) for _ in range(4000)])
    assert np.mean(rates > likely_rate(count, rate)) == pytest.approx(0.05, abs=0.012)
    assert np.mean(rates > likely_rate(count, rate, level=0.5)) == pytest.approx(0.5, abs=0.03)
    assert rates.mean() == pytest.approx(rate, rel=0.1)  # the marginal guarantee


def test_likely_rate_is_worked_by_hand_when_the_highest_score_is_the_threshold() -> None:
    # The highest of 19 uniform scores is below 1 - r with probability (1 - r)^19 = 0.05.
    assert likely_rate(19, 0.05) == pytest.approx(1 - 0.05 ** (1 / 19))


@pytest.mark.parametrize("seed", range(5))
def test_monotone_fit_equals_pooling_when_values_are_random(seed) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.random(9), rng.integers(1, 20, 9)
    assert monotone_fit(values, weights) == pytest.approx(_pool_adjacent(values, weights))


def _pool_adjacent(values, weights) -> list[float]:
    """Pool adjacent violators: the other algorithm for the same fit."""
    blocks: list[list[float]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m, i), (b, n, j) = blocks[-2:]
            blocks[-2:] = [[(a * m + b * n) / (m + n), m + n, i + j]]
    return [value for value, _, count in blocks for _ in range(count)]


def _recall(*shares: float, of: int = 20) -> list[Proportion]:
    return [Proportion(round(share * of), of) for share in shares]


def test_faintest_strength_is_interpolated_when_recall_passes_between() -> None:
    found = faintest_strength([0.1, 0.3, 0.5], _recall(0.0, 0.4, 1.0), 0.5)
    assert found.strength == pytest.approx(0.3 + 0.2 * (0.1 / 0.6))
    assert not found.at_most


def test_faintest_strength_is_never_when_recall_stays_below() -> None:
    found = faintest_strength([0.1, 1.0], _recall(0.0, 0.85), 0.9)
    assert (found.strength, str(found)) == (None, "never")


def test_faintest_strength_is_a_bound_when_the_first_is_found() -> None:
    found = faintest_strength([0.1, 1.0], _recall(0.95, 1.0), 0.9)
    assert (found.strength, found.at_most, str(found)) == (0.1, True, "≤ 0.10")


def test_faintest_strength_ignores_one_lucky_cell_when_stronger_ones_are_missed() -> None:
    # Fitted: 0.3, 0.3, 0.3, 1.0. The lucky 0.9 at strength 0.1 does not count as "90 % found from 0.1".
    found = faintest_strength([0.1, 0.2, 0.3, 0.4], _recall(0.9, 0.0, 0.0, 1.0), 0.9)
    assert found.strength == pytest.approx(0.3 + 0.1 * (0.6 / 0.7))


def test_faintest_strength_skips_cells_when_nothing_was_visible() -> None:
    found = faintest_strength([0.1, 0.2, 0.3], [Proportion(0, 0), Proportion(0, 5), Proportion(5, 5)], 0.5)
    assert found.strength == pytest.approx(0.25)
    assert faintest_strength([0.1], [Proportion(0, 0)], 0.5).strength is None


def test_comparison_equals_counting_all_orders_when_samples_are_small() -> None:
    first, second = [1.0, 4.0, 9.0], [2.0, 3.0, 5.0, 6.0]
    pooled = first + second

    def wins(chosen: tuple[int, ...]) -> float:
        rest = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        return sum(pooled[i] > other for i in chosen for other in rest)

    observed = wins((0, 1, 2))
    everything = [wins(chosen) for chosen in itertools.combinations(range(7), 3)]
    p_value = min(
        1.0, 2 * min(np.mean([w >= observed for w in everything]), np.mean([w <= observed for w in everything]))
    )
    outcome = compare_scores(first, second)
    assert outcome.superiority == pytest.approx(observed / 12)
    assert outcome.p_value == pytest.approx(p_value)
    assert outcome.counts == (3, 4)


def test_comparison_says_half_when_samples_are_equal() -> None:
    assert compare_scores([1.0, 2.0], [1.0, 2.0]).superiority == 0.5
    assert compare_scores([5.0] * 4, [1.0] * 9).superiority == 1.0


def test_proportion_is_plain_data_with_its_interval() -> None:
    found = Proportion(1, 20).to_dict()
    assert (found["count"], found["of"], found["value"]) == (1, 20, 0.05)
    assert (found["low"], found["high"]) == pytest.approx((0.0089, 0.2361), abs=6e-5)


def test_faintest_strength_is_the_tried_one_when_its_recall_is_just_enough() -> None:
    found = faintest_strength([0.1, 0.3, 0.5], _recall(0.2, 0.5, 1.0), 0.5)
    assert (found.strength, found.at_most, str(found)) == (pytest.approx(0.3), False, "0.30")
    assert faintest_strength([0.1, 0.3], _recall(0.2, 0.5), 0.5).strength == pytest.approx(0.3)
    assert faintest_strength([0.1, 0.3], _recall(0.5, 0.5), 0.5).at_most


def test_faintest_strength_counts_each_defect_once_when_cells_differ_in_number() -> None:
    # 0.8 of 10 and 0.2 of 30 are pooled: 14 of 40, so 0.35, and then 1.0.
    found = faintest_strength([0.1, 0.2, 0.3], [Proportion(8, 10), Proportion(6, 30), Proportion(10, 10)], 0.675)
    assert found.strength == pytest.approx(0.25)


@pytest.mark.parametrize("first", [[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]])
def test_comparison_is_two_sided_whichever_sample_is_higher(first) -> None:
    outcome = compare_scores(first, [4.0, 5.0, 6.0])
    assert outcome.superiority == (first[0] > 4)
    assert outcome.p_value == pytest.approx(0.1)  # 2 of the 20 orders


def test_interval_is_that_of_fewer_trials_when_scores_go_together() -> None:
    assert wilson_interval(4, 40, design=2.0) == pytest.approx(wilson_interval(2, 20))
    assert Proportion(4, 40, 2.0).high > Proportion(4, 40).high
    assert Proportion(4, 40, 2.0).to_dict()["design"] == 2.0


@pytest.mark.parametrize("sizes", [(5,) * 200, (2, 9) * 80])
def test_correlation_is_found_when_scores_have_as_much_of_their_group_as_of_their_own(sizes) -> None:
    random = np.random.default_rng(0)
    groups = [str(n) for n, size in enumerate(sizes) for _ in range(size)]
    shared = np.repeat(random.normal(size=len(sizes)), sizes)
    assert correlation_within(shared + random.normal(size=len(groups)), groups) == pytest.approx(0.5, abs=0.07)
    assert correlation_within(random.normal(size=len(groups)), groups) < 0.07
    assert correlation_within(shared, groups) == pytest.approx(1.0, abs=0.01)


def test_correlation_is_that_of_the_analysis_of_variance_when_groups_are_pairs() -> None:
    # Ranks 1, 2 | 3, 5 | 4, 6: between 2 * (4 + 0.25 + 2.25) / 2 = 6.5, within (0.5 + 2 + 2) / 3 = 1.5
    assert correlation_within([10, 20, 30, 50, 40, 60], list("aabbcc")) == pytest.approx((6.5 - 1.5) / (6.5 + 1.5))


@pytest.mark.parametrize("groups", ["abcd", "aaaa"])
def test_nothing_goes_together_when_groups_say_nothing(groups) -> None:
    assert correlation_within([1, 2, 3, 4], list(groups)) == 0.0


def test_design_effect_counts_groups_when_their_scores_are_the_same() -> None:
    assert design_effect(1.0, list("aaabbb")) == 3.0
    assert design_effect(1.0, list("aaaab")) == pytest.approx(17 / 5)
    assert design_effect(0.0, list("aaab")) == 1.0


def test_likely_rate_is_higher_when_normals_go_together() -> None:
    assert likely_rate(30, 0.05, design=2.0) > likely_rate(30, 0.05)
    assert likely_rate(30, 0.05, design=1.0) == likely_rate(30, 0.05)


@pytest.mark.parametrize(("count", "rate"), [(30, 0.05), (10, 0.1), (100, 0.01)])
def test_new_alarms_are_expected_when_images_are_independent(count, rate) -> None:
    random = np.random.default_rng(0)
    held, widths = [], []
    for _ in range(1500):
        threshold = conformal_threshold(random.random(count), rate)
        share = Proportion(int((random.random(count) > threshold).sum()), count)
        low, high = prediction_interval(share, 50)
        held.append(low <= random.binomial(50, 1 - threshold) <= high)
        widths.append((high - low) / 50)
    assert np.mean(held) >= 0.95
    assert np.mean(widths) < 0.45


def test_expected_alarms_are_beta_binomial_when_summed_by_hand() -> None:
    # 1 of 1 counted: the share is Beta(2, 1), P(new = x of 2) = 1/6, 1/3, 1/2; of none counted all are alike
    assert prediction_interval(Proportion(1, 1), 2, level=0.6) == (1, 2)
    assert prediction_interval(Proportion(1, 1), 2, level=0.7) == (0, 2)
    assert prediction_interval(Proportion(0, 0), 9, level=0.5) == (2, 7)


def test_more_alarms_may_come_when_fewer_images_tell_of_them() -> None:
    assert prediction_interval(Proportion(2, 30, design=3.0), 50)[1] > prediction_interval(Proportion(2, 30), 50)[1]

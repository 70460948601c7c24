"""Several arms against one baseline: Holm's procedure against hand-worked values, and what it guarantees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from anomalib_synth.comparison.multiple_comparisons import adjust_p_values, bonferroni_interval, correct, estimate_gains
from anomalib_synth.comparison.paired import bootstrap_mean, describe_interval, judge


def test_p_values_are_those_of_a_hand_worked_example() -> None:
    # 0.01 x 4, 0.013 x 3 (not below the one before: 0.04), 0.03 x 2, 0.045 x 1 (not below 0.06)
    families = adjust_p_values([0.03, 0.01, 0.045, 0.013])
    assert [family.p_value for family in families] == pytest.approx([0.06, 0.04, 0.06, 0.04])
    # Two differ, so the third is at 5 % / 2; it does not, which ends the procedure: 0.045 is at 5 % / 2 as well.
    assert [family.divisor for family in families] == [2, 4, 2, 3]
    assert {family.arms for family in families} == {4}


def test_last_arm_is_at_the_whole_level_when_all_others_differ() -> None:
    assert [family.divisor for family in adjust_p_values([0.04, 0.001, 0.002])] == [1, 3, 2]


def test_all_arms_are_at_the_strictest_level_when_the_first_does_not_differ() -> None:
    families = adjust_p_values([0.2, 0.02, 0.9])
    assert [family.divisor for family in families] == [3, 3, 3]
    assert [family.p_value for family in families] == pytest.approx([0.4, 0.06, 0.9])


def test_arm_without_interval_counts_and_never_differs() -> None:
    families = adjust_p_values([math.nan, 0.02])
    assert [family.divisor for family in families] == [2, 2]
    assert math.isnan(families[0].p_value)
    assert families[1].p_value == pytest.approx(0.04)


def test_p_value_is_the_level_at_which_the_interval_reaches_zero() -> None:
    for sign in (1, -1):
        estimate = bootstrap_mean({"a": [sign * 1.0, sign * 3.0, sign * 2.5], "b": [0.0, sign * 1.0, sign * 4.0]})
        ends = estimate.interval(1 - estimate.p_value)
        assert min(abs(end) for end in ends) == pytest.approx(0, abs=1e-9)


def test_p_value_is_students_when_values_are_two() -> None:
    # One value of two each round: the 2.5 % quantile is the smaller one, so the error below is 1 / 1.959964.
    estimate = bootstrap_mean({"a": [1.0, 3.0]})
    assert estimate.p_value == pytest.approx(2 * student.sf(2 * 1.959964, 1), rel=1e-6)


def test_p_value_is_unknown_when_seeds_change_nothing_or_there_is_one() -> None:
    assert math.isnan(bootstrap_mean({"a": [2.0, 2.0]}).p_value)
    assert math.isnan(bootstrap_mean({"a": [2.0]}).p_value)


def make_rows(gains: dict[str, list[float]]) -> list[dict]:
    count = len(next(iter(gains.values())))
    rows = [{"arm": "base", "data": "x", "seed": seed, "image_auroc": 50.0} for seed in range(count)]
    return rows + [
        {"arm": arm, "data": "x", "seed": seed, "image_auroc": 50.0 + gain}
        for arm, listed in gains.items()
        for seed, gain in enumerate(listed)
    ]


CLEAR = [2.0, 2.4, 1.6, 2.1]  # alone, p is about 0.001
BORDERLINE = [1.0, 2.6, 1.2, 0.4]  # alone, p is about 0.04


def verdicts(gains: dict[str, list[float]]) -> dict[str, str]:
    found = estimate_gains(make_rows(gains), [(arm, "base") for arm in gains], "image_auroc")
    return {arm: judge(gain, label="image AUROC").word for (arm, _), gain in found.items()}


def test_verdict_needs_more_when_more_arms_are_compared() -> None:
    nothing = {f"none {i}": [1.0, -1.0, 0.5, -0.4] for i in range(3)}
    assert verdicts({"one": BORDERLINE}) == {"one": "better"}
    assert verdicts({"one": BORDERLINE, **nothing})["one"] == "no evidence of benefit"
    assert verdicts({"one": CLEAR, **nothing})["one"] == "better"


def test_verdict_of_the_last_arm_is_as_if_alone_when_all_others_differ() -> None:
    assert verdicts({"clear": CLEAR, "one": BORDERLINE}) == {"clear": "better", "one": "better"}


def test_arm_that_has_not_run_counts_as_one_of_the_family() -> None:
    rows = make_rows({"one": BORDERLINE})
    gains = estimate_gains(rows, [("one", "base"), ("later", "base")], "image_auroc")
    assert judge(gains["one", "base"], label="image AUROC").word == "no evidence of benefit"
    assert judge(gains["later", "base"], label="image AUROC").word == "cannot be told"


def test_interval_leaves_out_zero_just_where_the_corrected_verdict_does() -> None:
    random = np.random.default_rng(5)
    seen = set()
    for _ in range(60):
        truths = random.choice([0.0, 1.0, 3.0], size=5)
        gains = correct([bootstrap_mean({"a": random.normal(truth, 1, 5)}, draws=500) for truth in truths])
        for gain in gains:
            differs = gain.family.p_value <= 0.05
            assert differs == (not gain.low <= 0 <= gain.high)
            seen.add((differs, gain.family.divisor))
    assert len(seen) >= 8  # arms that differ and arms that do not, at several steps


def test_bonferroni_interval_is_as_wide_as_the_first_step_for_every_arm() -> None:
    gains = correct([bootstrap_mean({"a": values}) for values in (CLEAR, BORDERLINE, [1.0, -1.0, 0.5, -0.4])])
    assert [gain.family.divisor for gain in gains] == [3, 2, 2]
    first, second, third = (bonferroni_interval(gain) for gain in gains)
    assert first == (gains[0].low, gains[0].high)
    for gain, (low, high) in zip(gains[1:], (second, third), strict=True):
        assert low < gain.low
        assert high > gain.high
        assert (low, high) == gain.interval(1 - 0.05 / 3)


def test_an_arm_without_effect_is_rarely_said_to_differ_when_there_are_eight() -> None:
    random = np.random.default_rng(6)
    corrected = alone = 0
    for _ in range(250):
        baseline = random.normal(size=(3, 5))  # shared, so the differences depend on each other
        estimates = [
            bootstrap_mean(dict(enumerate(random.normal(size=(3, 5)) - baseline)), draws=300) for _ in range(8)
        ]
        alone += any(not each.low <= 0 <= each.high for each in estimates)
        corrected += any(not each.low <= 0 <= each.high for each in correct(estimates))
    assert corrected / 250 <= 0.06
    assert alone / 250 >= 0.12


def test_interval_says_what_it_is_corrected_for() -> None:
    gains = correct([bootstrap_mean({"a": values}) for values in (CLEAR, BORDERLINE)])
    assert describe_interval(gains[1]).endswith("(95 % over 2 arms, by Holm, adjusted p 0.036)")
    assert "Holm" not in describe_interval(bootstrap_mean({"a": CLEAR}))
    assert describe_interval(bootstrap_mean({"a": [1.0]})) == "no interval from one seed"
    assert describe_interval(bootstrap_mean({"a": CLEAR})).startswith("95 % interval")

"""Several arms against one baseline: verdicts and intervals that are corrected for the number of arms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from anomalib_synth.comparison.paired import LEVEL, ComparisonFamily, Estimate, estimate_gain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Pair = tuple[str, str]


def estimate_gains(rows: Sequence[Mapping[str, Any]], pairs: Sequence[Pair], metric: str) -> dict[Pair, Estimate]:
    """Return the gain of each arm over its baseline, with intervals corrected for the number of arms.

    The pairs are one family. Holm's procedure (Scandinavian Journal of Statistics 6, 1979) goes through the m p-values
    from the smallest on: the first is compared with 5 % / m, the second with 5 % / (m - 1), and so on. An arm differs
    if its p-value is at most that; the first arm that does not differ ends the procedure. However the arms depend on
    each other, the chance that any arm without effect is said to differ is at most 5 %, as far as the single p-values
    hold (:func:`~anomalib_synth.comparison.paired.bootstrap_mean`). An arm without an interval is never said to differ,
    but counts as one of the m, so that an unfinished table is judged as strictly as the finished one.

    The interval of an arm has the level 1 - 5 % / k, where k is the number that 5 % was divided by for this arm; the
    arms after the end take the k at the end. So an interval leaves out 0 exactly where Holm's procedure says that the
    arm differs, and at 95 % the intervals together are right about which arms differ from 0. For all of them to hold
    their true values at the same time, every one needs 1 - 5 % / m (Bonferroni, :func:`bonferroni_interval`), which is
    wider.

    Args:
        rows: The rows, one per run.
        pairs: Arm and baseline of each comparison that is planned.
        metric: Name of the metric.
    """
    pairs = list(dict.fromkeys(pairs))
    alone = [estimate_gain(rows, arm, baseline, metric) for arm, baseline in pairs]
    return dict(zip(pairs, correct(alone), strict=True))


def correct(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Return estimates as one family, by Holm's procedure, see :func:`estimate_gains`."""
    families = adjust_p_values([estimate.p_value for estimate in estimates])
    return [replace(estimate, family=family) for estimate, family in zip(estimates, families, strict=True)]


def adjust_p_values(p_values: Sequence[float]) -> list[ComparisonFamily]:
    """Return for each p-value the number that Holm's procedure divides 5 % by, and the adjusted p-value.

    Args:
        p_values: One p-value per arm; NaN for an arm that cannot be tested.

    Example:
        >>> [(each.divisor, round(each.p_value, 3)) for each in adjust_p_values([0.04, 0.001, 0.03])]
        [(2, 0.06), (3, 0.003), (2, 0.06)]
    """
    count = len(p_values)
    families = [ComparisonFamily(arms=count, divisor=max(count, 1)) for _ in p_values]
    order = sorted((i for i in range(count) if not math.isnan(p_values[i])), key=lambda i: p_values[i])
    adjusted, divisor = 0.0, count
    for rank, i in enumerate(order):
        if rank and adjusted <= 1 - LEVEL:  # the arm before this one differs
            divisor = count - rank
        adjusted = max(adjusted, min(1.0, (count - rank) * p_values[i]))
        families[i] = ComparisonFamily(arms=count, divisor=divisor, p_value=adjusted)
    return families


def bonferroni_interval(estimate: Estimate) -> tuple[float, float]:
    """Return the interval of one of m estimates at the level 1 - 5 % / m: at 95 %, all m hold their true values."""
    return estimate.interval(1 - (1 - LEVEL) / estimate.family.arms)

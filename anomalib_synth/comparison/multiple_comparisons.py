"""Several arms against one baseline: verdicts and intervals that allow for how many there are."""

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
    from the smallest on, and an arm differs while its p-value is at most 5 % / m, then 5 % / (m - 1), and so on; the
    first that is larger ends it. Whatever the arms share, the chance that any arm without effect is said to differ is
    at most 5 %, as far as the single p-values hold (:func:`~anomalib_synth.comparison.paired.bootstrap_mean`). An arm
    without an interval is never said to differ, but counts as one of the m: a table that is not complete is judged as
    the complete one will be.

    The interval of an arm is at 1 - 5 % / k, k what 5 % was divided by for it (for the arms behind the end, what it was
    divided by there). So it leaves out 0 just where Holm's procedure says that the arm differs. This is what all
    intervals tell together, at 95 %: which arms differ from 0. That each holds its true value at the same time would
    take 1 - 5 % / m for all of them (Bonferroni), see :func:`bonferroni_interval`; Holm's are narrower.

    Args:
        rows: The rows, one a run.
        pairs: Arm and baseline of each comparison; all that are planned.
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
    """Return what Holm's procedure divides 5 % by for each p-value, and the adjusted p-values.

    Args:
        p_values: A p-value an arm; NaN for an arm that cannot be tested.

    Example:
        >>> [(each.divisor, round(each.p_value, 3)) for each in adjust_p_values([0.04, 0.001, 0.03])]
        [(2, 0.06), (3, 0.003), (2, 0.06)]
    """
    count = len(p_values)
    families = [ComparisonFamily(arms=count, divisor=max(count, 1)) for _ in p_values]
    order = sorted((i for i in range(count) if not math.isnan(p_values[i])), key=lambda i: p_values[i])
    adjusted, divisor = 0.0, count
    for rank, i in enumerate(order):
        if rank and adjusted <= 1 - LEVEL:  # the one before differs
            divisor = count - rank
        adjusted = max(adjusted, min(1.0, (count - rank) * p_values[i]))
        families[i] = ComparisonFamily(arms=count, divisor=divisor, p_value=adjusted)
    return families


def bonferroni_interval(estimate: Estimate) -> tuple[float, float]:
    """Return the interval at 1 - 5 % / m of one of m estimates: at 95 % all m hold their true values at once."""
    return estimate.interval(1 - (1 - LEVEL) / estimate.family.arms)

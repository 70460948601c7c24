"""Means and paired differences with intervals, and the verdicts that they allow.

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
LEVEL = 0.95  # confidence level of a family of comparisons
_SHOWN = 0.05  # a smaller difference is shown as 0.0


@dataclass(frozen=True, kw_only=True)
class ComparisonFamily:
    """The comparisons that an estimate is judged together with.

    See :func:`~anomalib_synth.comparison.multiple_comparisons.estimate_gains`.

    Args:
        arms: Number of arms that are compared with the same baseline on the same metric; 1 for a single comparison.
        divisor: The number that Holm's procedure divides 5 % by for this arm, 1 <= divisor <= arms.
        p_value: Holm's adjusted p-value; NaN where there is nothing to test.
    """

    arms: int = 1
    divisor: int = 1
    p_value: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its interval.

    Args:
        value: The mean over data sets of the means over seeds; NaN without runs.
        counts: Number of runs, or of pairs, by data set.
        means: Mean by data set.
        below: Standard error downwards: the distance of the bootstrap's 2.5 % quantile from the mean, divided by that
            of the standard normal distribution (1.96); NaN where a data set has a single run.
        above: Standard error upwards: the same of the 97.5 % quantile.
        degrees: Degrees of freedom of Student's t, > 0.
        family: The comparisons it is judged together with; by default itself alone.
    """

    value: float
    counts: dict[str, int]
    means: dict[str, float]
    below: float = math.nan
    above: float = math.nan
    degrees: float = math.nan
    family: ComparisonFamily = ComparisonFamily()

    @property
    def low(self) -> float:
        """Lower end of the interval at 95 %, or at the level that its family asks for; NaN without an interval."""
        return self.interval(1 - (1 - LEVEL) / self.family.divisor)[0]

    @property
    def high(self) -> float:
        """Upper end, likewise."""
        return self.interval(1 - (1 - LEVEL) / self.family.divisor)[1]

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.below)

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference, for this estimate alone: 1 - the level at which the interval reaches 0.

        NaN where there is no interval, or it has no width.
        """
        if not self.known or self.below == self.above == 0:
            return math.nan
        error = self.below if self.value > 0 else self.above
        return 2 * float(t.sf(abs(self.value) / error, self.degrees)) if error else 0.0

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval at a confidence level in (0, 1), for this estimate alone; (NaN, NaN) without one."""
        if not self.known:
            return math.nan, math.nan
        stretch = float(t.ppf((1 + level) / 2, self.degrees))
        return self.value - stretch * self.below, self.value + stretch * self.above


def bootstrap_mean(strata: Mapping[str, Sequence[float]], *, draws: int = _DRAWS, seed: int = 0) -> Estimate:
    """Return the mean over strata of their means, with a stratified bootstrap interval.

    In each of ``draws`` rounds every stratum of n values gives the mean of n - 1 values drawn from it with replacement,
    and the round's value is the mean of these. Drawing n - 1, not n, makes the variance over the rounds unbiased
    however small n is (Rao and Wu, JASA 1988). The quantiles of the rounds at 95 % are then stretched away from the
    mean by t/z, the quantile of Student's t over the normal one, because three seeds tell little about their spread;
    the degrees of freedom are Welch and Satterthwaite's, as one data set may vary far more than the others. For a
    higher level, as several arms need it, the same quantiles are stretched by the t of that level, because the rounds
    of a few values have no tails to read a quantile from.

    In simulations with normal values and three seeds (1 to 15 strata, all of equal spread or only one that varies)
    the interval at 95 % held the true mean in 92 to 96 % of repetitions, the plain percentile bootstrap in 75 to 89 %.
    At 99.5 % it missed the true mean in 0.2 to 0.8 % of repetitions, and in 1.3 % where only one of 15 strata varied.

    Args:
        strata: Values by stratum: those of a data set, one a seed.
        draws: Number of rounds.
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
        return Estimate(value=math.nan, counts={}, means={})
    mean = float(np.mean(list(means.values())))
    if min(counts.values()) < 2:
        return Estimate(value=mean, counts=counts, means=means)
    random = np.random.default_rng(seed)
    rounds = np.mean([_resample(listed, draws, random) for listed in values.values()], axis=0)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(rounds, [tail, 1 - tail]).tolist()
    normal = float(norm.ppf(1 - tail))
    return Estimate(
        value=mean, counts=counts, means=means, below=(mean - low) / normal, above=(high - mean) / normal,
        degrees=_degrees_of_freedom(list(values.values())),
    )  # fmt: skip


def _degrees_of_freedom(strata: Sequence[np.ndarray]) -> float:
    """Return the degrees of freedom of a sum of independent means, by Welch (1947) and Satterthwaite (1946)."""
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

    A run without its counterpart is left out. The interval is that of :func:`bootstrap_mean` over the differences, for
    this arm alone: where several arms are compared, use
    :func:`~anomalib_synth.comparison.multiple_comparisons.estimate_gains`.
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
    """The verdict on an arm.

    Args:
        word: The verdict in a word or two.
        sentence: The numbers it rests on.
    """

    word: Word
    sentence: str


def judge(gain: Estimate, *, label: str, unit: str = "points", higher_is_better: bool = True) -> Verdict:
    """Return the verdict on a difference from the baseline.

    "better" or "worse" when the interval leaves out 0; "no evidence of benefit" when it holds 0, or the difference is
    too small to show; "cannot be told" when there is no interval, or it has no width because the seeds change nothing.
    The interval of an estimate in a family is corrected by Holm's procedure, and so is its verdict.

    Args:
        gain: The difference, in the unit that is shown.
        label: Name of the metric.
        unit: Unit of the difference.
        higher_is_better: Whether a larger value of the metric is better.

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
    interval = f"{label} {gain.value:+.1f} {unit}, {describe_interval(gain)}, from {basis}."
    if gain.low == gain.high != 0:
        return Verdict(word="cannot be told", sentence=f"{interval} The seeds change nothing, so they show no spread.")
    if max(abs(gain.low), abs(gain.high)) < _SHOWN:
        return Verdict(word="no evidence of benefit", sentence=f"{interval} The difference is too small to show.")
    if gain.low <= 0 <= gain.high:
        return Verdict(word="no evidence of benefit", sentence=f"{interval} The interval holds 0.")
    good = (gain.value > 0) == higher_is_better
    return Verdict(word="better" if good else "worse", sentence=f"{interval} The interval leaves out 0.")


def describe_interval(gain: Estimate) -> str:
    """Return an interval in words, with the number of arms it is corrected for.

    Example:
        >>> describe_interval(bootstrap_mean({"a": [1.0, 2.0, 3.0], "b": [4.0, 4.0, 4.0]}))
        '95 % interval +1.9 to +4.1'
    """
    if not gain.known:
        return "no interval from one seed"
    ends, family = f"interval {gain.low:+.1f} to {gain.high:+.1f}", gain.family
    if family.arms == 1:
        return f"95 % {ends}"
    tested = "" if math.isnan(family.p_value) else f", adjusted p {_show_p(family.p_value)}"
    return f"{ends} (95 % over {family.arms} arms, by Holm{tested})"


def _show_p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.2g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

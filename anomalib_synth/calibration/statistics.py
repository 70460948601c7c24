"""The statistics of a calibration: plain functions of numbers.

A score is called an alarm when it is greater than the threshold, as anomalib's post-processor does it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Proportion:
    """A share of a count with its 95 % Wilson interval; ``value``, ``low`` and ``high`` are NaN when ``of`` is 0.

    Args:
        count: How many.
        of: Of how many.
        design: How many of them tell as much as one independent one, see :func:`design_effect`.
    """

    count: int
    of: int
    design: float = 1.0

    @property
    def value(self) -> float:
        """The share."""
        return self.count / self.of if self.of else math.nan

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return wilson_interval(self.count, self.of, design=self.design)[0]

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return wilson_interval(self.count, self.of, design=self.design)[1]

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain data; what is not defined is None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        known = {name: None if math.isnan(number) else number for name, number in numbers.items()}
        design = {"design": round(self.design, 3)} if self.design > 1 else {}
        return {"count": self.count, "of": self.of, **known, **design}


def wilson_interval(count: int, of: int, *, level: float = 0.95, design: float = 1.0) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    Wilson (1927). Unlike ``p ± z·sqrt(p(1 - p)/n)`` it stays in [0, 1] and is not of zero width for 0 or all of ``of``.

    Args:
        count: Number of successes, 0 <= count <= of.
        of: Number of trials; 0 gives (NaN, NaN).
        level: Share of repetitions in which it should hold the true share, in (0, 1).
        design: Design effect, >= 1: the interval is that of ``of / design`` trials with the same share.

    Example:
        >>> [round(end, 4) for end in wilson_interval(1, 20)]
        [0.0089, 0.2361]
        >>> [round(end, 4) for end in wilson_interval(2, 40, design=2.0)]
        [0.0089, 0.2361]
    """
    if not 0 <= count <= of:
        msg = f"`count` must satisfy 0 <= count <= of, got {count} of {of}."
        raise ValueError(msg)
    return _wilson(count / of, of / design, level) if of else (math.nan, math.nan)


@cache
def _wilson(share: float, of: float, level: float) -> tuple[float, float]:
    from scipy.stats import norm  # whose binomtest takes whole numbers of trials only

    z = float(norm.ppf(0.5 + level / 2))
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (0.0 if share == 0 else max(0.0, middle - half)), (1.0 if share == 1 else min(1.0, middle + half))


def correlation_within(scores: Sequence[float], groups: Sequence[str]) -> float:
    """Return how far the scores of a group go together: the intraclass correlation of their ranks, in [0, 1].

    By analysis of variance, for groups of any sizes (Donner, International Statistical Review 1986). Of groups of one
    image each nothing is known: 0.

    Args:
        scores: Of images.
        groups: Which group each belongs to.

    Example:
        >>> correlation_within([1, 2, 3, 11, 12, 13], list("aaabbb")) > 0.8
        True
    """
    import numpy as np
    from scipy.stats import rankdata

    _, place, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    count, many = len(scores), len(sizes)
    if many in {1, count}:
        return 0.0
    ranks = rankdata(scores)
    means = np.bincount(place, ranks) / sizes
    between = float((sizes * (means - ranks.mean()) ** 2).sum()) / (many - 1)
    within = float(((ranks - means[place]) ** 2).sum()) / (count - many)
    usual = (count - float((sizes**2).sum()) / count) / (many - 1)
    spread = between + (usual - 1) * within
    return min(1.0, max(0.0, (between - within) / spread)) if spread > 0 else 0.0


def design_effect(correlation: float, groups: Sequence[str]) -> float:
    """Return how many images of such groups tell as much as one independent image: 1 + (m - 1) r (Kish 1965).

    Args:
        correlation: r, see :func:`correlation_within`.
        groups: Which group each image belongs to; m is the size of the group of an image, in the mean over images.

    Example:
        >>> design_effect(0.5, list("aaabbb")), design_effect(0.5, list("abcdef"))
        (2.0, 1.0)
    """
    sizes = Counter(groups).values()
    return 1 + (sum(size * size for size in sizes) / max(1, sum(sizes)) - 1) * correlation


def prediction_interval(share: Proportion, new: int, *, level: float = 0.95) -> tuple[int, int]:
    """Return how many of so many new ones it may be, from a share that was counted.

    An interval for a share in the long run is too narrow for the share among few new images, which has noise of its
    own: of 50 new images it holds 86 % of the time, not 95 (`benchmarks/false_alarm_interval.py --simulate`). The new
    count is beta-binomial, with a uniform prior of the share (Geisser, Predictive Inference, 1993).

    Args:
        share: What was counted.
        new: How many new ones.
        level: How often the count is within, at the least, in (0, 1).

    Example:
        >>> prediction_interval(Proportion(0, 30), 50), prediction_interval(Proportion(0, 30, design=2.0), 50)
        ((0, 7), (0, 11))
    """
    from scipy.stats import betabinom

    found, others = share.count / share.design + 1, (share.of - share.count) / share.design + 1
    low, high = betabinom.ppf([(1 - level) / 2, (1 + level) / 2], new, found, others)
    return int(low), int(high)


def least_count(rate: float) -> int:
    """Return how many normals a threshold for a false-alarm rate in (0, 1) needs: the least m with 1/(m + 1) <= rate.

    Example:
        >>> least_count(0.05), least_count(0.01)
        (19, 99)
    """
    return max(1, math.ceil(1 / rate - 1e-9) - 1)


def conformal_threshold(scores: Sequence[float], rate: float) -> float:
    """Return the threshold that normals exceed with a probability of at most ``rate``.

    The k-th smallest of m scores with k = ceil((m + 1)(1 - rate)): the split-conformal quantile (Vovk et al. 2005). For
    a new normal that is exchangeable with these, P(score > threshold) <= rate, whatever the distribution; the usual
    empirical quantile exceeds the rate for small m. The guarantee is marginal: the probability is over these scores and
    the new one together, not given these, see :func:`likely_rate`.

    Args:
        scores: Scores of normals the model has not seen.
        rate: Target false-alarm rate in (0, 1).

    Raises:
        ValueError: If there are too few scores for the rate.

    Example:
        >>> conformal_threshold(range(1, 20), 0.1)
        18.0
    """
    if len(scores) < least_count(rate):
        msg = f"`scores` must hold at least {least_count(rate)} values for a rate of {rate:g}, got {len(scores)}."
        raise ValueError(msg)
    return float(sorted(scores)[_conformal_rank(len(scores), rate) - 1])


def _conformal_rank(count: int, rate: float) -> int:
    return max(math.ceil((count + 1) * (1 - rate) - 1e-9), 1)


def likely_rate(count: int, rate: float, *, level: float = 0.95, design: float = 1.0) -> float:
    """Return the false-alarm rate that a share of all conformal thresholds stays below.

    A threshold set by m normals has a rate of its own, which varies with the normals: if scores do not tie, it follows
    the distribution Beta(m + 1 - k, k), k the rank of the threshold (Vovk, ACML 2012). Its mean is at most ``rate``;
    this is its quantile.

    Args:
        count: Number of normals that set the threshold, at least :func:`least_count`.
        rate: Target false-alarm rate in (0, 1).
        level: The share of thresholds, in (0, 1).
        design: Design effect of the normals, >= 1: they vary like so many times fewer.

    Example:
        >>> round(likely_rate(19, 0.05), 3), round(likely_rate(1000, 0.05), 3)
        (0.146, 0.062)
    """
    from scipy.stats import beta

    rank = _conformal_rank(count, rate)
    return float(beta.ppf(level, (count + 1 - rank) / design, rank / design))


def monotone_fit(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the non-decreasing sequence nearest to ``values`` by weighted squares (isotonic regression).

    Example:
        >>> monotone_fit([0.0, 0.6, 0.4, 1.0], [1, 1, 1, 1])
        [0.0, 0.5, 0.5, 1.0]
    """
    from sklearn.isotonic import isotonic_regression

    fitted: list[float] = isotonic_regression(values, sample_weight=weights).tolist()
    return fitted


@dataclass(frozen=True)
class Faintest:
    """The faintest strength at which defects are found often enough.

    Args:
        strength: The strength, None if none of those that were tried is enough.
        at_most: True if the faintest strength that was tried is already enough, so that the true value may be lower.
    """

    strength: float | None
    at_most: bool = False

    def __str__(self) -> str:
        """Return it as a table shows it."""
        return "never" if self.strength is None else f"{'≤ ' if self.at_most else ''}{self.strength:.2f}"


def faintest_strength(strengths: Sequence[float], found: Sequence[Proportion], level: float) -> Faintest:
    """Return the faintest strength whose recall reaches a level, interpolated linearly.

    Recall is first made non-decreasing in strength (:func:`monotone_fit`, weighted by the counts), so that one lucky
    faint set, or one unlucky strong one, does not decide. Strengths of which no defect was visible are left out.

    Args:
        strengths: Increasing strengths.
        found: Recall at each.
        level: Recall to reach, in (0, 1].
    """
    known = [(strength, share) for strength, share in zip(strengths, found, strict=True) if share.of]
    if not known:
        return Faintest(None)
    fitted = monotone_fit([share.value for _, share in known], [share.of for _, share in known])
    reached = next((i for i, recall in enumerate(fitted) if recall >= level - 1e-12), None)
    if reached is None:
        return Faintest(None)
    if reached == 0:
        return Faintest(known[0][0], at_most=True)
    below, above = fitted[reached - 1], fitted[reached]
    left, right = known[reached - 1][0], known[reached][0]
    return Faintest(left + (right - left) * min(1.0, (level - below) / (above - below)))


@dataclass(frozen=True)
class Comparison:
    """A comparison of two samples of scores.

    Args:
        superiority: Share of the pairs in which the first is higher, ties counted as half: 0.5 means alike, 0 or 1
            disjoint.
        p_value: Two-sided Mann-Whitney p-value.
        counts: Sizes of both samples.
    """

    superiority: float
    p_value: float
    counts: tuple[int, int]


def compare_scores(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare two samples of scores by the Mann-Whitney test, with its effect size.

    Exact for small samples without ties, else by the normal approximation with ties corrected.

    Args:
        first: Scores of one kind, at least one.
        second: Scores of the other, at least one.
    """
    from scipy.stats import mannwhitneyu

    outcome = mannwhitneyu(first, second, alternative="two-sided", method="auto")
    superiority = float(outcome.statistic) / (len(first) * len(second))
    return Comparison(superiority, float(outcome.pvalue), (len(first), len(second)))

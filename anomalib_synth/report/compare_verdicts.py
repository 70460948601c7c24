"""The verdicts of a comparison as plain data, and in words what they are corrected for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from anomalib_synth.comparison.multiple_comparisons import bonferroni_interval
from anomalib_synth.comparison.paired import LEVEL
from anomalib_synth.comparison.trial_metrics import METRICS

if TYPE_CHECKING:
    from anomalib_synth.comparison.paired import Estimate
    from anomalib_synth.comparison.summary import ComparisonSummary

_MEANS = (
    "Means: over seeds, then over data sets, each of the same weight; shares are times 100. The number after ± is half "
    "the 95 % interval of that mean alone. Differences are paired: an arm's run minus the baseline's run on the same "
    "data set with the same seed. Intervals are by bootstrap within each data set (10,000 rounds, each drawing n - 1 "
    "of a data set's n values, stretched by Student's t for few seeds); they tell how far other seeds might give "
    "another result on these data sets, not on others."
)
_THRESHOLD = (
    "The threshold for recall is set on one half of the good validation images, and false alarms are counted on the "
    "other half; the test set sets nothing."
)


def describe_method(summary: ComparisonSummary) -> str:
    """Return how the numbers of a comparison were made."""
    return f"{_MEANS} {describe_family(summary)} {_THRESHOLD}"


def describe_family(summary: ComparisonSummary) -> str:
    """Return which verdicts are corrected together, and what that guarantees."""
    compared = summary.compared
    if len(compared) < 2:
        return "One arm is compared with the baseline, so nothing is corrected for."
    names = ", ".join(arm.name for arm in compared)
    label = METRICS[summary.metric].label
    return (
        f"Verdicts and intervals of differences are corrected for the {len(compared)} arms that are compared with "
        f"{summary.baseline.name} ({names}) by Holm's procedure (1979): at most about one comparison in twenty calls "
        "any arm better or worse that has no effect. An interval is as wide as that asks for the arm, and leaves out 0 "
        "just where the corrected verdict does. Together they tell at 95 % which arms differ, not that each holds its "
        "true value at once; for that verdicts.json has Bonferroni's, which are wider. Each metric is corrected by "
        f"itself, and verdicts are on {label} alone: what other metrics show is to be confirmed. An arm that has not "
        "run yet counts."
    )


def describe_verdicts(summary: ComparisonSummary) -> dict[str, Any]:
    """Return the verdicts, the family they are corrected in, and each difference, ready for JSON; None: not known."""
    return {
        "metric": summary.metric,
        "baseline": summary.baseline.name,
        "family": [arm.name for arm in summary.compared],
        "correction": "Holm 1979",
        "level": LEVEL,
        "about": describe_family(summary),
        "arms": [
            {
                "arm": arm.name,
                "verdict": arm.verdict.word,
                "sentence": arm.verdict.sentence,
                "runs": arm.runs,
                "planned": arm.planned,
                "differences": {name: _describe(arm.gains[name]) for name in summary.measured},
            }
            for arm in summary.compared
            if arm.verdict is not None
        ],
    }


def _describe(gain: Estimate) -> dict[str, Any]:
    simultaneous = bonferroni_interval(gain)
    numbers = {
        "value": gain.value,
        "low": gain.low,
        "high": gain.high,
        "adjusted_p": gain.family.p_value,
        "bonferroni_low": simultaneous[0],
        "bonferroni_high": simultaneous[1],
    }
    known = {name: None if math.isnan(number) else number for name, number in numbers.items()}
    return {**known, "level_divided_by": gain.family.divisor, "pairs": gain.counts}

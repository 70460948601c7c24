"""The verdicts of a comparison as plain data, and an explanation of their correction in words."""

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
    "Means are taken over seeds, then over data sets with equal weights; shares are in %. The number after ± is half "
    "the width of the 95 % interval of that mean alone. Differences are paired: an arm's run minus the baseline's run "
    "on the same data set with the same seed. Intervals come from a bootstrap within each data set (10,000 rounds, "
    "each drawing n - 1 of a data set's n values, widened by Student's t for few seeds). They tell how much the result "
    "may vary with other seeds on these data sets; they say nothing about other data sets."
)
_THRESHOLD = (
    "The threshold for recall is set on one half of the good validation images, and false alarms are counted on the "
    "other half; nothing is set on the test set."
)


def describe_method(summary: ComparisonSummary) -> str:
    """Say how the numbers of a comparison were computed."""
    return f"{_MEANS} {describe_family(summary)} {_THRESHOLD}"


def describe_family(summary: ComparisonSummary) -> str:
    """Say which verdicts are corrected together, and what that guarantees."""
    compared = summary.compared
    if len(compared) < 2:
        return "Only one arm is compared with the baseline, so no correction is needed."
    names = ", ".join(arm.name for arm in compared)
    label = METRICS[summary.metric].label
    return (
        f"Verdicts and intervals of differences are corrected for the {len(compared)} arms that are compared with "
        f"{summary.baseline.name} ({names}) by Holm's procedure (1979): in at most about one comparison in twenty is "
        "an arm without effect called better or worse. The interval of an arm is as wide as its correction demands, "
        "and excludes 0 exactly if the corrected verdict says that the arm differs. Together the intervals tell with "
        "95 % confidence which arms differ, but not that all of them hold their true values at once; for that, "
        "verdicts.json has Bonferroni's intervals, which are wider. Each metric is corrected by itself, and verdicts "
        f"are only about {label}; confirm what other metrics show. Arms that have not run yet count, too."
    )


def describe_verdicts(summary: ComparisonSummary) -> dict[str, Any]:
    """Return the verdicts, the arms corrected together, and each difference, ready for JSON; None means not known."""
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

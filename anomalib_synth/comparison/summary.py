"""Summarises the rows of a comparison arm by arm: means, gains, verdicts, and notes for the reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomalib_synth.comparison.multiple_comparisons import estimate_gains
from anomalib_synth.comparison.paired import Estimate, Verdict, estimate_mean, judge
from anomalib_synth.comparison.trial_metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMPARABLE = ("anomalib_synth", "anomalib", "torch", "lightning", "device", "threads", "workers")
_FEW_DEFECTS = 30


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm of a comparison.

    Args:
        name: Its name.
        is_baseline: Whether the others are compared with it.
        runs: Number of its runs that are done.
        planned: Number of its runs that are planned.
        means: Mean by metric, shares times 100.
        gains: Difference from the baseline by metric, in points, with intervals corrected for the number of arms; empty
            for the baseline.
        verdict: The verdict on it, None for the baseline.
    """

    name: str
    is_baseline: bool
    runs: int
    planned: int
    means: dict[str, Estimate]
    gains: dict[str, Estimate]
    verdict: Verdict | None


@dataclass(frozen=True, kw_only=True)
class ComparisonSummary:
    """A comparison so far.

    Args:
        metric: Name of the metric of the verdicts.
        arms: The arms, in order.
        data: Names of the data sets that have rows, in order.
        rows: The rows, shares times 100.
        notes: What a reader must know.
    """

    metric: str
    arms: list[ArmSummary]
    data: list[str]
    rows: list[dict[str, Any]]
    notes: list[str]

    @property
    def baseline(self) -> ArmSummary:
        """The arm that the others are compared with."""
        return next(arm for arm in self.arms if arm.is_baseline)

    @property
    def compared(self) -> list[ArmSummary]:
        """The arms that are compared with the baseline: one family, whether or not they have run."""
        return [arm for arm in self.arms if not arm.is_baseline]

    @property
    def measured(self) -> list[str]:
        """Names of the metrics that any row has."""
        return [name for name in METRICS if any(row.get(name) is not None for row in self.rows)]


def summarise_rows(
    rows: Sequence[dict[str, Any]], trials: Sequence[dict[str, Any]], *, baseline: str, metric: str
) -> ComparisonSummary:
    """Summarise the rows of a comparison; all arms that are planned are one family, a metric at a time.

    Args:
        rows: The rows of the runs that are done.
        trials: All trials of the comparison, in order.
        baseline: Name of the baseline.
        metric: Name of the metric of the verdicts.
    """
    shown = [_to_units(row) for row in rows]
    label, better = METRICS[metric].label, METRICS[metric].higher_is_better
    if _on_synthetic(trials):
        label += " on synthetic defects"

    def _judge(name: str, gain: Estimate) -> Verdict:
        verdict = judge(gain, label=label, higher_is_better=better)
        if not gain.counts or not (lacking := _without_pair(rows, trials, name, baseline)):
            return verdict
        return Verdict(word="cannot be told", sentence=f"{verdict.sentence} No pair of runs on {', '.join(lacking)}.")

    names = list(dict.fromkeys(trial["arm"] for trial in trials))
    pairs = [(name, baseline) for name in names if name != baseline]
    families = {each: estimate_gains(shown, pairs, each) for each in METRICS}
    arms = []
    for name in names:
        is_baseline = name == baseline
        gains = {} if is_baseline else {each: families[each][name, baseline] for each in METRICS}
        arms.append(
            ArmSummary(
                name=name,
                is_baseline=is_baseline,
                runs=sum(row["arm"] == name for row in rows),
                planned=sum(trial["arm"] == name for trial in trials),
                means={each: estimate_mean(shown, name, each) for each in METRICS},
                gains=gains,
                verdict=None if is_baseline else _judge(name, gains[metric]),
            )
        )
    present = {row["data"] for row in rows}
    data = [name for name in dict.fromkeys(trial["data"] for trial in trials) if name in present]
    return ComparisonSummary(metric=metric, arms=arms, data=data, rows=shown, notes=list_notes(rows, trials))


def _without_pair(
    rows: Sequence[dict[str, Any]], trials: Sequence[dict[str, Any]], arm: str, baseline: str
) -> list[str]:
    """Return the planned data sets on which an arm and the baseline have no run with the same seed."""
    ran = {(row["arm"], row["data"], row["seed"]) for row in rows}
    paired = {data for name, data, seed in ran if name == arm and (baseline, data, seed) in ran}
    return [data for data in dict.fromkeys(trial["data"] for trial in trials) if data not in paired]


def list_notes(rows: Sequence[dict[str, Any]], trials: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a reader must know: missing runs, fixed epochs, other step counts, mixed versions or images."""
    notes = []
    if _on_synthetic(trials):
        notes.append(
            "The test defects are synthetic. This chooses among models, but does not tell how many real defects they "
            "find, and an arm that learns from such defects is at an advantage."
        )
    if len(rows) < len(trials):
        ran = {row["config_hash"] for row in rows}
        lacking = dict.fromkeys(
            f"{trial['arm']} on {trial['data']}" for trial in trials if trial["config_hash"] not in ran
        )
        notes.append(
            f"{len(trials) - len(rows)} of {len(trials)} runs are not there ({', '.join(lacking)}); what lacks its "
            "pair is left out."
        )
    fixed = {row["model"]: row["fixed_epochs"] for row in rows if row.get("fixed_epochs")}
    for model, epochs in fixed.items():
        many = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        notes.append(f"{model} always takes {many} over the training images; the step budget does not apply to it.")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        of_arm = [row for row in rows if row["arm"] == arm]
        counts = sorted({row["batches"] for row in of_arm})
        if of_arm[0]["model"] not in fixed and counts != [of_arm[0]["steps"]]:
            many = "1 batch" if counts == [1] else f"{' or '.join(map(str, counts))} batches"
            notes.append(
                f"{arm} saw {many}, not {of_arm[0]['steps']}: its model takes several optimiser steps a batch, or "
                "has nothing more to learn."
            )
    for name in _COMPARABLE:
        found = sorted({str(row.get(name)) for row in rows})
        if len(found) > 1:
            notes.append(f"The runs differ in {name} ({', '.join(found)}). Use a new folder to compare like with like.")
    for data in dict.fromkeys(row["data"] for row in rows):
        notes += _list_data_notes(data, [row for row in rows if row["data"] == data])
    return notes


def _on_synthetic(trials: Sequence[dict[str, Any]]) -> bool:
    return any(trial.get("test_defects_are") == "synthetic" for trial in trials)


def _list_data_notes(data: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a reader must know of one data set."""
    notes = [
        f"What {arm} draws with (a store, files, weights) changed between runs on {data}."
        for arm in dict.fromkeys(row["arm"] for row in rows)
        if len({row.get("generator_digest") for row in rows if row["arm"] == arm}) > 1
    ]
    if len({row.get("data_digest") for row in rows}) > 1:
        notes.append(f"The images of {data} changed between runs. Use a new folder to compare like with like.")
    if len({(row.get("mask_size"), row.get("mask_pixels")) for row in rows}) > 1:
        notes.append(
            f"The models see {data} at other sizes, or cropped, so their pixel metrics count other pixels: compare "
            "them with care, or set one `image_size`."
        )
    if (few := min(row["test_defects"] for row in rows)) < _FEW_DEFECTS:
        notes.append(
            f"{data} has {few} defective test images: with others the verdict may differ, and no interval covers that."
        )
    return notes


def _to_units(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its shares times 100."""
    scaled = {
        name: 100 * row[name]
        for name, metric in METRICS.items()
        if metric.unit == "%" and isinstance(row.get(name), int | float)
    }
    return {**row, **scaled}

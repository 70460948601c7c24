"""Evaluates the scores of a calibration: thresholds, false alarms, recall, and whether the model is fit for use."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_synth.calibration.real_defects import RealDefects, judge_real_defects
from anomalib_synth.calibration.recall import DefectSetRecall, above, measure_recall
from anomalib_synth.calibration.statistics import (
    Faintest,
    Proportion,
    conformal_threshold,
    correlation_within,
    design_effect,
    faintest_strength,
    likely_rate,
    prediction_interval,
)
from anomalib_synth.host.thresholds import Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.calibration.scoring import Row

LEVELS = (0.5, 0.9)
NEXT = 50  # new normals that a count is given for
NO_ROUNDING = (0.0, 0.0)
_TOGETHER = 1.05  # design effect from which a reader is told
_ENOUGH = 20  # defects from which an interval decides


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """The result of a calibration.

    Args:
        rate: Target false-alarm rate.
        image: Threshold of the image scores.
        pixel: Threshold of the anomaly maps, None where the model gives none. It is set so that normal images with any
            pixel above it are as rare as those above the image threshold.
        chosen_on: Number of normals that set the thresholds.
        alarms: False alarms among the other normals.
        pixel_alarms: Those of them with any pixel above the pixel threshold.
        recalls: Recall by family and strength.
        min_recall: Least share of the strongest defects that a model fit for use finds.
        real: Findings on real defects, if there are any.
        design: How many of the normals that set the threshold tell as much as one independent one.
    """

    rate: float
    image: Level
    pixel: Level | None
    chosen_on: int
    alarms: Proportion
    pixel_alarms: Proportion | None
    recalls: list[DefectSetRecall]
    real: RealDefects | None
    min_recall: float = 0.0
    design: float = 1.0

    @property
    def likely_rate(self) -> float:
        """False-alarm rate that 95 % of the thresholds set by as many normals stay below."""
        return likely_rate(self.chosen_on, self.rate, design=self.design)

    @property
    def expected(self) -> tuple[int, int]:
        """How many of :data:`NEXT` new normals may alarm, 95 % of the time."""
        return prediction_interval(self.alarms, NEXT)

    @property
    def guarantee(self) -> str:
        """What the target rate promises, in words."""
        return (
            f"The target of {100 * self.rate:.3g} % is marginal: it holds on average over which normals set the "
            "threshold, for images of the same kind. This one threshold may alarm more often: of those that "
            f"{self.chosen_on} normals set, 95 % stay below {100 * self.likely_rate:.1f} %. The other normals measure "
            f"it.{self._together}"
        )

    @property
    def _together(self) -> str:
        """What normals that belong together mean for the numbers, in words."""
        if self.alarms.design < _TOGETHER:
            return ""
        return (
            f" Scores of normals that look alike, or are named as of one part, go together, so the {self.alarms.of} "
            f"tell as much as {self.alarms.of / self.alarms.design:.0f} independent ones; intervals are wider for it."
        )

    def families(self) -> dict[str, list[DefectSetRecall]]:
        """Return the recalls by family, by rising strength."""
        grouped: dict[str, list[DefectSetRecall]] = defaultdict(list)
        for recall in self.recalls:
            grouped[recall.family].append(recall)
        return {name: sorted(recalls, key=lambda recall: recall.strength or 0.0) for name, recalls in grouped.items()}

    @property
    def out_of_view(self) -> int:
        """Number of drawn defects of which the model's own transform leaves nothing."""
        return sum(recall.out_of_view for recall in self.recalls)

    @property
    def strongest(self) -> Proportion:
        """Share found of the visible defects of all families, each at its highest strength."""
        found = [recalls[-1].found for recalls in self.families().values()]
        return Proportion(sum(share.count for share in found), sum(share.of for share in found))

    @property
    def undecided(self) -> bool:
        """Whether the share found of the strongest defects may well be no larger than the target false-alarm rate."""
        return not self.strongest.low > self.rate

    @property
    def unfit(self) -> str:
        """Why the model is not fit for use, in words; ``""`` if it is.

        A fit model finds at least ``min_recall`` of the strongest defects, and a larger share of them than ``rate``,
        which a model that sees nothing reaches as well. With 20 or more of these defects, the lower end of the interval
        must be larger than ``rate``.
        """
        share = self.strongest
        if not share.of:
            drawn = sum(recall.drawn for recall in self.recalls)
            return f"none of the {drawn} drawn defects was visible, so nothing is known of what it finds."
        found = f"it finds {share.count} of {share.of} defects at the highest strength"
        if share.value <= self.rate or (self.undecided and share.of >= _ENOUGH):
            interval = f"95 % interval {100 * share.low:.1f} % to {100 * share.high:.1f} %"
            asked = f"{100 * self.rate:.3g} %"
            return f"{found} ({interval}), not surely more than it may call good images anomalous ({asked})."
        if share.value < self.min_recall:
            return f"{found} ({100 * share.value:.1f} %), less than `min_recall` {100 * self.min_recall:.3g} %."
        return ""

    def faintest(self, family: str, level: float) -> Faintest | None:
        """Return the faintest strength at which a family's recall reaches a level; None for one without strengths."""
        recalls = self.families()[family]
        strengths = [recall.strength for recall in recalls if recall.strength is not None]
        if not strengths:
            return None
        return faintest_strength(strengths, [recall.found for recall in recalls], level)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        faintest = {}
        for family in self.families():
            found = {f"recall_{level:g}": self.faintest(family, level) for level in LEVELS}
            faintest[family] = {name: None if value is None else vars(value) for name, value in found.items()}
        return {
            "fit": not self.unfit,
            "unfit_because": self.unfit,
            "min_recall": self.min_recall,
            "recall_at_strongest": self.strongest.to_dict(),
            "out_of_view": self.out_of_view,
            "target_false_alarm_rate": self.rate,
            "image_threshold": self.image.threshold,
            "pixel_threshold": None if self.pixel is None else self.pixel.threshold,
            "normals_to_choose": self.chosen_on,
            "guarantee": self.guarantee,
            "likely_false_alarm_rate": self.likely_rate,
            "false_alarms": self.alarms.to_dict(),
            "expected_false_alarms": {"of": NEXT, "low": self.expected[0], "high": self.expected[1]},
            "pixel_false_alarms": None if self.pixel_alarms is None else self.pixel_alarms.to_dict(),
            "faintest": faintest,
            "real_defects": None if self.real is None else self.real.to_dict(),
            "cells": [recall.to_dict() for recall in self.recalls],
        }


def evaluate(
    rows: Sequence[Row],
    rate: float,
    *,
    with_pixels: bool = True,
    rounding: tuple[float, float] = NO_ROUNDING,
    min_recall: float = 0.0,
) -> CalibrationResult:
    """Turn scores into thresholds and shares.

    Args:
        rows: The scored images.
        rate: Target false-alarm rate in (0, 1).
        with_pixels: Whether the model's masks are made with a threshold.
        rounding: How far image scores and peaks of maps move from one batch size to another; the thresholds are raised
            by that much.
        min_recall: Least share of the strongest defects that a model fit for use finds.
    """
    by_role = defaultdict(list)
    for row in rows:
        by_role[row.role].append(row)
    scored = [row for row in rows if row.visible and row.role != "train"]
    choose, measure = by_role["choose"], by_role["measure"]
    image = _level([row.score for row in choose], rate, rounding[0], [row.score for row in scored])
    pixel = None
    if with_pixels and not any(math.isnan(row.peak) for row in scored):
        pixel = _level([row.peak for row in choose], rate, rounding[1], [row.peak for row in scored])
    recalls = measure_recall(by_role["synthetic"], image, pixel)
    real = [row.score for row in by_role["real"]]
    return CalibrationResult(
        rate=rate,
        image=image,
        pixel=pixel,
        chosen_on=len(choose),
        alarms=replace(above([row.score for row in measure], image), design=_design(choose, measure, "score")),
        pixel_alarms=None
        if pixel is None
        else replace(above([row.peak for row in measure], pixel), design=_design(choose, measure, "peak")),
        recalls=recalls,
        real=judge_real_defects(real, recalls, image) if real else None,
        min_recall=min_recall,
        design=_design(measure, choose, "score"),
    )


def _design(others: Sequence[Row], rows: Sequence[Row], name: str) -> float:
    """Return the design effect of some rows, 1 where nobody said which belong together."""
    both = [*others, *rows]
    if not all(row.group for row in both):
        return 1.0
    correlation = correlation_within([getattr(row, name) for row in both], [row.group for row in both])
    return design_effect(correlation, [row.group for row in rows])


def _level(choose: Sequence[float], rate: float, rounding: float, scores: Sequence[float]) -> Level:
    threshold = conformal_threshold(choose, rate) + rounding
    stored = np.float32(threshold)  # as the checkpoint holds it
    if stored < threshold:
        stored = np.nextafter(stored, np.float32(np.inf))
    return Level(threshold=float(stored), low=min(scores), high=max(scores))

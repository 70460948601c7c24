"""What the scores of a calibration say: thresholds, false alarms, recall, and the faintest defects that are found."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from anomalib_synth.evidence.statistics import (
    Comparison,
    Faintest,
    Proportion,
    compare_scores,
    conformal_threshold,
    faintest_strength,
)
from anomalib_synth.evidence.thresholds import Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.evidence.scoring import Row

LEVELS = (0.5, 0.9)
_ALIKE = 0.2  # how far from one half the share of pairs may be before it is called a difference
_FEW = 5  # fewer visible defects do not make a cell to compare with
_SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """How one family is found at one strength; shares are of the visible defects, those that passed the checks."""

    family: str
    strength: float | None
    drawn: int
    visibility: float
    area: float
    found: Proportion
    located: Proportion | None
    scores: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Return a row of the table."""
        return {
            "family": self.family,
            "strength": self.strength,
            "drawn": self.drawn,
            "visible": self.found.of,
            "found": self.found.count,
            "recall": _plain(self.found.value),
            "recall_low": _plain(self.found.low),
            "recall_high": _plain(self.found.high),
            "located": None if self.located is None else _plain(self.located.value),
            "median_visibility": _plain(self.visibility),
            "median_area": _plain(self.area),
        }


@dataclass(frozen=True, kw_only=True)
class RealDefects:
    """How a few real defects score, against the synthetic ones.

    Args:
        found: Share above the threshold.
        comparison: Real against all visible synthetic defects; None without any of those.
        nearest: The cell whose scores are most alike, if one has enough visible defects.
        alike: False where they score unlike, and a warning is due.
        message: The finding in words.
    """

    found: Proportion
    comparison: Comparison | None
    nearest: CellResult | None
    alike: bool
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "found": self.found.to_dict(),
            "alike": self.alike,
            "message": self.message,
            "higher_than_synthetic": None if self.comparison is None else self.comparison.superiority,
            "p_value": None if self.comparison is None else self.comparison.p_value,
            "nearest": None
            if self.nearest is None
            else {"family": self.nearest.family, "strength": self.nearest.strength},
        }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a calibration.

    Args:
        rate: Target false-alarm rate.
        image: Threshold of the image scores.
        pixel: Threshold of the anomaly maps, None where the model gives none: a normal image has any pixel above it as
            rarely as it is called anomalous.
        chosen_on: Number of normals that set the thresholds.
        alarms: False alarms among the other normals.
        pixel_alarms: Those of them with any pixel above the pixel threshold.
        cells: Recall by family and strength.
        real: Findings on real defects, if there are any.
    """

    rate: float
    image: Level
    pixel: Level | None
    chosen_on: int
    alarms: Proportion
    pixel_alarms: Proportion | None
    cells: list[CellResult]
    real: RealDefects | None

    def families(self) -> dict[str, list[CellResult]]:
        """Return the cells by family, by rising strength."""
        grouped: dict[str, list[CellResult]] = defaultdict(list)
        for cell in self.cells:
            grouped[cell.family].append(cell)
        return {name: sorted(cells, key=lambda cell: cell.strength or 0.0) for name, cells in grouped.items()}

    def faintest(self, family: str, level: float) -> Faintest | None:
        """Return the faintest strength of a family found with a recall; None for a kind without strengths."""
        cells = self.families()[family]
        strengths = [cell.strength for cell in cells if cell.strength is not None]
        if not strengths:
            return None
        return faintest_strength(strengths, [cell.found for cell in cells], level)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        faintest = {}
        for family in self.families():
            found = {f"recall_{level:g}": self.faintest(family, level) for level in LEVELS}
            faintest[family] = {name: None if value is None else vars(value) for name, value in found.items()}
        return {
            "target_false_alarm_rate": self.rate,
            "image_threshold": self.image.threshold,
            "pixel_threshold": None if self.pixel is None else self.pixel.threshold,
            "normals_to_choose": self.chosen_on,
            "false_alarms": self.alarms.to_dict(),
            "pixel_false_alarms": None if self.pixel_alarms is None else self.pixel_alarms.to_dict(),
            "faintest": faintest,
            "real_defects": None if self.real is None else self.real.to_dict(),
            "cells": [cell.to_dict() for cell in self.cells],
        }


def evaluate(rows: Sequence[Row], rate: float, *, with_pixels: bool = True) -> Outcome:
    """Turn scores into thresholds and shares.

    Args:
        rows: The scored images.
        rate: Target false-alarm rate in (0, 1).
        with_pixels: Whether the model's masks are made with a threshold.
    """
    by_role = defaultdict(list)
    for row in rows:
        by_role[row.role].append(row)
    scored = [row for row in rows if row.visible]
    choose, measure = by_role["choose"], by_role["measure"]
    threshold = conformal_threshold([row.score for row in choose], rate)
    image = _level(threshold, [row.score for row in scored])
    pixel = None
    if with_pixels and not any(math.isnan(row.peak) for row in scored):
        pixel = _level(conformal_threshold([row.peak for row in choose], rate), [row.peak for row in scored])
    cells = _cells(by_role["synthetic"], image, pixel)
    real = [row.score for row in by_role["real"]]
    return Outcome(
        rate=rate,
        image=image,
        pixel=pixel,
        chosen_on=len(choose),
        alarms=_above([row.score for row in measure], image),
        pixel_alarms=None if pixel is None else _above([row.peak for row in measure], pixel),
        cells=cells,
        real=judge_real_defects(real, cells, image) if real else None,
    )


def judge_real_defects(scores: Sequence[float], cells: Sequence[CellResult], image: Level) -> RealDefects:
    """Say whether real defects score like the synthetic ones."""
    found = _above(scores, image)
    opening = f"{found.count} of {found.of} real defects are found (95 % interval {found.low:.0%} to {found.high:.0%})."
    pooled = [score for cell in cells for score in cell.scores]
    if not pooled:
        message = f"{opening} No synthetic defect was visible to compare them with."
        return RealDefects(found=found, comparison=None, nearest=None, alike=False, message=message)
    comparison = compare_scores(scores, pooled)
    large = [cell for cell in cells if len(cell.scores) >= _FEW]
    nearest = min(large, key=lambda cell: abs(compare_scores(scores, cell.scores).superiority - 0.5), default=None)
    different = abs(comparison.superiority - 0.5) >= _ALIKE
    lower = comparison.superiority < 0.5
    share = 1 - comparison.superiority if lower else comparison.superiority
    how = f"{'lower' if lower else 'higher'} than {share:.0%} of them on average"
    test = f"Mann-Whitney p = {comparison.p_value:.2g}"
    if comparison.p_value < _SIGNIFICANT:
        side = "miss more real defects" if lower else "find more real defects"
        finding = (
            f"The real defects score UNLIKE the synthetic ones: {how} ({test}). Expect the model to {side} than the "
            "recall of the synthetic ones says, and choose families and strengths nearer to the real ones."
        )
    elif different:
        finding = f"They score {how}, but {found.of} are too few to be sure ({test}). Add real defects to decide."
    else:
        finding = f"They score like the synthetic ones, as far as {found.of} can tell ({test})."
    if nearest is not None:
        strength = "" if nearest.strength is None else f" at strength {nearest.strength:g}"
        finding += f" Most alike: {nearest.family}{strength}, of which {nearest.found.value:.0%} are found."
    alike = comparison.p_value >= _SIGNIFICANT and not different
    return RealDefects(found=found, comparison=comparison, nearest=nearest, alike=alike, message=f"{opening} {finding}")


def _cells(rows: Sequence[Row], image: Level, pixel: Level | None) -> list[CellResult]:
    grouped: dict[tuple[str, float | None], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.family, row.strength].append(row)
    results = []
    for (family, strength), members in grouped.items():
        visible = [row for row in members if row.visible]
        inside = [row.inside for row in visible if not math.isnan(row.inside)]
        results.append(
            CellResult(
                family=family,
                strength=strength,
                drawn=len(members),
                visibility=_median([row.visibility for row in visible]),
                area=_median([row.area for row in visible]),
                found=_above([row.score for row in visible], image),
                located=None if pixel is None else _above(inside, pixel),
                scores=[row.score for row in visible],
            )
        )
    return results


def _level(threshold: float, scores: Sequence[float]) -> Level:
    return Level(threshold=threshold, low=min(scores), high=max(scores))


def _above(scores: Sequence[float], level: Level) -> Proportion:
    return Proportion(sum(score > level.threshold for score in scores), len(scores))


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def _plain(number: float) -> float | None:
    return None if math.isnan(number) else round(number, 6)

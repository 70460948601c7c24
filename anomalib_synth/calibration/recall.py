"""The recall of each family at each strength, among the defects that the model can see."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from anomalib_synth.calibration.statistics import Proportion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.calibration.scoring import Row
    from anomalib_synth.host.thresholds import Level


@dataclass(frozen=True, kw_only=True)
class DefectSetRecall:
    """The recall of one family at one strength.

    Shares are of the visible defects: those that passed the checks and of which the model's own transform, a crop for
    example, leaves something.

    Args:
        family: Name of the family.
        strength: The strength in (0, 1], None where the generator has none.
        drawn: Number of draws, failed ones included.
        out_of_view: Number of draws of which the model's own transform leaves nothing.
        visibility: Median change of the visible defects over the noise of normals.
        area: Median share of the image's pixels in the masks of the visible defects.
        found: Share of the visible defects with a score above the image threshold.
        located: Share of the visible defects whose map is above the pixel threshold within the mask; None without one.
        scores: Raw image scores of the visible defects.
    """

    family: str
    strength: float | None
    drawn: int
    out_of_view: int
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
            "out_of_view": self.out_of_view,
            "visible": self.found.of,
            "found": self.found.count,
            "recall": plain(self.found.value),
            "recall_low": plain(self.found.low),
            "recall_high": plain(self.found.high),
            "located": None if self.located is None else plain(self.located.value),
            "median_visibility": plain(self.visibility),
            "median_area": plain(self.area),
        }


def measure_recall(rows: Sequence[Row], image: Level, pixel: Level | None) -> list[DefectSetRecall]:
    """Group the rows of synthetic defects by family and strength, and count what is found."""
    grouped: dict[tuple[str, float | None], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.family, row.strength].append(row)
    results = []
    for (family, strength), members in grouped.items():
        visible = [row for row in members if row.visible and row.in_view]
        inside = [row.inside for row in visible if not math.isnan(row.inside)]
        results.append(
            DefectSetRecall(
                family=family,
                strength=strength,
                drawn=len(members),
                out_of_view=sum(not row.in_view for row in members),
                visibility=_median([row.visibility for row in visible]),
                area=_median([row.area for row in visible]),
                found=above([row.score for row in visible], image),
                located=None if pixel is None else above(inside, pixel),
                scores=[row.score for row in visible],
            )
        )
    return results


def above(scores: Sequence[float], level: Level) -> Proportion:
    """Return the share of scores above a threshold."""
    return Proportion(sum(score > level.threshold for score in scores), len(scores))


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def plain(number: float) -> float | None:
    """Return a number as JSON can hold it: None for NaN, else rounded to six decimals."""
    return None if math.isnan(number) else round(number, 6)

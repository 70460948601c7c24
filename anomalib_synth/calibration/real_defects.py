"""Compares the scores of a few real defects with those of the synthetic ones of a calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomalib_synth.calibration.recall import DefectSetRecall, above
from anomalib_synth.calibration.statistics import Comparison, Proportion, compare_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.host.thresholds import Level

_ALIKE = 0.2  # how far from one half the share of pairs may be before it is called a difference
_FEW = 5  # fewer visible defects do not make a recall to compare with
_SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class RealDefects:
    """The scores of a few real defects against those of the synthetic ones.

    Args:
        found: Share of the real defects above the threshold.
        comparison: Real against all visible synthetic defects; None if none is visible.
        nearest: The family and strength with the most similar scores, among those with enough visible defects.
        alike: False where the two kinds score differently and a warning is due.
        message: The finding in words.
    """

    found: Proportion
    comparison: Comparison | None
    nearest: DefectSetRecall | None
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


def judge_real_defects(scores: Sequence[float], recalls: Sequence[DefectSetRecall], image: Level) -> RealDefects:
    """Return whether real defects score like the synthetic ones, with the numbers and a sentence."""
    found = above(scores, image)
    opening = f"{found.count} of {found.of} real defects are found (95 % interval {found.low:.0%} to {found.high:.0%})."
    pooled = [score for recall in recalls for score in recall.scores]
    if not pooled:
        message = f"{opening} No synthetic defect was visible to compare them with."
        return RealDefects(found=found, comparison=None, nearest=None, alike=False, message=message)
    comparison = compare_scores(scores, pooled)
    large = [recall for recall in recalls if len(recall.scores) >= _FEW]
    nearest = min(large, key=lambda recall: abs(compare_scores(scores, recall.scores).superiority - 0.5), default=None)
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

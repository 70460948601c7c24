"""The plot of a calibration: the distribution of scores, and a panel for each family with recall over strength."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from anomalib_synth.calibration.result import LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from anomalib_synth.calibration.recall import DefectSetRecall
    from anomalib_synth.calibration.result import CalibrationResult

# Okabe and Ito's palette, which can be told apart with any colour vision; shapes and line styles differ too.
_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
_COLUMNS = (3, 4, 5, 6)
_BINS = 40


def draw_calibration(
    outcome: CalibrationResult, model: str, normals: Sequence[float], real: Sequence[float], out: Path
) -> None:
    """Draw and save the picture.

    Args:
        outcome: The result.
        model: Name of the model.
        normals: Scores of the normals on which false alarms were measured.
        real: Scores of the real defects, may be empty.
        out: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    families = {name: recalls for name, recalls in outcome.families().items() if recalls[0].strength is not None}
    fitting = [number for number in _COLUMNS if number <= len(families)] or [max(1, len(families))]
    columns = min(fitting, key=lambda number: (-len(families) % number, -number))  # prefer no gaps, then few rows
    rows = math.ceil(len(families) / columns)
    figure = Figure(figsize=(max(9.6, 2.35 * columns + 0.6), 3.2 + 1.95 * rows), layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot: no display, no global state
    alarms = outcome.alarms
    figure.suptitle(
        f"{model}, threshold {outcome.image.threshold:.4g}: false alarms on {alarms.count} of {alarms.of} normals "
        f"= {alarms.value:.1%} ({alarms.low:.1%} to {alarms.high:.1%}), target {outcome.rate:.1%}",
        fontsize=10, x=0.01, ha="left", fontweight="bold",
    )  # fmt: skip
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.3, *[1.0] * rows])
    _draw_scores(figure.add_subplot(grid[0, :]), outcome, normals, real)
    for position, (family, recalls) in enumerate(families.items()):
        row, column = divmod(position, columns)
        axes = figure.add_subplot(grid[row + 1, column])
        _draw_family(axes, family, recalls, outcome)
        last = position + columns >= len(families)
        axes.tick_params(labelbottom=last, labelleft=column == 0)
        if column == 0:
            axes.set_ylabel("share found", fontsize=8)
        if last:
            axes.set_xlabel("strength", fontsize=8)
    if families:
        figure.legend(handles=_key(), loc="outside lower left", ncols=3, fontsize=8, frameon=False)
    figure.savefig(out, dpi=130)


def _draw_scores(axes: Axes, outcome: CalibrationResult, normals: Sequence[float], real: Sequence[float]) -> None:
    """Draw the distribution of each kind of score, and the threshold."""
    synthetic = [score for recall in outcome.recalls for score in recall.scores]
    everything = np.array([*normals, *synthetic, *real])
    threshold = outcome.image.threshold
    low = min(everything.min(), threshold)
    high = max(np.quantile(everything, 0.9), *normals, threshold)  # the tail goes into the last bin
    bins = np.linspace(low, high + ((high - low) or 1.0) / _BINS, _BINS + 1).tolist()
    for scores, label, style in (
        (normals, f"normals ({len(normals)})", {"histtype": "stepfilled", "color": _GREY, "alpha": 0.45}),
        (synthetic, f"synthetic defects, all strengths ({len(synthetic)})", {"histtype": "step", "color": _BLUE}),
    ):
        if len(scores):
            weights = np.full(len(scores), 1 / len(scores))
            axes.hist(np.clip(scores, bins[0], bins[-1]), bins, weights=weights, label=label, linewidth=1.6, **style)
    top = axes.get_ylim()[1]
    if len(real):
        place = np.clip(real, bins[0], bins[-1])
        label = f"real defects ({len(real)})"
        axes.plot(
            place,
            np.full(len(real), 1.06 * top),
            "v",
            color=_RED,
            ms=6,
            mec="white",
            mew=0.5,
            label=label,
            clip_on=False,
        )
    axes.axvline(threshold, color="black", lw=1.4, ls="--", label="threshold: anomalous to the right")
    axes.set_ylim(0, 1.12 * top)
    axes.set_xlim(bins[0] - 0.01 * (bins[-1] - bins[0]), bins[-1])
    beyond = " (last bin: this and above)" if everything.max() > bins[-1] else ""
    axes.set_xlabel(f"raw image score{beyond}", fontsize=8)
    axes.set_ylabel("share of the images", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
    _tidy(axes)


def _strength(recall: DefectSetRecall) -> float:
    """Return the strength of a recall; only families with strengths are drawn."""
    return cast("float", recall.strength)


def _draw_family(axes: Axes, family: str, recalls: Sequence[DefectSetRecall], outcome: CalibrationResult) -> None:
    """Draw the recall of one family over strength, with its intervals and the faintest strengths."""
    known = [recall for recall in recalls if recall.found.of]
    axes.axhline(outcome.alarms.value, color=_GREY, lw=1, ls=":")
    for level in LEVELS:
        axes.axhline(level, color="#cccccc", lw=0.7, zorder=0)
    if known:
        x = [_strength(recall) for recall in known]
        low, high = [recall.found.low for recall in known], [recall.found.high for recall in known]
        axes.fill_between(x, low, high, color=_BLUE, alpha=0.18, lw=0)
        axes.plot(x, [recall.found.value for recall in known], color=_BLUE, lw=1.5)
        for recall in known:
            hollow = recall.found.of < recall.drawn / 2
            axes.plot(
                _strength(recall),
                recall.found.value,
                "o",
                ms=3.6,
                color=_BLUE,
                mfc="white" if hollow else _BLUE,
                mew=1.0,
            )
    notes = []
    for level, marker, colour in zip(LEVELS, ("^", "s"), (_ORANGE, _GREEN), strict=True):
        faintest = outcome.faintest(family, level)
        notes.append(f"{level:.0%}: {faintest}")
        if faintest is not None and faintest.strength is not None:
            axes.plot(faintest.strength, level, marker, color=colour, ms=6, mec="black", mew=0.5, zorder=5)
    axes.set_title(family, fontsize=9, loc="left", fontweight="bold", pad=13)
    axes.text(0, 1.02, "   ".join(notes), transform=axes.transAxes, fontsize=7, color="#444444", va="bottom")
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([0, 0.5, 0.9], ["0", "50 %", "90 %"])
    limits = [_strength(recall) for recall in recalls]
    spread = 0.04 * (max(limits) - min(limits)) or 0.05
    axes.set_xlim(min(limits) - spread, max(limits) + spread)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)


def _key() -> list[Artist]:
    """Return the legend of the panels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def mark(marker: str, label: str, fill: str, edge: str = "black") -> Line2D:
        return Line2D([], [], marker=marker, ls="", mfc=fill, mec=edge, ms=6, mew=0.8, label=label)

    return [
        mark("^", "faintest strength with 50 % found", _ORANGE),
        mark("s", "faintest strength with 90 % found", _GREEN),
        Line2D([], [], color=_BLUE, marker="o", ms=4, lw=1.5, label="share found of the visible defects"),
        mark("o", "fewer than half of the drawn were visible", "white", _BLUE),
        Patch(color=_BLUE, alpha=0.18, lw=0, label="95 % interval (Wilson)"),
        Line2D([], [], color=_GREY, lw=1, ls=":", label="false alarms on normals"),
    ]

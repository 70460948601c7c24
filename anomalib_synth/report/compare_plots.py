"""The plots of a comparison: every run by data set, the gain against the baseline, and what a gain costs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from anomalib_synth.comparison.trial_metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from anomalib_synth.comparison.paired import Estimate
    from anomalib_synth.comparison.summary import ArmSummary, ComparisonSummary

# Okabe and Ito's palette, which can be told apart with any colour vision; markers differ too. The baseline is grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY, _LINE = "#555555", "#cccccc"
_WIDE, _NARROW = 9.6, 4.0  # inches; narrow plots are for a phone
_MAIN = ("image_auroc", "pixel_ap")


def draw_plots(summary: ComparisonSummary) -> dict[str, dict[str, bytes]]:
    """Return the plots by name and format: ``png``, ``svg``, and ``narrow.svg`` for narrow screens."""
    plots = {}
    for name, draw in (("dots", _draw_dots), ("gain", _draw_gain), ("cost", _draw_cost)):
        if name != "dots" and not any(arm.gains[summary.metric].counts for arm in summary.arms if arm.gains):
            continue
        wide, narrow = draw(summary, narrow=False), draw(summary, narrow=True)
        plots[name] = {"png": _save(wide, "png"), "svg": _save(wide, "svg"), "narrow.svg": _save(narrow, "svg")}
    return plots


def _draw_dots(summary: ComparisonSummary, *, narrow: bool) -> Figure:
    """Draw every run as a dot and every mean as a line, with a row for each data set and a panel for each metric."""
    names = _panels(summary)
    rows = len(summary.data)
    height = 0.3 + rows * max(0.45, 0.1 * len(summary.arms) + 0.12)
    figure, panels = _figure(len(names), height, narrow=narrow, legend=len(summary.arms))
    for axes, name in zip(panels, names, strict=True):
        for position, arm in enumerate(summary.arms):
            colour, marker = _style(summary, arm)
            for row, data in enumerate(summary.data):
                y = row + 0.7 * ((position + 0.5) / len(summary.arms) - 0.5)
                found = [r[name] for r in summary.rows if (r["arm"], r["data"]) == (arm.name, data)]
                values = [value for value in found if value is not None]
                axes.plot(values, [y] * len(values), marker, ms=4.5, mfc="none", mec=colour, mew=1.1)
                if values:
                    tick = 0.3 / len(summary.arms)
                    axes.plot([sum(values) / len(values)] * 2, [y - tick, y + tick], color=colour, lw=2.4)
        for row in range(rows - 1):
            axes.axhline(row + 0.5, color=_LINE, lw=0.7)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_yticks(range(rows), [_short(data, 18) for data in summary.data], parse_math=False)
        axes.set_xlabel(f"{METRICS[name].label}, %", fontsize=9)
        if not narrow and axes is not panels[0]:
            axes.tick_params(labelleft=False)
    _legend(figure, summary, narrow=narrow)
    return figure


def _draw_gain(summary: ComparisonSummary, *, narrow: bool) -> Figure:
    """Draw each arm's difference from the baseline with its interval, with a panel for each metric."""
    names = _panels(summary)
    arms = [arm for arm in summary.arms if arm.gains]
    figure, panels = _figure(len(names), 0.5 + 0.42 * len(arms), narrow=narrow)
    for axes, name in zip(panels, names, strict=True):
        axes.axvline(0, color=_GREY, lw=1, ls="--")
        for row, arm in enumerate(arms):
            colour, marker = _style(summary, arm)
            _bar(axes, arm.gains[name], y=row, colour=colour)
            if arm.gains[name].counts:
                axes.plot(arm.gains[name].value, row, marker, ms=6, color=colour)
                means = list(arm.gains[name].means.values())
                axes.plot(means, [row + 0.22] * len(means), "|", ms=6, color=colour, alpha=0.7)
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_yticks(range(len(arms)), [_short(arm.name, 24 if narrow else 36) for arm in arms], parse_math=False)
        axes.set_xlabel(f"{METRICS[name].label}: gain in points", fontsize=9)
        if not narrow and axes is not panels[0]:
            axes.tick_params(labelleft=False)
    return figure


def _draw_cost(summary: ComparisonSummary, *, narrow: bool) -> Figure:
    """Draw the gain over the time to fit."""
    figure, (axes,) = _figure(1, 3.0, narrow=narrow, legend=len(summary.arms))
    axes.axhline(0, color=_GREY, lw=1, ls="--")
    for arm in summary.arms:
        colour, marker = _style(summary, arm)
        cost = arm.means["fit_seconds"]
        if not cost.value > 0:  # no run yet, or nothing to train
            continue
        if arm.is_baseline:
            axes.plot(cost.value, 0, marker, ms=8, color=colour)
        elif arm.gains[summary.metric].counts:
            gain = arm.gains[summary.metric]
            if gain.known:
                axes.plot([cost.value] * 2, [gain.low, gain.high], color=colour, lw=1.6)
            axes.plot(cost.value, gain.value, marker, ms=8, color=colour)
    if axes.has_data():
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    axes.tick_params(axis="x", which="minor", labelsize=8)
    axes.set_xlabel("seconds to fit, mean (logarithmic)", fontsize=9)
    axes.set_ylabel(f"{METRICS[summary.metric].label}: gain in points", fontsize=9)
    _legend(figure, summary, narrow=narrow)
    return figure


def _bar(axes: Axes, gain: Estimate, *, y: float, colour: str) -> None:
    """Draw an interval, if there is one."""
    if gain.known:
        axes.plot([gain.low, gain.high], [y, y], color=colour, lw=1.8, solid_capstyle="butt")
        axes.plot([gain.low, gain.high], [y, y], "|", color=colour, ms=7, mew=1.8)


def _panels(summary: ComparisonSummary) -> list[str]:
    """Return the at most two metrics that get a panel: that of the verdict first, then the main ones."""
    return [name for name in dict.fromkeys([summary.metric, *_MAIN]) if name in summary.measured][:2]


def _figure(panels: int, height: float, *, narrow: bool, legend: int = 0) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side or, if narrow, one above the other; sizes are in inches."""
    rows, columns = (panels, 1) if narrow else (1, panels)
    entries = 0.22 * (legend if narrow else -(-legend // 3)) + (0.15 if legend else 0)
    size = (_NARROW if narrow else _WIDE, rows * (height + 0.55) + entries)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot: no display, no global state
    axes: list[Axes] = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=9)
        each.margins(x=0.06)
    return figure, axes


def _legend(figure: Figure, summary: ComparisonSummary, *, narrow: bool) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for arm in summary.arms:
        colour, marker = _style(summary, arm)
        label = _short(f"{arm.name}, baseline" if arm.is_baseline else arm.name, 44)
        handles.append(Line2D([], [], marker=marker, color=colour, ls="", ms=6, label=label))
    legend = figure.legend(
        handles=handles, loc="outside upper left", ncols=1 if narrow else 3, fontsize=9, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _style(summary: ComparisonSummary, arm: ArmSummary) -> tuple[str, str]:
    """Return the colour and the marker of an arm."""
    if arm.is_baseline:
        return _GREY, "*"
    place = [each.name for each in summary.arms if not each.is_baseline].index(arm.name)
    turn, colour = divmod(place, len(_COLOURS))
    return _COLOURS[colour], _MARKERS[(colour + 3 * turn) % len(_MARKERS)]  # after all colours, another marker


def _short(name: str, limit: int) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def _save(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    with rc_context({"svg.hashsalt": "anomalib-synth"}):  # so that the same plot has the same bytes
        figure.savefig(buffer, format=kind, dpi=130, metadata=metadata)
    return buffer.getvalue()

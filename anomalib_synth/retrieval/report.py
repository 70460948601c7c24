"""What a filter kept and why it refused the rest: a table, and a picture of the scores."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?(?![\w])", re.IGNORECASE)
_NAME = re.compile(r"^([\w-]+): ")
_BINS = 50
_LOWEST = -6.0
# Okabe and Ito's palette: told apart with any colour vision; line styles differ too.
_GREY, _BLUE, _RED = "#666666", "#0072B2", "#D55E00"


@dataclass
class FamilyCount:
    """The samples of one kind of defect.

    Args:
        family: Kind of defect, ``""`` where it is not known.
        drawn: Number of samples.
        accepted: Number of those that were kept.
        reasons: How often each reason, without its numbers, was given.
    """

    family: str
    drawn: int = 0
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def count_by_family(outcomes: Iterable[tuple[str, str]]) -> list[FamilyCount]:
    """Count what was kept, and why the rest was not.

    Args:
        outcomes: Family and reason of each sample; a reason of ``""`` means it is kept. Where the family is ``""``, it
            is taken from a reason that begins with it, as those of generators do.

    Example:
        >>> counts = count_by_family([("stain", ""), ("", "stain: similarity 0.91 below 0.95")])
        >>> counts[0].drawn, counts[0].accepted, dict(counts[0].reasons)
        (2, 1, {'similarity … below …': 1})
    """
    counts: dict[str, FamilyCount] = {}
    for name, reason in outcomes:
        found = _NAME.match(reason)
        family = name or (found.group(1) if found else "")
        count = counts.setdefault(family, FamilyCount(family))
        count.drawn += 1
        if reason:
            count.reasons[_NUMBER.sub("…", _NAME.sub("", reason))] += 1
        else:
            count.accepted += 1
    return [counts[family] for family in sorted(counts)]


def describe_counts(counts: Iterable[FamilyCount]) -> str:
    """Return the counts as a table of text, with a row for all families."""
    counts = list(counts)
    total = FamilyCount("all")
    for count in counts:
        total.drawn += count.drawn
        total.accepted += count.accepted
        total.reasons.update(count.reasons)
    reasons = [reason for reason, _ in total.reasons.most_common()]
    heads = ["family", "drawn", "accepted", "share", *reasons]
    rows = [
        [
            count.family or "unknown",
            str(count.drawn),
            str(count.accepted),
            f"{count.accepted / count.drawn:.0%}" if count.drawn else "-",
            *(str(count.reasons[reason]) for reason in reasons),
        ]
        for count in [*counts, total]
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def draw_scores(
    normals: Sequence[float] | np.ndarray,
    samples: Mapping[str, Sequence[float]],
    *,
    out: Path,
) -> None:
    """Draw histograms of the normals' scores, each against the others, and of samples', with the lower bound.

    Windows of all sizes are in one picture, so scores are in units of their own size's spread. What lies far below is
    counted in the first bin.

    Args:
        normals: Where the normals' windows stand, see ``SizedNormals.stand``: 0 is their median, -1 the lower bound.
        samples: Where samples stand, by what they are called in the picture, such as ``kept`` and ``refused``.
        out: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    normals = np.asarray(normals, dtype=float).clip(_LOWEST)
    shown = {name: np.asarray(values, dtype=float).clip(_LOWEST) for name, values in samples.items() if len(values)}
    everything = np.concatenate([[-1.0, 0.0], normals, *shown.values()])
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high, _BINS + 1).tolist()
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot: no display, no global state
    axes = figure.add_subplot()
    axes.hist(
        normals, edges, weights=np.full(len(normals), 1 / max(1, len(normals))), color=_GREY, alpha=0.35,
        label=f"{len(normals)} windows of normals, each against the others",
    )  # fmt: skip
    for (name, values), colour, style in zip(
        shown.items(), (_BLUE, _RED, "#009E73", "#E69F00"), ("-", "--", ":", "-."), strict=False
    ):
        weights = np.full(len(values), 1 / len(values))
        axes.hist(
            values, edges, weights=weights, histtype="step", color=colour, linestyle=style, linewidth=1.6,
            label=f"{len(values)} samples {name}",
        )  # fmt: skip
    axes.axvline(-1, color="black", linewidth=1, label="lower bound")
    axes.set_xlabel("similarity to the nearest normals: 0 is the median of normals, -1 the lower bound")
    axes.set_ylabel("share")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)

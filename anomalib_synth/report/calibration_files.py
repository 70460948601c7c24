"""Writes the files of a calibration, and prints its results."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

from anomalib_synth.calibration.checkpoints import save_checkpoint
from anomalib_synth.calibration.result import LEVELS, NEXT
from anomalib_synth.installation import quote
from anomalib_synth.report.detector_page import describe_calibration, write_page
from anomalib_synth.report.recall_plot import draw_calibration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anomalib_synth.calibration.result import CalibrationResult
    from anomalib_synth.calibration.run import Calibration
    from anomalib_synth.calibration.scoring import Row
    from anomalib_synth.calibration.statistics import Proportion

_ROW_FIELDS = (
    "role", "path", "family", "strength", "visible", "in_view", "visibility", "area", "score", "peak", "inside",
)  # fmt: skip


def write_calibration(calibration: Calibration, out: Path) -> dict[str, Any]:
    """Write the checkpoint with its new thresholds, the results, the plot and the page into a folder.

    Returns:
        What the page shows, see :func:`.detector_page.describe_calibration`.
    """
    out.mkdir(parents=True, exist_ok=True)
    save_checkpoint(calibration.checkpoint, out / "calibrated.ckpt")
    write_results(calibration.outcome, calibration.rows, calibration.settings, out)
    draw_calibration(
        calibration.outcome,
        calibration.settings["model"],
        [row.score for row in calibration.rows if row.role == "measure"],
        [row.score for row in calibration.rows if row.role == "real"],
        out / "recall.png",
    )
    page = describe_calibration(calibration)
    write_page(page, out / "calibration.html", title=f"Calibration of {page['model']}")
    return page


def write_results(outcome: CalibrationResult, rows: Sequence[Row], settings: Mapping[str, Any], out: Path) -> None:
    """Write ``calibration.json``, ``recall.csv`` (a row for each recall) and ``scores.csv`` (a row for each image)."""
    content = {"settings": dict(settings), **outcome.to_dict()}
    (out / "calibration.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    recalls = [recall.to_dict() for recall in outcome.recalls]
    _write_csv(out / "recall.csv", list(recalls[0]), recalls)
    listed = [{name: _blank(getattr(row, name)) for name in _ROW_FIELDS} for row in rows]
    _write_csv(out / "scores.csv", list(_ROW_FIELDS), listed)


def print_results(outcome: CalibrationResult, notes: Sequence[str], out: Path) -> None:
    """Print the thresholds, a table with a row for each family, and every warning."""
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    console.print(
        f"Image threshold {outcome.image.threshold:.6g} (raw score), set by {outcome.chosen_on} normals for at most "
        f"{100 * outcome.rate:.3g} % false alarms."
    )
    console.print(outcome.guarantee)
    low, high = outcome.expected
    console.print(
        f"False alarms on the {outcome.alarms.of} other normals: {_share(outcome.alarms)}. Expect {low} to {high} "
        f"false alarms in the next {NEXT} good images (95 % of the time)."
    )
    if outcome.pixel is not None and outcome.pixel_alarms is not None:
        console.print(
            f"Pixel threshold {outcome.pixel.threshold:.6g}: {_share(outcome.pixel_alarms)} of the other normals have "
            "a pixel above it."
        )
    console.print(_table(outcome))
    if outcome.real is not None:
        mark = "" if outcome.real.alike else "[bold]WARNING[/bold] "
        console.print(f"{mark}{escape(outcome.real.message)}")
    if outcome.out_of_view:
        drawn = sum(recall.drawn for recall in outcome.recalls)
        console.print(
            f"{outcome.out_of_view} of {drawn} drawn defects do not count, as the model's own transform crops them "
            "away."
        )
    if outcome.undecided and not outcome.unfit:
        console.print(
            f"Only {outcome.strongest.of} defects of the highest strength were visible. That is too few to be sure "
            "that the model finds a larger share of them than of the good images that it calls anomalous. Raise "
            "`per_cell`."
        )
    for note in notes:
        console.print(f"[bold]NOTE[/bold] {escape(note)}")
    report = f"calibration.html, calibration.json, recall.csv, scores.csv and recall.png to {out}"
    if outcome.unfit:
        console.print(f"[bold]UNFIT FOR USE[/bold] This model is not fit for use: {escape(outcome.unfit)}")
        console.print(
            f"Wrote {report}. It also holds calibrated.ckpt, which is as unfit.", soft_wrap=True, markup=False
        )
        return
    console.print(
        f"Wrote calibrated.ckpt, {report}. Predict with the thresholds: anomalib predict --ckpt_path "
        f"{quote(str(out / 'calibrated.ckpt'))}",
        soft_wrap=True,
        markup=False,
    )


def _table(outcome: CalibrationResult) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="The faintest defects found", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("family", no_wrap=True)
    for level in LEVELS:
        table.add_column(f"{level:.0%} found\nfrom", justify="right", no_wrap=True)
    table.add_column("at strongest\n(95 % interval)", justify="right", no_wrap=True)
    table.add_column("located", justify="right", no_wrap=True)
    table.add_column("visible", justify="right", no_wrap=True)
    for family, recalls in outcome.families().items():
        faintest = [outcome.faintest(family, level) for level in LEVELS]
        strongest = recalls[-1]
        visible, drawn = sum(recall.found.of for recall in recalls), sum(recall.drawn for recall in recalls)
        located = strongest.located
        table.add_row(
            escape(family),
            *("-" if value is None else str(value) for value in faintest),
            f"{strongest.found.value:.0%} ({strongest.found.low:.0%}-{strongest.found.high:.0%})"
            if strongest.found.of
            else "none visible",
            "-" if located is None or not located.of else f"{located.value:.0%}",
            f"{visible}/{drawn}",
        )
    return table


def _share(share: Proportion) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def _blank(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _write_csv(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows({name: _blank(value) for name, value in row.items()} for row in rows)

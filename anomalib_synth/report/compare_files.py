"""Writes the files of a comparison (rows, tables, plots and the page), and prints its summary."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from anomalib_synth.comparison.trial_metrics import METRICS, QUALITY
from anomalib_synth.installation import install_extras
from anomalib_synth.report.compare_plots import draw_plots
from anomalib_synth.report.compare_verdicts import describe_method, describe_verdicts
from anomalib_synth.report.templates import load_templates
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anomalib_synth.comparison.paired import Estimate
    from anomalib_synth.comparison.summary import ArmSummary, ComparisonSummary

_DIGITS = 1
_IDENTITY = ("arm", "model", "synthesis", "data", "seed", "config_hash")


def write_outputs(summary: ComparisonSummary, settings: dict[str, Any], out: Path) -> list[str]:
    """Write all files of a comparison.

    Args:
        summary: The comparison so far, with at least one row.
        settings: ``title``, ``metric``, ``spec``, all ``trials``, and the rows of the ``failed`` ones.
        out: The folder.

    Returns:
        Names of the files.
    """
    table = make_frame(summary.rows)
    write_whole(out / "results.csv", table.to_csv(index=False).encode())
    written = ["results.csv"]
    if _has_pyarrow():
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        write_whole(out / "results.parquet", buffer.getvalue())
        written.append("results.parquet")
    text = make_markdown(summary, settings)
    write_whole(out / "table.md", text.encode())
    verdicts = json.dumps(describe_verdicts(summary), indent=1, allow_nan=False, ensure_ascii=False)
    write_whole(out / "verdicts.json", (verdicts + "\n").encode("utf-8", "replace"))
    spec = yaml.safe_dump(asdict(settings["spec"]), sort_keys=False, allow_unicode=True)
    write_whole(out / "spec.yaml", spec.encode())
    pictures = draw_plots(summary)
    for name, formats in pictures.items():
        for suffix, data in formats.items():
            if not suffix.startswith("narrow"):
                write_whole(out / f"{name}.{suffix}", data)
                written.append(f"{name}.{suffix}")
    page = make_page(summary, settings, pictures, spec)
    write_whole(out / "index.html", page.encode("utf-8", "replace"))
    return [*written, "verdicts.json", "table.md", "spec.yaml", "index.html"]


def make_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table, in the order of the trials: names, metrics (shares in [0, 1]), then the rest."""
    raw = [
        {
            name: value / 100 if name in METRICS and METRICS[name].unit == "%" and value is not None else value
            for name, value in row.items()
        }
        for row in rows
    ]
    table = pd.DataFrame(raw)
    first = [*_IDENTITY, *(name for name in METRICS if name in table)]
    return table[[*first, *(name for name in table if name not in first)]]


def make_markdown(summary: ComparisonSummary, settings: dict[str, Any]) -> str:
    """Return the tables in Markdown, with the verdicts and how the numbers were made."""
    names = summary.measured
    lines = [f"# {_plain(settings['title'])}", "", *_verdict_lines(summary), ""]
    lines += ["## Means", "", _row("arm", "runs", *(_heading(name) for name in names)), _rule(2 + len(names))]
    for arm in summary.arms:
        lines.append(_row(_label(arm), f"{arm.runs}/{arm.planned}", *(show_mean(arm.means[n]) for n in names)))
    lines += ["", f"## Differences from {_plain(summary.baseline.name)}", ""]
    lines += [_row("arm", *(_heading(name) for name in names)), _rule(1 + len(names))]
    lines += [_row(arm.name, *(show_gain(arm.gains[n]) for n in names)) for arm in summary.arms if arm.gains]
    for name in _by_data_metrics(summary):
        lines += ["", f"## {METRICS[name].label} by data set", "", _row("arm", *summary.data)]
        lines.append(_rule(1 + len(summary.data)))
        for arm in summary.arms:
            lines.append(_row(_label(arm), *(show_number(arm.means[name].means.get(d)) for d in summary.data)))
    if settings["failed"]:
        lines += ["", "## Failed", ""]
        lines += [f"- {_plain(_describe(row))}: {_plain(row['error'])}" for row in settings["failed"]]
    lines += ["", "## How to read this", "", _plain(describe_method(summary)), ""]
    lines += [f"- {_plain(note)}" for note in summary.notes]
    return "\n".join(lines).rstrip() + "\n"


def make_page(
    summary: ComparisonSummary, settings: dict[str, Any], pictures: dict[str, dict[str, bytes]], spec: str
) -> str:
    """Return the page as one file without scripts; all inserted text is escaped."""
    embedded = {
        name: {suffix: _embed(data) for suffix, data in formats.items() if suffix.endswith("svg")}
        for name, formats in pictures.items()
    }
    environment = load_templates()
    environment.globals.update(show_mean=show_mean, show_gain=show_gain, show_number=show_number)
    return environment.get_template("compare.html").render(
        title=settings["title"],
        summary=summary,
        metrics=METRICS,
        names=summary.measured,
        by_data=_by_data_metrics(summary),
        failed=[{"name": _describe(row), "error": row["error"]} for row in settings["failed"]],
        total=len(settings["trials"]),
        pictures=embedded,
        method=describe_method(summary),
        spec=spec,
        versions={name: sorted({str(row[name]) for row in summary.rows}) for name in _versions(summary)},
    )


def print_summary(summary: ComparisonSummary, written: Sequence[str], out: Path) -> None:
    """Print the table of means and the verdicts."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    names = [name for name in ("image_auroc", "pixel_ap", summary.metric) if name in summary.measured]
    table = Table(box=SIMPLE_HEAD)
    table.add_column("arm")
    for name in [*dict.fromkeys(names), "fit_seconds"]:
        table.add_column(METRICS[name].label, justify="right")
    for arm in summary.arms:
        shown = (show_mean(arm.means[name]) for name in [*dict.fromkeys(names), "fit_seconds"])
        table.add_row(escape(_label(arm)), *shown)
    console.print(table)
    for arm in summary.arms:
        if arm.verdict is not None:
            against = f"{arm.name} against {summary.baseline.name}"
            text = f"{escape(against)}: [bold]{arm.verdict.word}[/]. {escape(arm.verdict.sentence)}"
            console.print(text, soft_wrap=True)
    for note in summary.notes:
        console.print(f"[bold]NOTE[/] {escape(note)}", soft_wrap=True)
    if "results.parquet" not in written:
        remedy = escape(install_extras("compare"))
        console.print(f"[bold]NOTE[/] No results.parquet, as pyarrow is missing: {remedy}", soft_wrap=True)
    console.print(f"Wrote {', '.join(written)} to {out}", soft_wrap=True, markup=False)


def show_mean(estimate: Estimate) -> str:
    """Return a mean and half the width of its interval, as text."""
    if math.isnan(estimate.value):
        return "n/a"
    spread = f" ± {show_number(estimate.half_width)}" if estimate.known else ""
    return f"{show_number(estimate.value)}{spread}"


def show_gain(estimate: Estimate) -> str:
    """Return a difference and its interval, as text."""
    if math.isnan(estimate.value):
        return "n/a"
    interval = f" ({estimate.low:+.{_DIGITS}f} to {estimate.high:+.{_DIGITS}f})" if estimate.known else ""
    return f"{estimate.value:+.{_DIGITS}f}{interval}"


def show_number(value: float | None) -> str:
    """Return a number as the tables show it."""
    if value is None or math.isnan(value):
        return "n/a"
    return f"{value:.{_DIGITS}f}" if abs(value) >= 1 or not value else f"{value:.2g}"  # seconds per sample are below 1


def _by_data_metrics(summary: ComparisonSummary) -> list[str]:
    names = dict.fromkeys([summary.metric, "image_auroc", "pixel_ap"])
    return [name for name in names if name in summary.measured] if len(summary.data) > 1 else []


def _verdict_lines(summary: ComparisonSummary) -> list[str]:
    against = _plain(summary.baseline.name)
    return [
        f"- {_plain(arm.name)} against {against}: **{arm.verdict.word}**. {_plain(arm.verdict.sentence)}"
        for arm in summary.arms
        if arm.verdict is not None
    ]


def _versions(summary: ComparisonSummary) -> list[str]:
    names = ("anomalib_synth", "anomalib", "torch", "lightning", "python", "device", "threads")
    return [name for name in names if all(name in row for row in summary.rows)]


def _label(arm: ArmSummary) -> str:
    return f"{arm.name}, baseline" if arm.is_baseline else arm.name


def _heading(name: str) -> str:
    return METRICS[name].label if name in QUALITY else f"{METRICS[name].label} (less is better)"


def _describe(row: dict[str, Any]) -> str:
    return f"{row['arm']}, {row['data']}, seed {row['seed']}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _rule(columns: int) -> str:
    return f"| --- |{' ---: |' * (columns - 1)}"


def _plain(text: str) -> str:
    """Escape characters that Markdown would read as markup."""
    for mark in ("\\", "|", "`", "*", "_", "<", ">", "[", "]"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _embed(data: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"


def _has_pyarrow() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True

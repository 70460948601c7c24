"""The page of a detector, as plain data and as HTML: whether it is fit, its false alarms, what it misses, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth._version import __version__
from anomalib_synth.calibration.result import LEVELS, NEXT
from anomalib_synth.report.detector_pictures import show_file, show_item
from anomalib_synth.report.templates import load_templates
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.calibration.recall import DefectSetRecall
    from anomalib_synth.calibration.result import CalibrationResult
    from anomalib_synth.calibration.run import Calibration
    from anomalib_synth.calibration.scoring import Item, Row
    from anomalib_synth.calibration.statistics import Proportion

_NEAR = 8  # good images
_REAL = 12


def describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """Return what the page shows of a calibration, ready for JSON, pictures included."""
    outcome, rows = calibration.outcome, calibration.rows
    chosen = {family: _choose(family, outcome, rows) for family in outcome.families()}
    faintest = _faintest(outcome, rows)
    wanted = [row for picks in chosen.values() for row, _ in picks] + ([] if faintest is None else [faintest])
    drawn = calibration.plan.draw_again(wanted)
    families = [
        _describe_family(family, recalls, outcome, chosen[family], drawn)
        for family, recalls in outcome.families().items()
    ]
    alarms = outcome.alarms
    return {
        "fit": not outcome.unfit,
        "because": outcome.unfit,
        "model": calibration.settings["model"],
        "threshold": outcome.image.threshold,
        "rate": outcome.rate,
        "min_recall": outcome.min_recall,
        "chosen_on": outcome.chosen_on,
        "guarantee": outcome.guarantee,
        "alarms": _share(alarms),
        "expected": {"of": NEXT, "low": outcome.expected[0], "high": outcome.expected[1]},
        "more_alarms": alarms.low > outcome.rate,
        "strongest": _share(outcome.strongest),
        "undecided": outcome.undecided,
        "families": sorted(families, key=lambda each: (each["recall"]["value"] or 0.0, each["name"])),
        "faintest": None if faintest is None else _show_faintest(faintest, drawn),
        "near": _near(rows, outcome),
        "real": None if outcome.real is None else _describe_real(rows, outcome),
        "out_of_view": outcome.out_of_view,
        "notes": [note for note in calibration.notes if note],
        "settings": {**calibration.settings, "generator": calibration.settings["generator"]},
        "version": __version__,
    }


def write_page(page: dict[str, Any], path: Path, *, title: str, build: dict[str, Any] | None = None) -> None:
    """Write the page as one file without scripts.

    Args:
        page: What :func:`describe_calibration` returned.
        path: The file.
        title: Heading of the page.
        build: What a build adds; see :func:`anomalib_synth.building.reporting.write_report`.
    """
    text = (
        load_templates()
        .get_template("detector.html")
        .render(page=page, title=title, build=build, settings=json.dumps(page["settings"], indent=1, default=str))
    )
    write_whole(path, text.encode("utf-8", "replace"))


def _share(share: Proportion) -> dict[str, Any]:
    return share.to_dict()


def _choose(family: str, outcome: CalibrationResult, rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """Return the defects of a family to show: the strongest missed, the faintest found, and a strong one."""
    own = [row for row in rows if row.role == "synthetic" and row.family == family and row.visible and row.in_view]
    if not own:
        return []
    found = [row for row in own if row.score > outcome.image.threshold]
    missed = [row for row in own if row not in found]
    picks: list[tuple[Row, str]] = []
    if missed:
        picks.append((max(missed, key=_strength), "missed"))
    if found:
        picks.append((min(found, key=lambda row: (_strength(row), row.score)), "found"))
    strong = max(own, key=lambda row: (_strength(row), row.visibility))
    if all(row is not strong for row, _ in picks):
        picks.append((strong, "found" if strong.score > outcome.image.threshold else "missed"))
    return picks


def _strength(row: Row) -> float:
    return row.strength or 0.0


def _describe_family(
    family: str,
    recalls: Sequence[DefectSetRecall],
    outcome: CalibrationResult,
    picks: Sequence[tuple[Row, str]],
    drawn: dict[int, Item],
) -> dict[str, Any]:
    pictures = []
    for row, how in picks:
        if id(row) in drawn:
            strength = "" if row.strength is None else f" at {row.strength:g}"
            pictures.append({**show_item(drawn[id(row)], f"{how}{strength}"), "found": how == "found"})
    return {
        "name": family,
        "recall": _share(recalls[-1].found),
        "reached": _describe_faintest(family, outcome),
        "strength": recalls[-1].strength,
        "visible": sum(recall.found.of for recall in recalls),
        "drawn": sum(recall.drawn for recall in recalls),
        "curve": _draw_curve(recalls),
        "pictures": pictures,
    }


def _describe_faintest(family: str, outcome: CalibrationResult) -> str:
    """Say at which strength half and nine in ten of the defects are found."""
    said = []
    for level, words in zip(LEVELS, ("half", "nine in ten"), strict=True):
        faintest = outcome.faintest(family, level)
        if faintest is None:
            return ""
        said.append(f"{words} never" if faintest.strength is None else f"{words} from strength {faintest}")
    return f"Found: {', '.join(said)}."


def _draw_curve(
    recalls: Sequence[DefectSetRecall], *, width: float = 120.0, height: float = 36.0
) -> dict[str, str] | None:
    """Return recall over strength, and its interval, as points of SVG polygons."""
    known = [recall for recall in recalls if recall.strength is not None and recall.found.of]
    if len(known) < 2:
        return None
    xs = [width * float(recall.strength or 0.0) for recall in known]

    def line(values: Sequence[float]) -> list[str]:
        return [f"{x:.1f},{height * (1 - value):.1f}" for x, value in zip(xs, values, strict=True)]

    high, low = line([recall.found.high for recall in known]), line([recall.found.low for recall in known])
    return {"line": " ".join(line([recall.found.value for recall in known])), "band": " ".join([*high, *low[::-1]])}


def _faintest(outcome: CalibrationResult, rows: Sequence[Row]) -> Row | None:
    """Return the found defect that changed the image least, measured against the noise of good images."""
    found = [
        row
        for row in rows
        if row.role == "synthetic" and row.visible and row.in_view and row.score > outcome.image.threshold
    ]
    measured = [row for row in found if row.visibility == row.visibility]
    return min(measured or found, key=lambda row: (row.visibility, _strength(row)), default=None)


def _show_faintest(row: Row, drawn: dict[int, Item]) -> dict[str, Any] | None:
    if id(row) not in drawn:
        return None
    strength = "" if row.strength is None else f" at strength {row.strength:g}"
    change = f", {row.visibility:.1f} times the noise of good images" if row.visibility == row.visibility else ""
    area = f", on {row.area:.2%} of the image" if row.area == row.area else ""
    return {**show_item(drawn[id(row)], f"{row.family}{strength}{change}{area}", closer=False), "found": True}


def _near(rows: Sequence[Row], outcome: CalibrationResult) -> list[dict[str, Any]]:
    """Return the good images with the highest scores, which gave a false alarm or nearly did."""
    good = [row for row in rows if row.role in {"choose", "measure"}]
    shown = []
    for row in sorted(good, key=lambda row: -row.score)[:_NEAR]:
        alarm = row.score > outcome.image.threshold
        role = "set the threshold" if row.role == "choose" else "measured it"
        picture = show_file(row, f"{Path(row.path).name}: {row.score:.4g}, {role}", argument="normals")
        if picture is not None:
            shown.append({**picture, "found": not alarm, "word": "alarms" if alarm else "nearly"})
    return shown


def _describe_real(rows: Sequence[Row], outcome: CalibrationResult) -> dict[str, Any]:
    own = sorted((row for row in rows if row.role == "real"), key=lambda row: row.score)
    pictures = []
    for row in own[:_REAL]:
        found = row.score > outcome.image.threshold
        picture = show_file(row, Path(row.path).name, argument="defects", ring=found)
        if picture is not None:
            pictures.append({**picture, "found": found, "word": "found" if found else "missed"})
    real = outcome.real
    return {"message": "" if real is None else real.message, "pictures": pictures, "of": len(own),
            "found": None if real is None else _share(real.found)}  # fmt: skip

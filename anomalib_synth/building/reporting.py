"""The verdict and the report of a build."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from anomalib_synth.building.candidates import LABELS
from anomalib_synth.building.preparing import describe_split
from anomalib_synth.installation import quote
from anomalib_synth.progress import as_duration
from anomalib_synth.report.detector_page import write_page
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from anomalib_synth.building.run import Built
    from anomalib_synth.building.settings import BuildSettings

_PLAIN = {"good", "normal", "normals", "ok", "train", "images", "data"}
_ENOUGH = 5  # real defects that can make a model unfit


def judge(built: Built) -> tuple[bool, str]:
    """Return whether the detector is fit to be deployed, and why, in words."""
    page = built.page
    label = LABELS[built.taken]
    if not page["fit"]:
        return False, f"{label}: {page['because']}"
    real = page["real"]
    if real and real["found"]["of"] >= _ENOUGH and real["found"]["high"] < page["min_recall"]:
        found = real["found"]
        return False, (
            f"{label} finds {found['count']} of {found['of']} real defects, which is surely less than `min_recall` "
            f"({100 * page['min_recall']:.0f} %), though it finds {100 * page['strongest']['value']:.0f} % of the "
            "strongest drawn ones."
        )
    strongest, alarms = page["strongest"], page["alarms"]
    text = (
        f"{label} finds {strongest['count']} of {strongest['of']} of the strongest drawn defects "
        f"({100 * strongest['value']:.0f} %; it is fit for use from {100 * page['min_recall']:.0f} %)"
    )
    if real:
        text += f" and {real['found']['count']} of {real['found']['of']} real ones that it has not learned"
    text += f". {alarms['count']} of {alarms['of']} good images gave a false alarm; "
    expected = page["expected"]
    text += f"expect {expected['low']} to {expected['high']} of the next {expected['of']}."
    return True, text


def write_report(built: Built, settings: BuildSettings) -> tuple[bool, str]:
    """Write ``report.html`` and ``looks.csv``; return whether the detector is fit, and why."""
    fit, verdict = judge(built)
    learned = len(built.prepared.contents["learned"])
    shown = {
        "fit": fit,
        "verdict": verdict,
        "warnings": built.prepared.warnings + ([built.not_exported] if built.not_exported else []),
        "grounds": built.grounds,
        "tried": [*_tried(built)],
        "odd": built.prepared.odd,
        "split": describe_split(built.prepared),
        "learned": f"The model trained on {learned} other real defects, but not on these." if learned else "",
        "use": _uses(built, settings),
    }
    write_page(built.page, settings.out / "report.html", title=f"Detector for {_name(settings)}", build=shown)
    _write_facts(built, settings)
    return fit, verdict


def _name(settings: BuildSettings) -> str:
    """Return the name of the product: that of the folder or, if it only says "good" or the like, of one above."""
    parts = settings.normals.resolve().parts[1:]
    return next((part for part in reversed(parts) if part.lower() not in _PLAIN), settings.normals.name)


def _tried(built: Built) -> list[dict[str, Any]]:
    rows = []
    for standing in built.standings:
        real = standing.real
        rows.append(
            {
                "label": LABELS[standing.name],
                "taken": standing.name == built.taken,
                "synthetic": f"{standing.synthetic[0]:.3f}",
                "synthetic_interval": f"{standing.synthetic[1]:.3f} to {standing.synthetic[2]:.3f}",
                "real": "none there" if real is None else f"{real[0]:.3f}",
                "real_interval": "" if real is None else f"{real[1]:.3f} to {real[2]:.3f}",
                "image": f"{1000 * standing.seconds:.0f} ms",
                "training": as_duration(built.training[standing.name]),
                "left_out": "",
            }
        )
    rows += [{"label": LABELS[name], "left_out": reason} for name, reason in built.plan.left_out.items()]
    return rows


def _uses(built: Built, settings: BuildSettings) -> list[dict[str, str]]:
    uses = [
        {
            "text": "Score, verdict and picture of each image in a folder:",
            "command": f"anomalib-synth predict --detector {quote(str(settings.out))} --images FOLDER --out RESULTS",
        }
    ]
    if built.taken == "discriminative_padim":
        learn = f"anomalib-synth learn --detector {quote(str(settings.out))} --missed FOLDER --false_alarms FOLDER"
        uses.append(
            {
                "text": "Teach it its missed defects and false alarms, in seconds:",
                "command": learn,
            }
        )
    files = ", ".join(
        f"{made['file']} ({kind}, scores equal to the checkpoint's within {max(made['difference'], 1e-7):.0e})"
        for kind, made in built.exports.items()
    )
    if files:
        uses.append({"text": f"In your own program: {files}.", "command": ""})
    return uses


def _write_facts(built: Built, settings: BuildSettings) -> None:
    roles = {
        content: part for part in ("train", "validation", "calibration") for content in built.prepared.contents[part]
    }
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["name", "width", "height", "kind", "brightness", "used_to", "odd", "content"])
    for row in built.prepared.facts:
        odd = row["odd"] or row["difference"] or row["unreadable"]
        writer.writerow(
            [row["name"], *row["size"], row["kind"], round(row["brightness"], 4), roles.get(row["content"], ""), odd,
             row["content"]]
        )  # fmt: skip
    write_whole(settings.out / "looks.csv", file.getvalue().encode("utf-8", "backslashreplace"))

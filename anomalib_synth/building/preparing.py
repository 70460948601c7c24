"""The first steps of a build: look at the images, split them, lay them out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth._version import __version__
from anomalib_synth.building.data_folders import DataFolders, RealDefectFiles, lay_out, list_real_defects
from anomalib_synth.building.image_facts import ImageFacts
from anomalib_synth.building.image_survey import ImageSurvey, distinct, look_at
from anomalib_synth.building.likeness import describe_images, group_look_alikes, name_part
from anomalib_synth.building.oddities import Oddity
from anomalib_synth.building.splitting import reachable_rate, split_defects, split_images, warn_of_few
from anomalib_synth.images import ImageReader, WhitePoint, allow_large_images, list_images, read_bytes
from anomalib_synth.progress import as_duration

if TYPE_CHECKING:
    from anomalib_synth.building.settings import BuildSettings
    from anomalib_synth.building.state import BuildState
    from anomalib_synth.building.timeline import Timeline

_FEW_REAL = 10
_FIELDS = ("name", "content", "size", "kind", "difference", "brightness", "unreadable", "odd")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The images of a build.

    Args:
        folders: Where they are.
        contents: Their digests, by purpose: train, validation, calibration, learned, judged.
        rate: The lowest rate of false alarms that so many images can keep, at least the one that was asked for.
        odd: What is odd, in words.
        warnings: What so few images cannot promise, in words.
        megabytes: Disk that converted copies take, in MiB.
        facts: The facts about each image, as plain data.
        white_point: White point with which images of more than 8 bits were read.
        named: Whether the user named the parts with ``group_by``.
    """

    folders: DataFolders
    contents: dict[str, list[str]]
    rate: float
    odd: list[str]
    warnings: list[str]
    megabytes: float
    facts: list[dict[str, Any]]
    white_point: WhitePoint
    named: bool = False


def prepare(
    settings: BuildSettings, state: BuildState, timeline: Timeline, *, root: Path | None = None, few: int | None = None
) -> Prepared:
    """Look at the images, split them and lay them out.

    Args:
        settings: What is asked for.
        state: The steps that are done, with their results.
        timeline: Shows the progress, and what is odd.
        root: The folder for the images; None takes ``images`` in the folder of the build.
        few: Lay out only so many training images and no others, for a dry run; None lays out all.

    Raises:
        ValueError: If there are too few images, or one is both among the good images and among the defects.
    """
    survey = _look(settings, state, timeline)
    parts = _name_parts(survey, settings.group_by)
    split = split_images(survey.groups, settings.false_alarm_rate, settings.seed, parts)
    held = len(split.calibration)
    count = len(survey.groups)
    odd = [oddity.text for oddity in survey.oddities]
    odd += list_images(settings.normals).notes({image.name: image.unreadable for image in survey.unreadable})
    warnings = warn_of_few(count, held, settings.false_alarm_rate)
    if settings.defects is None:
        found = RealDefectFiles(defects={}, groups=[], odd=[])
    else:
        found = list_real_defects(settings.defects, settings.marks, survey)
    real = found.defects
    can_learn = "discriminative_padim" in settings.models
    learned, judged = split_defects(found.groups, settings.seed, least=_FEW_REAL if can_learn else len(real) + 1)
    for line in [*odd, *found.odd]:
        timeline.say(f"- {line}")
    for line in warnings:
        timeline.say(f"WARNING {line}")
    laid = replace(split, train=split.train[:few], validation=[], calibration=[]) if few else split
    timeline.start("lay out", "Laying out the images")
    folders = lay_out(
        survey, laid, root or settings.out / "images", learned=[] if few else [real[each] for each in learned],
        judged=[] if few else [real[each] for each in judged], marks=settings.marks,
        together={} if few else _together(survey, parts or _find_look_alikes(survey, state, timeline)),
    )  # fmt: skip
    timeline.finish()
    converted = [image for image in survey.images if image.difference]
    return Prepared(
        folders=folders,
        contents={**asdict(split), "learned": learned, "judged": judged},
        rate=reachable_rate(held, settings.false_alarm_rate),
        odd=[*odd, *found.odd],
        warnings=warnings,
        megabytes=sum(image.size[0] * image.size[1] * 1.5 for image in converted) / 2**20,
        facts=[_describe(image) for image in [*survey.images, *survey.unreadable]],
        white_point=survey.white_point,
        named=bool(parts),
    )


def _name_parts(survey: ImageSurvey, group_by: str | None) -> list[str]:
    """Return the part that each group of near copies shows, by its name; ``[]`` without ``group_by``.

    Raises:
        ValueError: If the expression is not found in a name.
    """
    images = distinct(survey.images)
    return [] if group_by is None else [name_part(images[group[0]].name, group_by) for group in survey.groups]


def _find_look_alikes(survey: ImageSurvey, state: BuildState, timeline: Timeline) -> list[str]:
    """Return a name for each group of near copies; groups that look alike have the same name."""
    inputs = [__version__, survey.groups]
    found: list[str] | None = state.find("look-alikes", inputs)
    if found is not None:
        return found
    timeline.start("look-alikes", "Finding images that look alike")
    started = time.monotonic()
    images, reader = distinct(survey.images), ImageReader(None, survey.white_point)
    with allow_large_images():
        pixels = (reader.decode(read_bytes(images[group[0]].path)) for group in survey.groups)
        vectors = describe_images(pixels, len(survey.groups), advance=timeline.advance)
    names = [str(each) for each in group_look_alikes(vectors)]
    state.save("look-alikes", inputs, names, seconds=time.monotonic() - started)
    timeline.finish()
    return names


def _together(survey: ImageSurvey, names: list[str]) -> dict[str, str]:
    return {content: name for group, name in zip(survey.groups, names, strict=True) for content in group}


def describe_split(prepared: Prepared) -> str:
    """Say how many images serve which purpose."""
    count = {name: len(contents) for name, contents in prepared.contents.items()}
    text = (
        f"{count['train']} good images train, {count['validation']} compare the models, {count['calibration']} set and "
        "measure the threshold. No picture"
    )
    text += " and no part (`group_by`)" if prepared.named else ""
    text += " is in two of these sets."
    if count["learned"] or count["judged"]:
        learned = f"{count['learned']} train DiscriminativePadim" if count["learned"] else "none trains a model"
        text += f" Of the real defects {learned}, and {count['judged']} are kept for the evaluation."
    return text


def _look(settings: BuildSettings, state: BuildState, timeline: Timeline) -> ImageSurvey:
    """Survey the folder, or return the survey of an earlier run if no file has changed."""
    files = list_images(settings.normals).files
    stamps = [[name, *_stamp(path)] for name, path in files.items()]
    inputs: list[Any] = [__version__, str(settings.normals.resolve()), stamps]
    inputs += [] if settings.bit_depth is None else [settings.bit_depth]
    found = state.find("look", inputs)
    if found is not None:
        return _restore(found, files)
    timeline.start("look", f"Looking at {len(files)} images")
    started = time.monotonic()
    survey = look_at(settings.normals, bit_depth=settings.bit_depth, advance=timeline.advance)
    kept = {
        "images": [_describe(image) for image in survey.images],
        "unreadable": [_describe(image) for image in survey.unreadable],
        "oddities": [asdict(oddity) for oddity in survey.oddities],
        "groups": survey.groups,
        "white_point": survey.white_point.to_dict(),
    }
    seconds = time.monotonic() - started
    state.save("look", inputs, kept, seconds=seconds)
    timeline.finish()
    timeline.say(f"{len(survey.images)} images, {len(survey.groups)} of them different ({as_duration(seconds)}).")
    return survey


def _stamp(path: Path) -> tuple[int, int]:
    """Return size and time of the last change; zeros for a broken link."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _describe(image: ImageFacts) -> dict[str, Any]:
    return {name: getattr(image, name) for name in _FIELDS}


def _restore(kept: dict[str, Any], files: dict[str, Path]) -> ImageSurvey:
    def rows(key: str) -> list[ImageFacts]:
        return [ImageFacts(path=files[row["name"]], **{**row, "size": tuple(row["size"])}) for row in kept[key]]

    return ImageSurvey(
        images=rows("images"),
        unreadable=rows("unreadable"),
        oddities=[Oddity(**each) for each in kept["oddities"]],
        groups=kept["groups"],
        white_point=WhitePoint.from_dict(kept["white_point"]),
    )

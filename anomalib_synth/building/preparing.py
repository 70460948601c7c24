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
        contents: Their digests, by what they are for: train, validation, calibration, learned, judged.
        rate: The rate of false alarms that they allow.
        odd: What is odd, in words.
        warnings: What they cannot promise, in words.
        megabytes: Disk that converted copies take.
        looks: What each image is, a row an image.
        white_point: White of images of more than 8 bits, as they were read.
        named: Whether the user named the parts.
    """

    folders: DataFolders
    contents: dict[str, list[str]]
    rate: float
    odd: list[str]
    warnings: list[str]
    megabytes: float
    looks: list[dict[str, Any]]
    white_point: WhitePoint
    named: bool = False


def prepare(
    settings: BuildSettings, state: BuildState, timeline: Timeline, *, root: Path | None = None, few: int | None = None
) -> Prepared:
    """Look at the images, split them and lay them out.

    Args:
        settings: What is asked for.
        state: What was seen before.
        timeline: Where it shows how far it is, and what is odd.
        root: The folder for the images, ``images`` in that of the build unless given.
        few: Lay out no more than so many, to train with; for a dry run.

    Raises:
        ValueError: If there are too few images, or one that is good and has a defect.
    """
    looks = _look(settings, state, timeline)
    parts = _name_parts(looks, settings.group_by)
    split = split_images(looks.groups, settings.false_alarm_rate, settings.seed, parts)
    held = len(split.calibration)
    count = len(looks.groups)
    odd = [oddity.text for oddity in looks.oddities]
    odd += list_images(settings.normals).notes({look.name: look.unreadable for look in looks.unreadable})
    warnings = warn_of_few(count, held, settings.false_alarm_rate)
    if settings.defects is None:
        found = RealDefectFiles(defects={}, groups=[], odd=[])
    else:
        found = list_real_defects(settings.defects, settings.marks, looks)
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
        looks, laid, root or settings.out / "images", learned=[] if few else [real[each] for each in learned],
        judged=[] if few else [real[each] for each in judged], marks=settings.marks,
        together={} if few else _together(looks, parts or _find_look_alikes(looks, state, timeline)),
    )  # fmt: skip
    timeline.finish()
    converted = [look for look in looks.images if look.difference]
    return Prepared(
        folders=folders,
        contents={**asdict(split), "learned": learned, "judged": judged},
        rate=reachable_rate(held, settings.false_alarm_rate),
        odd=[*odd, *found.odd],
        warnings=warnings,
        megabytes=sum(look.size[0] * look.size[1] * 1.5 for look in converted) / 2**20,
        looks=[_describe(look) for look in [*looks.images, *looks.unreadable]],
        white_point=looks.white_point,
        named=bool(parts),
    )


def _name_parts(looks: ImageSurvey, group_by: str | None) -> list[str]:
    """Return which part each group of near copies is a picture of, by its name; nothing where the user does not say.

    Raises:
        ValueError: If the user's expression is not in a name.
    """
    images = distinct(looks.images)
    return [] if group_by is None else [name_part(images[group[0]].name, group_by) for group in looks.groups]


def _find_look_alikes(looks: ImageSurvey, state: BuildState, timeline: Timeline) -> list[str]:
    """Return which groups of near copies look alike: the same name for those that do."""
    inputs = [__version__, looks.groups]
    found: list[str] | None = state.find("look-alikes", inputs)
    if found is not None:
        return found
    timeline.start("look-alikes", "Finding images that look alike")
    started = time.monotonic()
    images, reader = distinct(looks.images), ImageReader(None, looks.white_point)
    with allow_large_images():
        pixels = (reader.decode(read_bytes(images[group[0]].path)) for group in looks.groups)
        vectors = describe_images(pixels, len(looks.groups), advance=timeline.advance)
    names = [str(each) for each in group_look_alikes(vectors)]
    state.save("look-alikes", inputs, names, seconds=time.monotonic() - started)
    timeline.finish()
    return names


def _together(looks: ImageSurvey, names: list[str]) -> dict[str, str]:
    return {content: name for group, name in zip(looks.groups, names, strict=True) for content in group}


def describe_split(prepared: Prepared) -> str:
    """Say in words how many images are for what."""
    count = {name: len(contents) for name, contents in prepared.contents.items()}
    text = (
        f"{count['train']} good images train, {count['validation']} compare the models, {count['calibration']} set and "
        "measure the threshold; no two of different groups show the same"
    )
    text += ", nor one part, by `group_by`." if prepared.named else "."
    if count["learned"] or count["judged"]:
        learned = f"{count['learned']} train DiscriminativePadim, " if count["learned"] else "none trains, "
        text += f" Of the real defects {learned}{count['judged']} judge."
    return text


def _look(settings: BuildSettings, state: BuildState, timeline: Timeline) -> ImageSurvey:
    """Return what is in the folder, as it was seen before if no file has changed."""
    files = list_images(settings.normals).files
    stamps = [[name, *_stamp(path)] for name, path in files.items()]
    inputs: list[Any] = [__version__, str(settings.normals.resolve()), stamps]
    inputs += [] if settings.bit_depth is None else [settings.bit_depth]
    found = state.find("look", inputs)
    if found is not None:
        return _restore(found, files)
    timeline.start("look", f"Looking at {len(files)} images")
    started = time.monotonic()
    looks = look_at(settings.normals, bit_depth=settings.bit_depth, advance=timeline.advance)
    kept = {
        "images": [_describe(look) for look in looks.images],
        "unreadable": [_describe(look) for look in looks.unreadable],
        "oddities": [asdict(oddity) for oddity in looks.oddities],
        "groups": looks.groups,
        "white_point": looks.white_point.to_dict(),
    }
    seconds = time.monotonic() - started
    state.save("look", inputs, kept, seconds=seconds)
    timeline.finish()
    timeline.say(f"{len(looks.images)} images, {len(looks.groups)} of them different ({as_duration(seconds)}).")
    return looks


def _stamp(path: Path) -> tuple[int, int]:
    """Return size and time of the last change; of a link that leads nowhere, none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _describe(look: ImageFacts) -> dict[str, Any]:
    return {name: getattr(look, name) for name in _FIELDS}


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

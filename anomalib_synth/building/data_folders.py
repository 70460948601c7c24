"""The images of a build, laid out in folders that every command can read, with the same pixels in every reader."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.building.image_facts import ImageFacts
from anomalib_synth.building.image_survey import distinct, make_thumbnail
from anomalib_synth.building.learned import write_learned
from anomalib_synth.building.oddities import group_near_copies
from anomalib_synth.defects import list_defects
from anomalib_synth.engines.convert import name_copies, name_png
from anomalib_synth.images import (
    ImageReader,
    UnreadableImageError,
    WhitePoint,
    allow_large_images,
    digest_pixels,
    find_white_point,
    read_bytes,
)
from anomalib_synth.images.agreement import find_difference
from anomalib_synth.store import encode_png
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

    from anomalib_synth.building.image_survey import ImageSurvey
    from anomalib_synth.building.splitting import Split
    from anomalib_synth.defects import RealDefect

_SHOWN = 40  # characters that are kept of a file's name when something is added to it
PARTS = ("train", "validation", "calibration")


@dataclass(frozen=True, kw_only=True)
class DataFolders:
    """Where the images of a build are.

    Args:
        root: The folder that holds the others.
        learned: Files of the real defects that train the model.
        marks: Where these are marked; None looks beside them.
        judged: Number of real defects that are kept for the evaluation.
        groups: For each good image of the calibration, the name of its group of images that belong together.
    """

    root: Path
    learned: list[Path]
    marks: Path | None
    judged: int
    groups: dict[Path, str]

    @property
    def train(self) -> Path:
        """Good images that train the models."""
        return self.root / "train"

    @property
    def validation(self) -> Path:
        """Good images on which the models are compared."""
        return self.root / "validation"

    @property
    def calibration(self) -> Path:
        """Good images that set and measure the threshold."""
        return self.root / "calibration"

    @property
    def defects(self) -> Path | None:
        """Real defects that are kept for the evaluation, None if there are none."""
        return self.root / "defects" if self.judged else None


@dataclass(frozen=True, kw_only=True)
class RealDefectFiles:
    """The real defects of a build.

    Args:
        defects: One defect for each different content (digest).
        groups: The contents, near copies in one group.
        odd: What is odd about them, in words.
    """

    defects: dict[str, RealDefect]
    groups: list[list[str]]
    odd: list[str]


def list_real_defects(defects: Path, marks: Path | None, normals: ImageSurvey) -> RealDefectFiles:
    """Return the real defects by content, and what is odd about them.

    Raises:
        ValueError: If there is no defect, one cannot be read, or its image is among the good images.
    """
    listed = list_defects(defects, marks=marks)
    reader = _reader_of((defect.image for defect in listed), normals.white_point)
    good = distinct(normals.images)
    found: dict[str, RealDefect] = {}
    thumbnails = []
    both = []
    for defect in listed:
        pixels = _read(defect.image, reader)
        content = digest_pixels(pixels)
        if content in good:
            both.append((defect, good[content]))
        if content not in found:
            found[content] = defect
            thumbnails.append(make_thumbnail(pixels))
    if both:
        defect, image = both[0]
        msg = (
            f"`defects` must not hold images that are in `normals`, got {len(both)}, such as {str(defect.image)!r} "
            f"(there {image.name!r}). Take them out of one of the two folders."
        )
        raise ValueError(msg)
    contents = list(found)
    groups = [[contents[n] for n in group] for group in group_near_copies(thumbnails)]
    copies, near = len(listed) - len(found), len(found) - len(groups)
    odd = [f"{copies} real defects are copies of others and count once."] if copies else []
    odd += [f"{near} real defects are nearly the same as others; such images stay together."] if near else []
    return RealDefectFiles(defects=found, groups=groups, odd=odd)


def _read(path: Path, reader: ImageReader) -> np.ndarray:
    """Return the 8-bit image of a file, (H, W, 3).

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with allow_large_images():
            return reader.decode(read_bytes(path))
    except UnreadableImageError as error:
        msg = f"`defects` holds an unreadable image, {str(path)!r}: {error}. Replace it, or take it away."
        raise ValueError(msg) from error


def lay_out(
    survey: ImageSurvey,
    split: Split,
    root: Path,
    *,
    learned: Sequence[RealDefect] = (),
    judged: Sequence[RealDefect] = (),
    marks: Path | None = None,
    together: Mapping[str, str] | None = None,
) -> DataFolders:
    """Fill the folders of a build. Files that are already right stay, and files that do not belong are deleted.

    A file that anomalib reads with the same pixels is hard-linked, or copied if the disk does not allow that. Any other
    file is converted.

    Args:
        survey: The good images.
        split: Which content trains, compares and calibrates.
        root: The folder.
        learned: Real defects that train the model.
        judged: Real defects that are kept for the evaluation.
        marks: Where the defects are marked.
        together: Name of the group of each content; contents of one group belong together.
    """
    images = distinct(survey.images)
    reader = ImageReader(None, survey.white_point)
    files_of = {}
    for part in PARTS:
        chosen = [images[content] for content in getattr(split, part)]
        files_of[part] = _fill(root / part, {image.name: image.path for image in chosen}, _converted(chosen), reader)
    files = [defect.image for defect in judged]
    names = {f"{n:04d}_{path.stem[:_SHOWN]}{path.suffix}": path for n, path in enumerate(files)}
    odd = {name for name, path in names.items() if find_difference(path)}
    _fill(root / "defects", names, odd, _reader_of(names.values(), survey.white_point))
    files = [defect.image for defect in learned]
    if any(find_difference(path) for path in files):
        files, marks = write_learned(learned, root / "learned", _reader_of(files, survey.white_point)), None
    held = files_of["calibration"]
    groups = {held[images[content].name]: together[content] for content in split.calibration} if together else {}
    return DataFolders(root=root, learned=files, marks=marks, judged=len(judged), groups=groups)


def _reader_of(files: Iterable[Path], white_point: WhitePoint) -> ImageReader:
    """Return a reader of defects with the white point of the good images or, if they have none, of the defects."""
    return ImageReader(None, white_point if str(white_point) else find_white_point(files))


def _converted(images: Sequence[ImageFacts]) -> set[str]:
    return {image.name for image in images if image.difference}


def _fill(folder: Path, files: dict[str, Path], converted: set[str], reader: ImageReader) -> dict[str, Path]:
    """Fill a folder with files; return the path of each, by name."""
    targets = {name: folder / name for name in files if name not in converted}
    copies = name_copies({name: files[name] for name in files if name in converted}, folder)
    taken = set(targets.values())
    for name, target in copies.items():
        targets[name] = target if target not in taken else target.with_name(name_png(f"{target.stem}_converted"))
    for name, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in converted:
            data = encode_png(reader.decode(read_bytes(files[name])))
            if not (target.is_file() and target.read_bytes() == data):
                write_whole(target, data)
        else:
            link(files[name], target)
    wanted = {str(target) for target in targets.values()}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file() and str(path) not in wanted:
            path.unlink()
    return targets


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where a link is impossible."""
    if target.is_file() and (source.samefile(target) or _is_same(source, target)):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        work = target.with_name(f".{target.name[:_SHOWN]}.part")
        shutil.copy2(source, work)
        work.replace(target)


def _is_same(source: Path, target: Path) -> bool:
    return source.stat().st_size == target.stat().st_size and source.read_bytes() == target.read_bytes()

"""Where the marks of an image lie: beside it, in a folder beside its own, or in one file for many images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.defects.no_defect import NO_DEFECT_FILE
from anomalib_synth.images import MASK_ENDING, SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK_FOLDERS = ("ground_truth", "masks")
LABEL_FOLDER = "labels"
_IMAGES = "images"
_TESTED = "test"  # in MVTec's layout, whose are in `ground_truth`
_GOOD = {"good", "normal", "normals", "ok"}  # of which nobody keeps marks
NAME_FILES = ("data.yaml", "classes.txt")
_ABOVE = 2  # how many folders above the given one are searched for marks
_DATASETS = ("annotations.json", "instances*.json", "*.coco.json", "annotations.xml")


@dataclass
class Places:
    """Folders in which the marks of an image may lie.

    Args:
        masks: Folders of masks, ``<stem>_mask.png`` or ``<stem>.png``.
        own: Folders that hold the images as well, so that only ``<stem>_mask.png`` is a mask.
        labelme: Folders of LabelMe files, ``<stem>.json``.
        yolo: Folders of YOLO labels, ``<stem>.txt``.
        datasets: Folders that may hold one file for many images.
        said: Folders with a file of the images without a defect, each with the folder in or below it in which the
            marks of this image would lie.
        rivals: Of a folder of marks, others of images laid out alike, whose marks they might be as well.
    """

    masks: list[Path] = field(default_factory=list)
    own: list[Path] = field(default_factory=list)
    labelme: list[Path] = field(default_factory=list)
    yolo: list[Path] = field(default_factory=list)
    datasets: list[Path] = field(default_factory=list)
    said: list[tuple[Path, Path]] = field(default_factory=list)
    rivals: dict[Path, list[Path]] = field(default_factory=dict)

    def find_masks(self, image: Path) -> list[Path]:
        """Return the masks of an image, at most one a folder."""
        stems: list[tuple[Path, tuple[str, ...]]] = []
        stems += [(folder, (f"{image.stem}{MASK_ENDING}", image.stem)) for folder in self.masks]
        stems += [(folder, (f"{image.stem}{MASK_ENDING}",)) for folder in self.own]
        found = []
        for folder, names in stems:
            candidates = (folder / f"{name}{suffix}" for name in names for suffix in sorted(SUFFIXES))
            mask = next((each for each in candidates if _is_file(each) and each.resolve() != image.resolve()), None)
            if mask is not None:
                found.append(mask)
        return _unique(found)

    def find_labelme(self, image: Path) -> list[Path]:
        """Return the JSON files that have an image's name."""
        return _unique(file for folder in self.labelme if _is_file(file := folder / f"{image.stem}.json"))

    def find_yolo(self, image: Path) -> list[Path]:
        """Return the text files that have an image's name."""
        return _unique(
            file
            for folder in self.yolo
            if _is_file(file := folder / f"{image.stem}.txt") and file.name not in NAME_FILES
        )

    def find_rival(self, mark: Path, image: Path) -> Path | None:
        """Return another image that a mark of an image might be meant for, in a folder that nobody asked for."""
        named = (folder / f"{image.stem}{suffix}" for folder in self.rivals.get(mark.parent, ()) for suffix in SUFFIXES)
        return next((path for path in named if _is_file(path)), None)


def find_beside(image: Path, base: Path) -> Places:
    """Return where the marks of an image are looked for when the user names no place.

    Args:
        image: The image.
        base: The folder that was given, or that of the file.
    """
    folder = base.resolve() / image.parent.relative_to(base)
    above = list(_parents(folder, base.resolve()))
    mirrored = list(_mirrored(folder, above, MASK_FOLDERS))
    masks, yolo = _existing(mirrored), _existing(_mirrored(folder, above, (LABEL_FOLDER,)))
    return Places(
        masks=masks,
        own=[image.parent],
        labelme=_unique([image.parent, *masks]),
        yolo=yolo,
        datasets=_existing(place for parent in above for place in (parent, parent / "annotations")),
        said=_find_said([folder, *mirrored], base),
        rivals={place: _find_rivals(place, folder, above) for place in _unique([*masks, *yolo])},
    )


def find_said_beside(image: Path, base: Path) -> list[tuple[Path, Path]]:
    """Return where it may be said that an image has no defect, in its own folder and above; see :class:`Places`.

    Args:
        image: The image.
        base: The folder that was given, or that of the file.
    """
    return _find_said([base.resolve() / image.parent.relative_to(base)], base)


def find_within(image: Path, base: Path, marks: Path) -> Places:
    """Return where the marks of an image are looked for in a folder of marks: laid out like the images, or flat.

    Args:
        image: The image.
        base: The folder that was given, or that of the file.
        marks: The folder of marks.
    """
    below = image.parent.relative_to(base)
    possible = [marks / below, marks / image.parent.resolve().name, marks]
    folders = _existing(possible)
    beside = [folder for folder in folders if folder.resolve() == image.parent.resolve()]
    apart = [folder for folder in folders if folder not in beside]
    datasets = _existing([marks, marks / "annotations"])
    said = [*_find_said([folder.resolve() for folder in possible], marks), *find_said_beside(image, base)]
    return Places(masks=apart, own=beside, labelme=folders, yolo=folders, datasets=datasets, said=said)


def find_datasets(folders: Iterable[Path]) -> list[Path]:
    """Return the files for many images in some folders."""
    patterns = ((folder, pattern) for folder in _unique(folders) for pattern in _DATASETS)
    found = (file for folder, pattern in patterns for file in sorted(folder.glob(pattern)))
    return _unique(file for file in found if file.is_file() and not file.name.startswith("."))


def find_names(labels: Path) -> Path | None:
    """Return the file that names the classes of a YOLO label file, from its folder or the nearest of two above."""
    folders = (labels.parent, *list(labels.resolve().parent.parents)[:_ABOVE])
    return next((file for folder in folders for name in NAME_FILES if (file := folder / name).is_file()), None)


def _parents(folder: Path, base: Path) -> list[Path]:
    """Return a folder and those above it, up to two folders above the one that was given."""
    last = base.parents[min(_ABOVE, len(base.parents)) - 1] if base.parents else base
    return [each for each in (folder, *folder.parents) if each == last or last in each.parents]


def _find_said(folders: Iterable[Path], base: Path) -> list[tuple[Path, Path]]:
    """Return the folders with a file of images without a defect: folders of marks, there or not, and those above."""
    pairs = ((above, folder) for folder in folders for above in _parents(folder, base.resolve()))
    return [(above, folder) for above, folder in pairs if (above / NO_DEFECT_FILE).is_file()]


def _mirrored(folder: Path, above: list[Path], names: tuple[str, ...]) -> Iterator[Path]:
    """Yield folders laid out like that of an image: ``test/dent`` has ``ground_truth/dent`` and ``test/masks/dent``.

    Where a folder ``images`` lies beside the image's folder, ``masks`` and ``labels`` belong to ``images``.
    """
    for parent in above:
        parts = folder.relative_to(parent).parts
        for name in names:
            yield parent / name / Path(*parts)
            if parts and not _are_of_others(parent, parts, name):
                yield parent / name / Path(*parts[1:])


def _are_of_others(parent: Path, parts: tuple[str, ...], name: str) -> bool:
    """Return whether marks are those of a folder of the usual name that lies beside the one in question."""
    usual = _usual(name)
    return parts[0] not in usual and any((parent / each / Path(*parts[1:])).is_dir() for each in usual)


def _usual(name: str) -> set[str]:
    """Return what folders of images are called whose marks are in a folder of some name."""
    return {_IMAGES, _TESTED} if name == MASK_FOLDERS[0] else {_IMAGES}


def _find_rivals(marks: Path, folder: Path, above: list[Path]) -> list[Path]:
    """Return folders like that of an image which a folder of marks might be of too: ``photos`` for ``defects``."""
    for parent in above:
        parts = folder.relative_to(parent).parts
        names = [name for name in (*MASK_FOLDERS, LABEL_FOLDER) if marks == parent / name / Path(*parts[1:])]
        if parts and names and parts[0] not in _usual(names[0]):
            beside = (each for each in sorted(parent.iterdir()) if not _is_no_rival(each.name, parts[0]))
            return [place for each in beside if (place := each / Path(*parts[1:])).is_dir()]
    return []


def _is_no_rival(name: str, own: str) -> bool:
    return name == own or name.lower() in _GOOD or name in {*MASK_FOLDERS, LABEL_FOLDER}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the image's name and ``_mask`` can be too long for the file system
        return False


def _existing(folders: Iterable[Path]) -> list[Path]:
    return _unique(folder for folder in folders if folder.is_dir())


def _unique(paths: Iterable[Path]) -> list[Path]:
    """Return each file or folder once, whatever paths lead to it."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.resolve(), path)
    return list(found.values())

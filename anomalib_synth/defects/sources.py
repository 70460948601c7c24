"""Finds the files that mark defects, tells their formats apart by content, and matches them to the images."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from anomalib_synth.defects.annotation_files import AnnotationFile, MarkedImage
from anomalib_synth.defects.coco import is_coco, read_coco
from anomalib_synth.defects.cvat import read_cvat
from anomalib_synth.defects.labelme import is_labelme, read_labelme, says_good, says_nothing
from anomalib_synth.defects.layout import find_datasets, find_names
from anomalib_synth.defects.marks import Mark
from anomalib_synth.defects.shapes import MaskFile
from anomalib_synth.defects.strays import refuse_strays
from anomalib_synth.defects.yolo import read_names, read_yolo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anomalib_synth.defects.layout import Places


_SUBSETS = {"default", "images", "test", "train", "val", "valid"}  # folders that tools put images into
_LOST: Literal["lost"] = "lost"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotationSource:
    """One file that says something about an image.

    Args:
        files: The file, then others it needs.
        read: Returns the marks, given the height and width of the image.
        is_upright: Whether the coordinates are on the upright image: LabelMe turns the images it opens.
        group: Sources of one group may mark an image together: masks and LabelMe files, which hold a mask's type.
        is_empty: Whether it marks nothing; a source that marks something then takes precedence.
    """

    files: tuple[Path, ...]
    read: Callable[[int, int], MarkedImage]
    is_upright: bool = False
    group: str = ""
    is_empty: bool = False


class SourceReader:
    """Finds the annotation sources of images.

    Args:
        images: All images that are there, good ones too.
        argument: Name of the argument, for errors.
        base: Folder that holds exactly these images, so that a mark without an image is an error; None for files.
        is_given: Whether the user named where the marks are, so that a file there that marks nothing is an error.
    """

    def __init__(self, images: list[Path], argument: str, *, base: Path | None, is_given: bool) -> None:
        self.argument = argument
        self.base = base
        self.is_given = is_given
        self._found: dict[Path, list[AnnotationSource]] = defaultdict(list)
        self._names: dict[Path, dict[int, str]] = {}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            self._by_name[image.name].append(image)

    def read(
        self, chosen: Iterable[Path], places: dict[Path, Places], dataset: Path | None
    ) -> dict[Path, list[AnnotationSource]]:
        """Return the sources of each image.

        Args:
            chosen: The images with a defect.
            places: Where to look, by image, of all images.
            dataset: The one file to read for all images; None to look for such files.

        Raises:
            ValueError: If a file is malformed, two say different things, or one belongs to no image.
        """
        owners: dict[Path, Path] = {}
        for image in chosen:
            for source in self._find_single(image, places[image]):
                file = source.files[0]
                owner = owners.setdefault(file.resolve(), image)
                owner = owner if owner != image else places[image].find_rival(file, image) or image
                if owner != image:
                    msg = (
                        f"`{self.argument}` must belong to one image each, but {str(file)!r} fits {str(owner)!r} and "
                        f"{str(image)!r}. Lay the marks out in folders like the images, or name theirs by "
                        f"`{self.argument}`."
                    )
                    raise ValueError(msg)
                self._found[image].append(source)
        if dataset is not None:
            self._read_dataset(dataset)
        else:
            for path in find_datasets(folder for place in places.values() for folder in place.datasets):
                self._read_dataset(path)
        for image, sources in self._found.items():
            self._check_one_source(image, sources)
        if self.base is not None:
            refuse_strays(places, self.argument)
        return self._found

    def _find_single(self, image: Path, places: Places) -> Iterable[AnnotationSource]:
        """Yield the files that belong to one image."""
        masks = places.find_masks(image)
        if len(masks) > 1:
            self._refuse_two(image, masks)
        for path in masks:
            yield AnnotationSource(files=(path,), read=self._mask_reader(path, image), group="mask")
        for path in places.find_labelme(image):
            file = AnnotationFile(path, self.argument)
            content = file.read_json()
            if is_labelme(content):
                found = read_labelme(file, content)
                if not says_nothing(content):
                    is_empty = says_good(content)
                    yield AnnotationSource((path,), _always(found), is_upright=True, group="mask", is_empty=is_empty)
            elif self.is_given:
                file.refuse("is no LabelMe file: it has no `shapes`")
        for path in places.find_yolo(image):
            named = find_names(path)
            if named is not None and named not in self._names:
                self._names[named] = read_names(AnnotationFile(named, self.argument))
            names = {} if named is None else self._names[named]
            files = (path,) if named is None else (path, named)
            is_empty = not AnnotationFile(path, self.argument).read_text().strip()
            yield AnnotationSource(files=files, read=self._yolo_reader(path, names), is_empty=is_empty)

    def _mask_reader(self, path: Path, image: Path) -> Callable[[int, int], MarkedImage]:
        shape = MaskFile(path, image, self.argument)
        return _always(
            MarkedImage(name="", size=None, marks=[Mark(kind="mask", shape=shape, where=f"The mask {str(path)!r}")])
        )

    def _yolo_reader(self, path: Path, names: dict[int, str]) -> Callable[[int, int], MarkedImage]:
        return lambda height, width: read_yolo(AnnotationFile(path, self.argument), names, height, width)

    def _read_dataset(self, path: Path) -> None:
        """Read one file for many images, and give each image its own marks."""
        file = AnnotationFile(path, self.argument)
        if path.suffix.lower() == ".xml":
            entries = read_cvat(file)
        else:
            content = file.read_json()
            if not is_coco(content):
                if self.is_given:
                    file.refuse("is no COCO file: it has no `images` and `annotations`")
                return
            entries = read_coco(file, content)
        matched = [(entry, self._match(file, entry)) for entry in entries]
        if not self._is_ours(file, matched):
            _logger.warning("%r lies above the images and names none of them, so it is not used.", str(path))
            return
        taken: dict[Path, MarkedImage] = {}
        for entry, found in matched:
            if found == _LOST and (entry.marks or entry.types):
                file.refuse(f"marks {entry.name!r}, which is not there. Put it there, or give the images one by one")
            image = found if isinstance(found, Path) else None
            if image in taken:
                file.refuse(f"names {str(image)!r} twice, as {taken[image].name!r} and as {entry.name!r}")
            if image is not None:
                taken[image] = entry
                is_empty = not entry.marks and not entry.types
                self._found[image].append(AnnotationSource(files=(path,), read=_always(entry), is_empty=is_empty))

    def _match(self, file: AnnotationFile, entry: MarkedImage) -> Path | Literal["elsewhere", "lost"]:
        """Return the image that an entry names; ``elsewhere`` if it exists but was not asked for, else ``lost``.

        Raises:
            ValueError: If its name fits several images.
        """
        name = PurePosixPath(entry.name.replace("\\", "/"))
        same = [path for path in self._by_name[name.name] if path.parts[-len(name.parts) :] == name.parts]
        fitting = [path for path in same if self._may_mean(file, name, path)]
        home = _find_home(file)
        above = dict.fromkeys((home, file.path.parent, file.path.parent.parent))
        exact = [
            place.resolve() for base in above for place in (base / name, base / "images" / name) if place.is_file()
        ]
        is_named = any((home / folder / name).is_file() for folder in ("", "images"))
        if exact and (len(fitting) > 1 or (is_named and not self.is_given)):
            at_hand = [path for path in fitting if path.resolve() in exact]
            fitting = [path for path in at_hand if path.resolve() == exact[0]] or at_hand
        if len(fitting) > 1:
            file.refuse(f"names {entry.name!r}, which fits {str(fitting[0])!r} and {str(fitting[1])!r}")
        return fitting[0] if fitting else "elsewhere" if exact or self.base is None else _LOST

    def _may_mean(self, file: AnnotationFile, name: PurePosixPath, image: Path) -> bool:
        """Return whether a name in an annotation file can mean an image whose path ends in that name.

        A file above the folder that was given may list other images of the same name. There the name must hold the
        image's whole path below the given folder, except a subset's folder such as ``train``. Seen from the annotation
        file, it may leave out at most one folder besides ``images``.
        """
        base = self.base or image.parent
        root, home = base.resolve(), _find_home(file).resolve()
        if self.is_given or file.path.parent.resolve() == root or root in file.path.resolve().parents:
            return True
        below = image.relative_to(base)
        place = root / below
        needed = len(below.parts) - (len(below.parts) > 1 and below.parts[0].lower() in _SUBSETS)
        if len(name.parts) < needed or home not in place.parents:
            return False
        between = place.relative_to(home).parts[: -len(name.parts)]
        return sum(folder != "images" for folder in between) <= 1

    def _is_ours(self, file: AnnotationFile, matched: list[tuple[MarkedImage, Any]]) -> bool:
        """Return whether a file for many images is meant for these; a file found above their folder need not be."""
        if self.is_given or self.base is None or self.base.resolve() in file.path.resolve().parents:
            return True
        return not matched or any(isinstance(found, Path) for _, found in matched)

    def _check_one_source(self, image: Path, sources: list[AnnotationSource]) -> None:
        sources = [source for source in sources if not source.is_empty] or sources
        groups = {source.group or str(source.files[0]): source.files[0] for source in sources}
        if len(groups) > 1:
            self._refuse_two(image, list(groups.values()))
        labelme = [source.files[0] for source in sources if source.is_upright]
        if len(labelme) > 1:
            self._refuse_two(image, labelme)

    def _refuse_two(self, image: Path, files: list[Path]) -> None:
        msg = (
            f"`{self.argument}` must say once where the defect of {str(image)!r} is, but {str(files[0])!r} and "
            f"{str(files[1])!r} both do. Keep one, or name its folder or file by `{self.argument}`."
        )
        raise ValueError(msg)


def _find_home(file: AnnotationFile) -> Path:
    """Return the folder that the names in a file start from: its own, or the one that holds ``annotations``."""
    folder = file.path.parent
    return folder.parent if folder.name == "annotations" else folder


def _always(found: MarkedImage) -> Callable[[int, int], Any]:
    return lambda *_: found

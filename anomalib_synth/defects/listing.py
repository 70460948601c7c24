"""The real defects of a folder, or of some files, each with its marks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.defects.annotation_files import MarkedImage
from anomalib_synth.defects.image_files import describe_empty, find_image_files, find_places, warn_of_good
from anomalib_synth.defects.marks import MOST_BOXES, Mark, describe_kind
from anomalib_synth.defects.no_defect import find_no_defect
from anomalib_synth.defects.real_defect import RealDefect
from anomalib_synth.defects.shapes import MaskFile
from anomalib_synth.defects.sources import AnnotationSource, SourceReader
from anomalib_synth.images import read_size

if TYPE_CHECKING:
    from collections.abc import Sequence


def list_defects(
    defects: Path | str | Sequence[Path | str],
    *,
    marks: Path | str | None = None,
    argument: str = "marks",
    name: str = "defects",
) -> list[RealDefect]:
    """Return the real defects of a folder, or of files, with how they are marked.

    Images that annotations name without marking anything count as good, as in COCO and YOLO. So do images without a
    mark that a person called good on the marking page. All of these are left out, and a warning says so.

    Args:
        defects: A folder, searched recursively without masks and without folders ``good``; or image files.
        marks: A folder of masks, LabelMe or YOLO files, laid out like the images or flat; or one COCO or CVAT file.
            None looks beside the images: ``ground_truth`` beside ``test``, ``masks``, ``<name>_mask.png``, LabelMe's
            ``<name>.json`` beside the image or among the masks, ``labels/<name>.txt``, ``annotations.json``,
            ``instances*.json``, ``annotations.xml``.
        argument: What the caller calls ``marks``, for errors.
        name: What the caller calls ``defects``, for errors.

    Returns:
        One for each image, in the order of their names, or of the files. An image without a mark is of the kind
        ``image``.

    Raises:
        ValueError: If there is no image, an image or a mask is unreadable, a mask marks nothing, is not of its image's
            size, or belongs to no image.
    """
    place = None if marks is None else Path(marks)
    if place is not None and not place.exists():
        msg = (
            f"`{argument}` must be a folder with masks of the defects, got {str(place)!r}, which is not there. Give "
            "it, or one COCO or CVAT file."
        )
        raise ValueError(msg)
    images = find_image_files(defects, place, name)
    reader = SourceReader(images.known, argument, base=images.base, is_given=place is not None)
    places = find_places(images, place)
    sources = reader.read(images.chosen, places, place if place is not None and place.is_file() else None)
    found, good = [], []
    said = {image: where.said for image, where in places.items()}
    said_good = find_no_defect(said, is_given=place is not None)
    for image in images.chosen:
        is_open = image not in said_good or image in sources
        defect = _combine(image, sources.get(image, []), argument) if is_open else None
        if defect is None or (image in said_good and not defect.marks):
            good.append(image)
        else:
            found.append(defect)
    warn_of_good(good, name)
    if not found:
        raise ValueError(describe_empty(defects, name))
    return found


def _combine(image: Path, sources: list[AnnotationSource], argument: str) -> RealDefect | None:
    """Return an image with all its marks, checked against its file; None if annotations call it good.

    Raises:
        ValueError: If the image cannot be read, or a mark cannot be meant for it.
    """
    height, width, turned = read_size(image, "defects")
    read = [source.read(height, width) for source in sources]
    for source, found in zip(sources, read, strict=True):
        _check_size(image, (height, width), source, found, turned, argument)
    marks = [mark for found in read for mark in found.marks]
    types = [name for found in read for name in found.types if name]
    is_good = bool(read) and not marks and not any(found.types for found in read)
    if is_good:
        return None
    family = types[0] if types else image.parent.resolve().name
    marks = [Mark(kind=m.kind, shape=m.shape, where=m.where, label=m.label or family) for m in marks]
    for mark in marks:
        mark.check(height, width)
    boxes = sum(mark.kind == "box" for mark in marks)
    if boxes > MOST_BOXES:
        msg = (
            f"`{argument}` must have at most {MOST_BOXES} boxes an image, but {str(image)!r} has {boxes}. Draw fewer, "
            "larger ones, or a mask."
        )
        raise ValueError(msg)
    labels = Counter(mark.label for mark in marks)
    return RealDefect(
        image=image,
        family=labels.most_common(1)[0][0] if labels else family,
        kind=describe_kind(marks),
        marks=tuple(marks),
        files=(image, *dict.fromkeys(file for source in sources for file in source.files)),
    )


def _check_size(
    image: Path, size: tuple[int, int], source: AnnotationSource, found: MarkedImage, turned: bool, argument: str
) -> None:
    """Refuse marks that were made on an image of another size, or that may have been made on it unturned.

    Raises:
        ValueError: If so; the message names both files.
    """
    file = str(source.files[0])
    if found.size is not None and found.size != size:
        sizes = [f"{width} x {height}" for height, width in (found.size, size)]
        turn = " It looks turned by a quarter." if found.size == size[::-1] else ""
        msg = (
            f"`{argument}` must be made on the images themselves, but {file!r} has {str(image)!r} with {sizes[0]} "
            f"pixels, and the file has {sizes[1]}.{turn} Mark this very image, or put the one there that was marked."
        )
        raise ValueError(msg)
    has_pixels = all(isinstance(mark.shape, MaskFile) for mark in found.marks)
    if turned and not has_pixels and not source.is_upright:
        msg = (
            f"`{argument}` must be made on images that lie as their pixels do, but {str(image)!r} is turned by its "
            f"EXIF orientation, and {file!r} does not say whether it was marked turned or not. Write upright copies by "
            "`anomalib-synth convert --images FOLDER --out COPIES`, and mark those."
        )
        raise ValueError(msg)

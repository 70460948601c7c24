"""The state of an image's marks on disk, and how marks become files."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from anomalib_synth.defects.labelme import says_good
from anomalib_synth.images import decode_mask, hash_bytes
from anomalib_synth.report.image_marks import ImageMarks, encode_document, encode_mask, read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anomalib_synth.report.marking_files import ImageToMark, MarkedFolder

    Files = dict[Path, bytes]

_DECODED = 4


class State(NamedTuple):
    """The marks of an image as they are on the disk.

    Args:
        files: Bytes of each file that exists.
        no_defect: Whether a person said that there is no defect.
        version: Name of this state; different states have different names.
    """

    files: Files
    no_defect: bool
    version: str

    @classmethod
    def of(cls, files: Files, *, no_defect: bool) -> State:
        """Return the state with these files."""
        parts = [f"{path.name}:{hash_bytes(data)}" for path, data in sorted(files.items())]
        return cls(files, no_defect, hash_bytes("\n".join([*parts, str(no_defect)]).encode("utf-8", "surrogateescape")))


class MarkStates:
    """Reads and writes the states of images.

    Args:
        folder: The images and the folder of their marks.
        measure: Returns height and width of an image, upright.
    """

    def __init__(self, folder: MarkedFolder, measure: Callable[[ImageToMark], tuple[int, int]]) -> None:
        self.folder = folder
        self._measure = measure
        self._masks: dict[str, np.ndarray] = {}  # the last few, decoded
        self._lock = threading.Lock()

    def look(self, image: ImageToMark) -> State:
        """Return the state of an image."""
        files = self.folder.read(image)
        no_defect = image.name in self.folder.read_no_defect() or _say_good(image, files)
        return State.of(files, no_defect=no_defect)

    def decode(self, image: ImageToMark, state: State) -> ImageMarks:
        """Return the marks of a state.

        Raises:
            ValueError: If a file cannot be read, or is for an image of another size.
        """
        size = self._measure(image)
        masks = [path for path in image.masks if path in state.files]
        if len(masks) > 1:
            names = " and ".join(repr(path.name) for path in masks)
            msg = f"This image has several masks, {names}. Take all but one away, then load this page again."
            raise ValueError(msg)
        mask = self._decode_mask(masks[0], state.files[masks[0]], size) if masks else np.zeros(size, bool)
        try:
            document = read_document(state.files.get(image.document), size)
        except ValueError as error:
            msg = (
                f"{image.document.name!r} beside this image {error}. Nothing is written over it: move it away, or mend "
                "it, then load this page again."
            )
            raise ValueError(msg) from error
        marks = ImageMarks(mask=mask, document=document)
        return replace(marks, no_defect=state.no_defect and marks.is_empty)  # later marks override "no defect"

    def encode(self, image: ImageToMark, before: State, marks: ImageMarks) -> dict[Path, bytes | None]:
        """Return the files to write for these marks, None for those to delete. Files that need no change stay.

        A mask in another format is replaced by a PNG.
        """
        files: dict[Path, bytes | None] = dict.fromkeys(before.files)
        old = self.decode(image, before)
        if np.array_equal(marks.mask, old.mask):
            files.update({path: data for path, data in before.files.items() if path in image.masks})
        else:
            files[image.mask] = data = encode_mask(marks)
            if data is not None:
                self._keep_mask(hash_bytes(data), marks.mask)
        takes_word_back = old.no_defect and not marks.no_defect  # the document may have said it
        if marks.document == old.document and marks.mask.any() == old.mask.any() and not takes_word_back:
            files[image.document] = before.files.get(image.document)
        else:
            files[image.document] = encode_document(
                marks, file=image.document, image=image.path, folder_type=image.folder_type
            )
        return files

    def write(self, image: ImageToMark, before: State, files: Mapping[Path, bytes | None], *, no_defect: bool) -> State:
        """Bring an image from one state to another; files that are the same are not written.

        Raises:
            ValueError: If it cannot be written.
        """
        changed = {path: data for path, data in files.items() if data != before.files.get(path)}
        self.folder.write(image, changed)
        made = {path: data for path, data in files.items() if data is not None}
        names = self.folder.read_no_defect()
        is_listed = no_defect and not _say_good(image, made)
        if is_listed != (image.name in names):
            self.folder.write_no_defect(names | {image.name} if is_listed else names - {image.name})
        return State.of(made, no_defect=no_defect)

    def _decode_mask(self, path: Path, data: bytes, size: tuple[int, int]) -> np.ndarray:
        key = hash_bytes(data)
        with self._lock:
            mask = self._masks.get(key)
        if mask is None:
            mask = decode_mask(path, "out", data)
            self._keep_mask(key, mask)
        if mask.shape != size:
            msg = (
                f"The mask {path.name!r} has {mask.shape[1]} x {mask.shape[0]} pixels, but the upright image has "
                f"{size[1]} x {size[0]}. Take it away, or export it at the image's size."
            )
            raise ValueError(msg)
        return mask

    def _keep_mask(self, key: str, mask: np.ndarray) -> None:
        with self._lock:
            self._masks[key] = mask
            while len(self._masks) > _DECODED:
                self._masks.pop(next(iter(self._masks)))


def _say_good(image: ImageToMark, files: Mapping[Path, bytes]) -> bool:
    """Return whether the files of an image say that it has no defect, as a LabelMe document without shapes does."""
    if any(mask in files for mask in image.masks) or image.document not in files:
        return False
    try:
        return says_good(read_document(files[image.document], None))
    except ValueError:
        return False  # the fault is shown when the image is opened

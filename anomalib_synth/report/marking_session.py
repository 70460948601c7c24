"""A session of marking images: their marks, edits, undo and redo."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anomalib_synth.report.marking_edits import apply_edit
from anomalib_synth.report.marking_outline import trace_mask
from anomalib_synth.report.marking_states import MarkStates, State
from anomalib_synth.report.review_session import OutdatedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

    from anomalib_synth.report.image_marks import ImageMarks
    from anomalib_synth.report.marking_files import ImageToMark, MarkedFolder

_STEPS = 200


class UnknownImageError(ValueError):
    """There is no image with this id."""


@dataclass
class _History:
    """The edits of an image in this session, each with the states before and after it."""

    done: deque[tuple[State, State]] = field(default_factory=lambda: deque(maxlen=_STEPS))
    undone: deque[tuple[State, State]] = field(default_factory=lambda: deque(maxlen=_STEPS))


class MarkingSession:
    """Shows and changes the marks of images, one change at a time.

    Args:
        folder: The images and the folder of their marks.
        measure: Returns height and width of an image, upright.
        outline: Returns the outline that is proposed within a shape of an image, or in the whole image for None.
    """

    def __init__(
        self,
        folder: MarkedFolder,
        *,
        measure: Callable[[ImageToMark], tuple[int, int]],
        outline: Callable[[ImageToMark, ImageMarks, int | None], np.ndarray | None],
    ) -> None:
        self.folder = folder
        self.states = MarkStates(folder, measure)
        self._outline = outline
        self._histories: dict[str, _History] = {}
        self._lock = threading.Lock()

    def find(self, key: str) -> ImageToMark:
        """Return the image with an id.

        Raises:
            UnknownImageError: If there is none.
        """
        if key not in self.folder.listed:
            msg = f"There is no image {key!r}. Open the list of images again."
            raise UnknownImageError(msg)
        return self.folder.listed[key]

    def marks(self, key: str) -> ImageMarks:
        """Return the marks of an image.

        Raises:
            UnknownImageError: If there is no such image.
            ValueError: If a file that marks it cannot be read.
        """
        image = self.find(key)
        return self.states.decode(image, self.states.look(image))

    def describe(self, key: str) -> dict[str, Any]:
        """Return what a page needs to show an image's marks; ``problem`` says why they cannot be read or changed.

        Raises:
            UnknownImageError: If there is no such image.
            ValueError: If the image itself cannot be read.
        """
        image = self.find(key)
        state = self.states.look(image)
        history = self._histories.get(key, _History())
        shown = {
            "id": key,
            "version": state.version,
            "no_defect": state.no_defect,
            "undoable": len(history.done),
            "redoable": len(history.undone),
            "folder_type": image.folder_type,
            "problem": "",
        }
        try:
            marks = self.states.decode(image, state)
            return {**shown, "no_defect": marks.no_defect, **_show(marks, image)}
        except ValueError as error:
            return {**shown, "mask": "", "mask_type": "", "shapes": [], "problem": str(error)}

    def edit(self, key: str, edit: dict[str, Any], *, seen: str, type_name: str) -> None:
        """Change the marks of an image, on the disk at once.

        Args:
            key: Id of the image.
            edit: An edit without faults, see :func:`anomalib_synth.report.marking_edits.find_fault`.
            seen: The version that the person saw.
            type_name: The type of defect of new marks.

        Raises:
            UnknownImageError: If there is no such image.
            OutdatedError: If somebody else has changed its marks meanwhile; nothing is written.
            ValueError: If the edit cannot be done; nothing is written.
        """
        image = self.find(key)
        marks = self.states.decode(image, self._check_seen(image, seen))
        after = apply_edit(marks, edit, type_name=type_name, outline=lambda shape: self._outline(image, marks, shape))
        after.check()
        with self._lock, self.folder.locked():
            before = self._check_seen(image, seen)
            files = self.states.encode(image, before, after)
            made = self.states.write(image, before, files, no_defect=after.no_defect)
            if made.version == before.version:
                return
            history = self._histories.setdefault(key, _History())
            if history.done and history.done[-1][1].version != before.version:
                history.done.clear()  # somebody else has edited since, so the states before must not come back
            history.done.append((before, made))
            history.undone.clear()

    def undo(self, key: str, *, seen: str) -> None:
        """Undo the last edit of an image; nothing happens if there is none.

        Raises:
            UnknownImageError: If there is no such image.
            OutdatedError: If somebody else has changed its marks meanwhile.
        """
        history = self._histories.get(key, _History())
        self._step(key, history.done, history.undone, seen=seen, backwards=True)

    def redo(self, key: str, *, seen: str) -> None:
        """Redo the last edit that was undone; see :meth:`undo`."""
        history = self._histories.get(key, _History())
        self._step(key, history.undone, history.done, seen=seen, backwards=False)

    def _step(
        self,
        key: str,
        source: deque[tuple[State, State]],
        target: deque[tuple[State, State]],
        *,
        seen: str,
        backwards: bool,
    ) -> None:
        image = self.find(key)
        with self._lock, self.folder.locked():
            now = self._check_seen(image, seen)
            if not source:
                return
            before, after = source[-1]
            here, there = (after, before) if backwards else (before, after)
            if now.version != here.version:
                source.clear()
                msg = "Somebody else has changed this image since, so there is nothing to take back. It is as it was."
                raise OutdatedError(msg, self.describe(key))
            files: dict[Path, bytes | None] = {**dict.fromkeys(now.files), **there.files}
            self.states.write(image, now, files, no_defect=there.no_defect)
            target.append(source.pop())

    def _check_seen(self, image: ImageToMark, seen: str) -> State:
        state = self.states.look(image)
        if state.version != seen:
            msg = "Somebody else has changed this image meanwhile, so nothing was written. Look again, then mark it."
            raise OutdatedError(msg, self.describe(image.id))
        return state


def _show(marks: ImageMarks, image: ImageToMark) -> dict[str, Any]:
    height, width = marks.mask.shape
    shapes = [
        {"kind": shape.get("shape_type", "polygon"), "label": shape["label"], "points": shape["points"]}
        for shape in marks.shapes
    ]
    return {
        "height": height,
        "width": width,
        "mask": trace_mask(marks.mask),
        "mask_type": (marks.mask_type or image.folder_type) if marks.mask.any() else "",
        "shapes": shapes,
    }

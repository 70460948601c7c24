"""The list of images to mark: how each is marked, and which types of defect are in use."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth.defects.labelme import says_good
from anomalib_synth.report.image_marks import read_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anomalib_synth.report.marking_files import ImageToMark, MarkedFolder

STATES = {"unmarked": "not marked", "marked": "marked", "no_defect": "no defect", "unreadable": "cannot be read"}


class MarkingList:
    """Says how each image is marked, from file names and LabelMe documents alone, without decoding masks.

    Args:
        folder: The images and the folder of their marks.
    """

    def __init__(self, folder: MarkedFolder) -> None:
        self.folder = folder
        self._documents: dict[Path, tuple[tuple[int, int], list[str], bool, bool]] = {}

    def describe(self, unreadable: Mapping[str, str]) -> dict[str, Any]:
        """Return the images with their states, the number in each, and the types in use.

        Args:
            unreadable: Id and reason of each image that cannot be read.
        """
        there = {Path(place, name) for place, _, names in os.walk(self.folder.out) for name in names}
        no_defect = self.folder.read_no_defect()
        images: list[dict[str, Any]] = []
        types: Counter[str] = Counter()
        for image in self.folder.listed.values():
            unsaid: tuple[list[str], bool, bool] = ([], False, False)
            labels, has_shapes, is_good = self._read_labels(image) if image.document in there else unsaid
            has_mask = any(mask in there for mask in image.masks)
            if has_mask and not labels:
                labels = [image.folder_type]
            state = "marked" if has_mask or has_shapes else "unmarked"
            if state == "unmarked" and (is_good or image.name in no_defect):
                state = "no_defect"
            if image.id in unreadable:
                state = "unreadable"
            types.update(labels)
            images.append(
                {
                    "id": image.id,
                    "name": image.name,
                    "state": state,
                    "types": labels,
                    "reason": unreadable.get(image.id, ""),
                }
            )
        counts = Counter(each["state"] for each in images)
        return {
            "images": images,
            "counts": {state: counts[state] for state in STATES},
            "types": [name for name, _ in types.most_common()],
            "left_out": [f"{name}: {reason}" for name, reason in self.folder.left_out.items()],
        }

    def _read_labels(self, image: ImageToMark) -> tuple[list[str], bool, bool]:
        """Return the types that a LabelMe document names, whether it has shapes, and whether it says "no defect".

        A damaged document counts as one with shapes.
        """
        path = image.document
        try:
            status = path.stat()
            key = status.st_mtime_ns, status.st_size
            kept = self._documents.get(path)
            if kept is None or kept[0] != key:
                document = read_document(path.read_bytes(), None)
                flagged = (document.get("flags") or {}).get("type")
                names = [shape["label"] for shape in document["shapes"]]
                names += [flagged] if type(flagged) is str and flagged else []
                kept = (
                    key,
                    list(dict.fromkeys(name for name in names if name)),
                    bool(document["shapes"]),
                    says_good(document),
                )
                self._documents[path] = kept
        except (OSError, ValueError):
            return [], True, False  # the fault is shown when the image is opened
        return kept[1:]

"""Kept samples in the layouts that other tools read: MVTec AD, COCO, YOLO."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import track
from scipy import ndimage

from anomalib_synth.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib_synth.store.record import Record
    from anomalib_synth.store.store import SampleStore

_QUIET = 200


def export_mvtec(store: SampleStore, out: Path | str) -> None:
    """Write kept samples as MVTec AD does: ``train/good``, ``test/<family>``, ``ground_truth/<family>``.

    Args:
        store: The store.
        out: A folder that is new or empty.

    Raises:
        StoreError: If the folder holds anything, no sample is kept, or a file of the store is damaged; as below.
    """
    out = _make_folder(out)
    counts: Counter[str] = Counter()
    for record in _kept(store):
        name = f"{counts[record.family]:05d}"
        counts[record.family] += 1
        family = _folder_name(record.family)
        _copy(store, record, record.image_file, record.image_hash, out / "test" / family / f"{name}.png")
        mask = out / "ground_truth" / family / f"{name}_mask.png"
        _copy(store, record, record.mask_file, record.mask_hash, mask)
        good = out / "train" / "good" / f"{record.source_hash}.png"
        if not good.exists():
            _copy(store, record, record.source_file, record.source_file_hash, good)


def export_coco(store: SampleStore, out: Path | str) -> None:
    """Write kept samples as COCO instances: ``images/`` and ``annotations.json``.

    A connected region of a mask (8 neighbours) is an instance, as uncompressed run lengths, column by column.
    """
    out = _make_folder(out)
    records = list(_kept(store))
    names = sorted({record.family for record in records})
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(records, 1):
        name = f"{record.id}.png"
        _copy(store, record, record.image_file, record.image_hash, out / "images" / name)
        mask = store.read_mask(record) > 0
        height, width = mask.shape
        images.append({"id": number, "file_name": name, "width": width, "height": height, "caption": record.caption})
        for region, (left, top, right, bottom) in _regions(mask):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": names.index(record.family) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(region.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": run_lengths(region)},
                }
            )
    categories = [{"id": number, "name": name, "supercategory": "defect"} for number, name in enumerate(names, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (out / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def export_yolo(store: SampleStore, out: Path | str) -> None:
    """Write kept samples as YOLO detection: ``images/train``, ``labels/train`` and ``data.yaml``.

    A box is ``class x_centre y_centre width height``, as shares of the image's width and height.
    """
    out = _make_folder(out)
    records = list(_kept(store))
    names = sorted({record.family for record in records})
    (out / "labels" / "train").mkdir(parents=True)
    for record in records:
        _copy(store, record, record.image_file, record.image_hash, out / "images" / "train" / f"{record.id}.png")
        mask = store.read_mask(record) > 0
        height, width = mask.shape
        lines = []
        for _, (left, top, right, bottom) in _regions(mask):
            centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
            box = (*centre, (right - left) / width, (bottom - top) / height)
            lines.append(f"{names.index(record.family)} " + " ".join(f"{value:.6f}" for value in box))
        (out / "labels" / "train" / f"{record.id}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    listed = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(names))
    text = f"path: .\ntrain: images/train\nval: images/train\nnames:\n{listed}"
    (out / "data.yaml").write_text(text, encoding="utf-8")


def run_lengths(region: np.ndarray) -> list[int]:
    """Return COCO's uncompressed run lengths of a mask (H, W): column by column, zeros first.

    Example:
        >>> run_lengths(np.array([[0, 1], [1, 1]], dtype=bool))
        [1, 3]
    """
    flat = np.asarray(region, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def _regions(mask: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """Yield each connected region of a mask, and its box: left, top, right, bottom (exclusive)."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        yield labels == number, (columns.start, rows.start, columns.stop, rows.stop)


def _kept(store: SampleStore) -> Iterator[Record]:
    records = [record for record in store.records if store.is_accepted(record)]
    if not records:
        msg = f"Store {str(store.path)!r} has no kept sample to export. Generate more, or accept some in `review`."
        raise StoreError(msg)
    yield from track(records, "Exporting", disable=len(records) < _QUIET, transient=True)


def _make_folder(out: Path | str) -> Path:
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"`out` must be a new or empty folder, got {str(out)!r}. Choose another."
        raise StoreError(msg)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _copy(store: SampleStore, record: Record, place: str, digest: str, target: Path) -> None:
    store.check_file(record, place, digest)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(store.path / place, target)


def _folder_name(family: str) -> str:
    """Return a family's name as a folder: letters, digits, dashes and underscores."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in family) or "defect"

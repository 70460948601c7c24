"""Kept samples as COCO instances."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from anomalib_synth.store.export import (
    ExportSummary,
    check_min_area,
    facts_of,
    kept_records,
    kind_of,
    list_kinds,
    run_export,
)
from anomalib_synth.store.export_folder import ExportPlan
from anomalib_synth.store.export_instances import MIN_AREA, Instance, SpeckCount, read_instances

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anomalib_synth.store.record import Record
    from anomalib_synth.store.store import SampleStore


def export_coco(
    store: SampleStore,
    out: Path | str,
    *,
    segmentation: Literal["polygons", "run_lengths"] = "polygons",
    min_area: int = MIN_AREA,
) -> ExportSummary:
    """Write kept samples as COCO instances: ``images/`` and ``annotations.json``.

    Args:
        store: The store.
        out: As for :func:`export_mvtec`.
        segmentation: ``polygons``: one polygon per instance, along the edges of its pixels; holes are cut out, and
            specks joined, by bridges of no width. ``run_lengths``: uncompressed run lengths. pycocotools decodes both
            to exactly these pixels.
        min_area: Least number of pixels of an instance, >= 1; see :func:`find_instances`.

    Raises:
        ValueError: If an argument is out of range.
        StoreError: As for :func:`export_mvtec`.
    """
    if segmentation not in {"polygons", "run_lengths"}:
        msg = f"`segmentation` must be 'polygons' or 'run_lengths' for COCO, got {segmentation!r}."
        raise ValueError(msg)
    check_min_area(min_area)
    records, kinds = kept_records(store), list_kinds(store)
    plan = ExportPlan(
        layout="coco",
        options={"segmentation": segmentation, "min_area": min_area},
        samples=[kinds, [facts_of(record, kinds) for record in records]],
        copies={f"images/{each.id}.png": (each, each.image_file, each.image_hash) for each in records},
        texts=["annotations.json"],
    )
    specks = SpeckCount()

    def render() -> Iterator[bytes]:
        images: list[str] = []
        annotations: list[str] = []
        for number, record in enumerate(records, 1):
            (height, width), instances = read_instances(store, record, min_area, specks)
            images.append(_dump(_describe_image(record, number, height, width)))
            for instance in instances:
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kinds.index(kind_of(record)) + 1,
                    "bbox": list(instance.box),
                    "area": instance.area,
                    "iscrowd": 0,
                    "segmentation": _segment(instance, segmentation, height, width),
                }
                annotations.append(_dump(annotation))
        yield _compose(images, annotations, kinds)

    return run_export(store, out, plan, render, ExportSummary(samples=len(records), specks=specks))


def _describe_image(record: Record, number: int, height: int, width: int) -> dict[str, Any]:
    name = f"{record.id}.png"
    size = {"width": width, "height": height}
    return {"id": number, "file_name": name, **size, "license": 1, "caption": record.caption}


def _segment(instance: Instance, segmentation: str, height: int, width: int) -> Any:
    if segmentation == "run_lengths":
        return {"size": [height, width], "counts": instance.run_lengths(height, width)}
    return [[value for corner in instance.outline() for value in corner]]


def _compose(images: list[str], annotations: list[str], kinds: list[str]) -> bytes:
    """Return the content of the file; its long lists come as JSON already, which takes a tenth of the memory."""
    info = {
        "description": "Synthetic defects on normal images",
        "url": "",
        "version": "1.0",
        "contributor": "anomalib-synth",
        "date_created": "",
    }
    parts = {
        "info": _dump(info),
        "licenses": _dump([{"id": 1, "name": "that of the normal images", "url": ""}]),
        "categories": _dump([{"id": n, "name": kind, "supercategory": "defect"} for n, kind in enumerate(kinds, 1)]),
        "images": f"[{','.join(images)}]",
        "annotations": f"[{','.join(annotations)}]",
    }
    return ("{" + ",\n".join(f'"{name}":{part}' for name, part in parts.items()) + "}\n").encode()


def _dump(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))

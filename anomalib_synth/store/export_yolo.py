"""Kept samples in YOLO's layout: boxes or polygons, a validation split by source image, good images as background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import yaml

from anomalib_synth.store.errors import StoreError
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
from anomalib_synth.store.identity import hash_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anomalib_synth.store.record import Record
    from anomalib_synth.store.store import SampleStore

_SPLITS = ("train", "val", "test")
_HEAD = """\
# Paths start from this file's folder: there is no `path` on purpose, so that the folder may be moved.
"""


def export_yolo(
    store: SampleStore,
    out: Path | str,
    *,
    segmentation: Literal["boxes", "polygons"] = "boxes",
    min_area: int = MIN_AREA,
    val_share: float = 0.2,
    seed: int = 0,
) -> ExportSummary:
    """Write kept samples as YOLO reads them: ``images/<split>``, ``labels/<split>`` and ``data.yaml``.

    A box is ``kind x_centre y_centre width height``, a polygon ``kind x y x y ...``, as shares of the image's width and
    height. The sources of the samples are there too, in the split of their samples, with empty labels: background.

    Args:
        store: The store.
        out: As for :func:`export_mvtec`.
        segmentation: ``boxes``, or ``polygons`` as for :func:`export_coco`.
        min_area: Least number of pixels of an instance, >= 1; see :func:`find_instances`.
        val_share: Share of the source images held out for validation with all their samples, in [0, 1); samples of the
            splits ``val`` and ``test`` keep their split. With 0 and no sample of ``val``, the `val` of data.yaml names
            the training images.
        seed: Seed of that split.

    Raises:
        ValueError: If an argument is out of range.
        StoreError: As for :func:`export_mvtec`, and if there is only one source image to split.
    """
    if segmentation not in {"boxes", "polygons"}:
        msg = f"`segmentation` must be 'boxes' or 'polygons' for YOLO, got {segmentation!r}."
        raise ValueError(msg)
    check_min_area(min_area)
    records, kinds = kept_records(store), list_kinds(store)
    splits = split_sources(store, records, val_share=val_share, seed=seed)
    plan = ExportPlan(
        layout="yolo",
        options={"segmentation": segmentation, "min_area": min_area, "val_share": val_share, "seed": seed},
        samples=[kinds, [facts_of(record, kinds) for record in records]],
    )
    backgrounds = {}
    for record in records:
        split = splits[record.source_hash]
        plan.copies[f"images/{split}/{record.id}.png"] = (record, record.image_file, record.image_hash)
        plan.texts.append(f"labels/{split}/{record.id}.txt")
        good = f"{split}/good_{record.source_hash}"
        plan.copies[f"images/{good}.png"] = (record, record.source_file, record.source_file_hash)
        backgrounds[f"labels/{good}.txt"] = b""
    plan.texts += [*backgrounds, "data.yaml"]
    specks = SpeckCount()

    def render() -> Iterator[bytes]:
        for record in records:
            size, instances = read_instances(store, record, min_area, specks)
            kind = kinds.index(kind_of(record))
            lines = [f"{kind} {_place(instance, segmentation, *size)}\n" for instance in instances]
            yield "".join(lines).encode()
        yield from backgrounds.values()
        yield _describe_data(kinds, set(splits.values()))

    notes = [_describe_splits(records, splits)]
    summary = ExportSummary(samples=len(records), normals=len(backgrounds), specks=specks, notes=notes)
    return run_export(store, out, plan, render, summary)


def split_sources(store: SampleStore, records: list[Record], *, val_share: float, seed: int) -> dict[str, str]:
    """Return the split of each source image by its digest, so that all samples of an image are in one split.

    Each source's lot depends on its own pixels and the seed alone, and lots are drawn among all sources of the store.
    So samples that are rejected or added later move no source, unless they bring new sources.

    Args:
        store: The store.
        records: The samples of the store that are kept.
        val_share: Share of the sources held out, in [0, 1); none is where there are samples of the split ``val``.
        seed: Seed of the lots.

    Raises:
        ValueError: If the share is out of range.
        StoreError: If no training image would be left, or none could be held out.
    """
    if isinstance(val_share, bool) or not 0 <= val_share < 1:
        msg = f"`val_share` must satisfy 0 <= val_share < 1, got {val_share}. 0 holds nothing out."
        raise ValueError(msg)
    roles: dict[str, str] = {}
    for record in store.records:  # an image that has samples of two splits belongs to the one that is held out
        roles[record.source_hash] = max(record.split, roles.get(record.source_hash, "train"), key=_SPLITS.index)
    splits = {record.source_hash: roles[record.source_hash] for record in records}
    lots = {source: hash_bytes(f"{seed}:{source}".encode()) for source, role in roles.items() if role == "train"}
    ordered = sorted(lots, key=lots.__getitem__)
    training = [source for source in ordered if source in splits]
    if not training:
        msg = (
            "`layout` yolo needs samples of the split 'train', but all that are kept are held out. Generate some with "
            "`--split train`, or use another layout."
        )
        raise StoreError(msg)
    if val_share == 0 or "val" in splits.values():
        return splits
    if len(training) < 2:
        msg = (
            "`val_share` must be 0 where all samples have one source image: a validation split needs another. "
            "Generate from more images, or give `--val_share 0`, which validates on the training images."
        )
        raise StoreError(msg)
    drawn = set(ordered[: round(val_share * len(ordered))])
    held_out = [source for source in training if source in drawn] or training[:1]
    return splits | dict.fromkeys(held_out[: len(training) - 1], "val")


def _place(instance: Instance, segmentation: str, height: int, width: int) -> str:
    if segmentation == "polygons":
        values = [share for x, y in instance.outline() for share in (x / width, y / height)]
    else:
        left, top, wide, high = instance.box
        values = [(left + wide / 2) / width, (top + high / 2) / height, wide / width, high / height]
    return " ".join(f"{value:.6f}" for value in values)


def _describe_data(kinds: list[str], splits: set[str]) -> bytes:
    content = {
        "train": "images/train",
        "val": "images/val" if "val" in splits else "images/train",
        **({"test": "images/test"} if "test" in splits else {}),
        "names": dict(enumerate(kinds)),
    }
    return _HEAD.encode() + yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def _describe_splits(records: list[Record], splits: dict[str, str]) -> str:
    used = [splits[record.source_hash] for record in records]
    counts = {split: (used.count(split), list(splits.values()).count(split)) for split in _SPLITS if split in used}
    listed = ", ".join(f"{split} {samples} samples of {sources} images" for split, (samples, sources) in counts.items())
    return f"Splits: {listed}." if "val" in counts else f"Splits: {listed}; validation is on the training images."

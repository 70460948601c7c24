"""Kept samples in the layout of MVTec AD: folders of images and masks."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from anomalib_synth.store.export import ExportSummary, facts_of, kept_records, kind_of, list_kinds, run_export
from anomalib_synth.store.export_folder import ExportPlan

if TYPE_CHECKING:
    from pathlib import Path

    from anomalib_synth.store.store import SampleStore

_LONGEST = 80
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{name}{n}" for name in ("com", "lpt") for n in range(10)
}


def export_mvtec(store: SampleStore, out: Path | str) -> ExportSummary:
    """Write kept samples as MVTec AD does: ``train/good``, ``test/<kind>``, ``ground_truth/<kind>``.

    The sources of the samples are the good images. Masks are the store's own, pixel by pixel.

    Args:
        store: The store.
        out: A folder that is new or empty. A folder that holds this very export is left as it is. An export that was
            stopped goes on when it is run again.

    Raises:
        StoreError: If `out` holds anything else, no sample is kept, a file of the store is damaged or the disk is full.
    """
    records, kinds = kept_records(store), list_kinds(store)
    folders = name_folders(kinds)
    plan = ExportPlan(
        layout="mvtec", options={}, samples=[[facts_of(record, kinds) for record in records], list(folders.items())]
    )
    counts: Counter[str] = Counter()
    for record in records:
        kind = kind_of(record)
        name = f"{folders[kind]}/{counts[kind]:05d}"
        counts[kind] += 1
        plan.copies[f"test/{name}.png"] = (record, record.image_file, record.image_hash)
        plan.copies[f"ground_truth/{name}_mask.png"] = (record, record.mask_file, record.mask_hash)
        good = f"train/good/{record.source_hash}.png"
        plan.copies[good] = (record, record.source_file, record.source_file_hash)
    summary = ExportSummary(
        samples=len(records),
        normals=len({record.source_hash for record in records}),
        notes=[f"{kind!r} is in test/{folders[kind]}." for kind in kinds if folders[kind] != kind and counts[kind]],
    )
    return run_export(store, out, plan, lambda: (), summary)


def name_folders(kinds: list[str]) -> dict[str, str]:
    """Return a folder's name for each kind of defect, no two alike on any file system, none of them ``good``.

    Example:
        >>> name_folders(["oil stain", "oil_stain", "Oil_Stain", "good"])
        {'oil stain': 'oil_stain', 'oil_stain': 'oil_stain_2', 'Oil_Stain': 'Oil_Stain_3', 'good': 'good_2'}
    """
    taken = {"good", *_DEVICES}
    names = {}
    for kind in kinds:
        plain = "".join(
            letter if letter.isalnum() or letter in "-_" else "_" for letter in unicodedata.normalize("NFC", kind)
        )
        plain = plain.encode()[:_LONGEST].decode(errors="ignore") or "defect"
        name, number = plain, 1
        while _fold(name) in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(_fold(name))
        names[kind] = name
    return names


def _fold(name: str) -> str:
    """Return a name folded as by a file system that tells neither capitals nor forms of letters apart."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())

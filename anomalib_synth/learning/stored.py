"""The kept samples of a store as images that a detector missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anomalib_synth.defects import RealDefect
from anomalib_synth.defects.marks import Mark
from anomalib_synth.defects.shapes import MaskFile
from anomalib_synth.store import SampleStore, StoreError

if TYPE_CHECKING:
    from pathlib import Path


def list_kept(folder: Path) -> tuple[list[RealDefect], dict[str, str]]:
    """Return the kept samples of a store, each with its mask, and the files of the real defects they show, by digest.

    Raises:
        StoreError: If it keeps none, or a mask is damaged.
    """
    store = SampleStore.open(folder)
    kept = [record for record in store.records if store.is_accepted(record)]
    if not kept:
        msg = (
            f"`missed` {str(folder)!r} is a store that keeps no sample. Accept some in `anomalib-synth review --store "
            f"{folder}`, or draw more."
        )
        raise StoreError(msg)
    listed = []
    for record in kept:
        store.read_mask(record)  # what is damaged is named before anything takes long
        image, mask = store.path / record.image_file, store.path / record.mask_file
        shape = MaskFile(mask, image, "missed")
        mark = Mark(kind="mask", shape=shape, where=f"The mask {str(mask)!r}", label=record.family)
        listed.append(RealDefect(image=image, family=record.family, kind="mask", marks=(mark,), files=(image, mask)))
    return listed, store.settings.get("defect_digests", {})

"""The command `anomalib-synth export`: kept samples in the layouts that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from anomalib_synth.commands.preconditions import check_writable_folder


def export(
    store: Path,
    out: Path,
    *,
    layout: Literal["mvtec", "coco", "yolo"] = "mvtec",
    segmentation: Literal["boxes", "polygons", "run_lengths"] | None = None,
    min_area: int | None = None,
    val_share: float | None = None,
    seed: int | None = None,
) -> None:
    """Write the kept samples of a store in a layout that other tools read, whole or not at all.

    If an export was stopped, run the same command again to continue it.

    Args:
        store: Folder of the store.
        out: Folder to write to, new or empty.
        layout: "mvtec": images, masks and good sources in folders; "coco": instances; "yolo": boxes or polygons.
        segmentation: How an instance is written. coco: "polygons" (the default) or "run_lengths"; yolo: "boxes" (the
            default) or "polygons".
        min_area: coco, yolo: least number of pixels of an instance, >= 1, 16 unless given; smaller ones are joined to a
            close neighbour, or left out.
        val_share: yolo: share of the source images held out for validation, in [0, 1), 0.2 unless given.
        seed: yolo: seed of that split, 0 unless given.

    Raises:
        ValueError: If an option does not belong to the layout, or is out of its range.
        StoreError: If there is no store or a file of it is damaged, or `out` holds something else.
    """
    from anomalib_synth.store import SampleStore, export_coco, export_mvtec, export_yolo

    options = {"segmentation": segmentation, "min_area": min_area, "val_share": val_share, "seed": seed}
    given = {name: value for name, value in options.items() if value is not None}
    taken = {"mvtec": [], "coco": ["segmentation", "min_area"], "yolo": list(options)}[layout]
    if unused := [name for name in given if name not in taken]:
        name = unused[0]
        msg = f"`{name}` must be left out for `--layout {layout}`, which has no use for it, got {given[name]!r}."
        raise ValueError(msg)
    check_writable_folder("out", out)
    opened = SampleStore.open(store)
    write: Any = {"mvtec": export_mvtec, "coco": export_coco, "yolo": export_yolo}[layout]
    summary = write(opened, out, **given)
    done = "Finished before, nothing to do:" if summary.finished_before else "Wrote"
    print(f"{done} {summary.samples} of {len(opened.records)} samples to {out}.")
    for line in summary.describe():
        print(f"  {line}")

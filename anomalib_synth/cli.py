"""The command ``anomalib-synth``."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import auto_cli, lazy_instance

from anomalib_synth.engines.filtering import filter_store
from anomalib_synth.engines.fit import fit
from anomalib_synth.engines.generate import generate
from anomalib_synth.evidence.calibrate import calibrate
from anomalib_synth.generators import AnomalyGenerator, RuleBasedGenerator
from anomalib_synth.report import review
from anomalib_synth.report.compare import compare
from anomalib_synth.report.doctor import doctor


def families() -> None:
    """List the families of rule-based defects, and where each comes from."""
    from rich.console import Console
    from rich.table import Table

    from anomalib_synth.generators.families import REGISTRY

    table = Table("family", "kind", "source")
    for family in REGISTRY.values():
        table.add_row(family.name, "physical" if family.physical else "literature", family.source)
    Console().print(table)


def preview(
    normals: Path,
    out: Path = Path("preview.png"),
    *,
    generator: AnomalyGenerator = lazy_instance(RuleBasedGenerator),  # noqa: B008
    image_size: int = 256,
    per_family: int = 2,
    max_normals: int = 64,
    seed: int = 0,
) -> None:
    """Draw defects onto your own good images and save one picture of them.

    Args:
        normals: Folder with good images, searched recursively.
        out: The picture to write (PNG).
        generator: The generator to show. A RuleBasedGenerator shows each of its families in turn.
        image_size: Side in pixels that images are resized to, >= 16.
        per_family: Number of samples of each family (of the whole generator otherwise, times eight), >= 1.
        max_normals: Number of images to prepare the generator with, >= 1.
        seed: Seed of the samples.
    """
    from PIL import Image
    from rich.progress import track

    from anomalib_synth.callbacks.sample_grid import draw_sample_grid
    from anomalib_synth.data.normals import read_folder
    from anomalib_synth.generators.seeding import derive_seeds
    from anomalib_synth.sample import AnomalySample

    for name, value, limit in (
        ("image_size", image_size, 16),
        ("per_family", per_family, 1),
        ("max_normals", max_normals, 1),
    ):
        if value < limit:
            msg = f"`{name}` must be >= {limit}, got {value}."
            raise ValueError(msg)
    if out.suffix.lower() not in {".png", ".jpg", ".jpeg", ".webp"}:
        msg = f"`out` must end in .png, .jpg or .webp, got {str(out)!r}."
        raise ValueError(msg)
    images = torch.stack(list(read_folder(normals, image_size=image_size, limit=max_normals)))
    generator.prepare(images)
    if generator.prepared is not None:
        print(f"Foreground: {generator.prepared.foreground.note}.")
    shown = {"": generator}
    if isinstance(generator, RuleBasedGenerator):
        shown = {name: generator.only(name) for name in generator.families}
    samples = []
    for position, (name, one) in enumerate(track(shown.items(), "Drawing", total=len(shown), transient=True)):
        count = per_family if name else 8 * per_family
        rows = [(position * count + k) % len(images) for k in range(count)]
        samples.append(one(images[rows], seeds=derive_seeds(seed, 0, [f"{name}:{k}" for k in range(count)])))
    merged = AnomalySample.concatenate(samples)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_sample_grid(merged, list(range(len(merged))))).save(out)
    print(f"{int(merged.accepted.sum())} of {len(merged)} samples passed the checks; wrote {out}.")
    for reason in filter(None, merged.reason):
        print(f"  rejected: {reason}")


def export(store: Path, out: Path, *, layout: Literal["mvtec", "coco", "yolo"] = "mvtec") -> None:
    """Write the kept samples of a store in a layout that other tools read.

    Args:
        store: Folder of the store.
        out: Folder to write to, new or empty.
        layout: "mvtec": images, masks and good sources in folders; "coco": instances with run lengths; "yolo": boxes.
    """
    from anomalib_synth.store import SampleStore, export_coco, export_mvtec, export_yolo

    opened = SampleStore.open(store)
    {"mvtec": export_mvtec, "coco": export_coco, "yolo": export_yolo}[layout](opened, out)
    kept = sum(opened.is_accepted(record) for record in opened.records)
    print(f"Wrote {kept} of {len(opened.records)} samples to {out}.")


def check(store: Path, *, repair: bool = False) -> None:
    """Compare a store with its manifest: every field of every row, every file.

    Args:
        store: Folder of the store.
        repair: Put bad lines, and rows whose files are damaged, into files beside their logs and keep the rest; the
            same `generate` draws what is missing.
    """
    from anomalib_synth.store import SampleStore

    opened = SampleStore.open(store, strict=False)
    for line in opened.repair() if repair else ():
        print(line)
    problems = opened.verify()
    for line in problems:
        print(line)
    if problems:
        msg = f"{store} has {len(problems)} problems. Run `anomalib-synth check --store {store} --repair true`."
        raise ValueError(msg)
    print(f"{store}: {len(opened.records)} samples, sound.")


def main(args: list[str] | None = None) -> None:
    """Run the command."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="timm|anomalib")  # one says what the other imports
    try:
        auto_cli(
            {
                "preview": preview,
                "families": families,
                "fit": fit,
                "generate": generate,
                "filter": filter_store,
                "review": review,
                "check": check,
                "export": export,
                "calibrate": calibrate,
                "compare": compare,
                "doctor": doctor,
            },
            args=args,
            prog="anomalib-synth",
            as_positional=False,
        )
    except (ValueError, OSError, ImportError) as error:  # bad input, a file or weights that are not there, an extra
        msg = f"anomalib-synth: {error}"
        raise SystemExit(msg) from error
    except KeyboardInterrupt as error:
        msg = "anomalib-synth: stopped. What was generated is kept; the same command goes on from there."
        raise SystemExit(msg) from error
    if args is None and sys.argv[1:2] == ["review"]:
        sys.stdout.flush()
        os._exit(0)  # Ctrl-C ends it at once: decisions are on the disk, and taking torch apart takes seconds


if __name__ == "__main__":
    main()

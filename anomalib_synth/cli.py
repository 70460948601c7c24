"""The command ``anomalib-synth``."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import auto_cli, lazy_instance

from anomalib_synth.engines.convert import convert
from anomalib_synth.engines.filtering import filter_store
from anomalib_synth.engines.fit import fit
from anomalib_synth.engines.generate import generate
from anomalib_synth.evidence.calibrate import calibrate
from anomalib_synth.generators import AnomalyGenerator, RuleBasedGenerator
from anomalib_synth.learning.learn import learn
from anomalib_synth.learning.look_alikes import look_alikes
from anomalib_synth.report import review
from anomalib_synth.report.compare import compare
from anomalib_synth.report.doctor import doctor

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.store import ExportSummary


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
    image_size: int | str | None = 256,
    bit_depth: int | None = None,
    per_family: int = 2,
    max_normals: int = 64,
    seed: int = 0,
) -> None:
    """Draw defects onto your own good images and save one picture of them.

    Args:
        normals: Folder with good images, searched recursively.
        out: The picture to write (PNG).
        generator: The generator to show. A RuleBasedGenerator shows each of its families in turn.
        image_size: Long side in pixels that images are resized to, >= 16, or height x width, such as 384x512; null
            keeps their size.
        bit_depth: Bits that white has in images of more than 8 bits, 8 to 16; by default it is found in the folder.
        per_family: Number of samples of each family (of the whole generator otherwise, times eight), >= 1.
        max_normals: Number of images to prepare the generator with, >= 1.
        seed: Seed of the samples.
    """
    from PIL import Image
    from rich.progress import track

    from anomalib_synth.callbacks.sample_grid import draw_cells
    from anomalib_synth.generators.prepared import evenly_spread
    from anomalib_synth.generators.seeding import derive_seeds
    from anomalib_synth.images import ImageFolder, ImageSize, choose_white_point, list_images, to_tensor

    for name, value, limit in (("per_family", per_family, 1), ("max_normals", max_normals, 1)):
        if value < limit:
            msg = f"`{name}` must be >= {limit}, got {value}."
            raise ValueError(msg)
    if out.suffix.lower() not in {".png", ".jpg", ".jpeg", ".webp"}:
        msg = f"`out` must end in .png, .jpg or .webp, got {str(out)!r}."
        raise ValueError(msg)
    listing = list_images(normals)
    folder = ImageFolder(
        dict(evenly_spread(list(listing.files.items()), max_normals)),
        image_size=ImageSize.parse(image_size),
        white_point=choose_white_point(bit_depth, listing.paths),
    )
    images = [to_tensor(pixels) for _, pixels in folder]
    folder.require(1, "normals")
    for name, reason in {**listing.foreign, **folder.left_out}.items():
        print(f"Left out {name}: {reason}.")
    if str(folder.reader.white_point):
        print(f"White is {folder.reader.white_point}.")
    generator.prepare(images)
    if generator.prepared is not None:
        print(f"Foreground: {generator.prepared.foreground.note}.")
    shown = {"": generator}
    if isinstance(generator, RuleBasedGenerator):
        shown = {name: generator.only(name) for name in generator.families}
    samples = []
    for position, (name, one) in enumerate(track(shown.items(), "Drawing", total=len(shown), transient=True)):
        count = per_family if name else 8 * per_family
        for k, seed_of_sample in enumerate(derive_seeds(seed, 0, [f"{name}:{k}" for k in range(count)])):
            image = images[(position * count + k) % len(images)]
            samples.append(one(image[None], seeds=seed_of_sample[None]))
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_cells([(sample, 0) for sample in samples])).save(out)
    accepted = sum(int(sample.accepted[0]) for sample in samples)
    print(f"{accepted} of {len(samples)} samples passed the checks; wrote {out}.")
    for sample in samples:
        if sample.reason[0]:
            print(f"  rejected: {sample.reason[0]}")


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

    An export that was stopped goes on when the same command is run again.

    Args:
        store: Folder of the store.
        out: Folder to write to, new or empty.
        layout: "mvtec": images, masks and good sources in folders; "coco": instances; "yolo": boxes or polygons.
        segmentation: How an instance is written. coco: "polygons" (the default) or "run_lengths"; yolo: "boxes" (the
            default) or "polygons".
        min_area: coco, yolo: least number of pixels of an instance, >= 1, 16 unless given; smaller ones are joined to a
            near neighbour or left out.
        val_share: yolo: share of the source images held out for validation, in [0, 1), 0.2 unless given.
        seed: yolo: seed of that split, 0 unless given.
    """
    from anomalib_synth.store import SampleStore, export_coco, export_mvtec, export_yolo

    options = {"segmentation": segmentation, "min_area": min_area, "val_share": val_share, "seed": seed}
    given = {name: value for name, value in options.items() if value is not None}
    taken = {"mvtec": [], "coco": ["segmentation", "min_area"], "yolo": list(options)}[layout]
    if unused := [name for name in given if name not in taken]:
        name = unused[0]
        msg = f"`{name}` must be left out for `--layout {layout}`, which has no use for it, got {given[name]!r}."
        raise ValueError(msg)
    opened = SampleStore.open(store)
    write: Callable[..., ExportSummary] = {"mvtec": export_mvtec, "coco": export_coco, "yolo": export_yolo}[layout]
    summary = write(opened, out, **given)
    done = "Finished before, nothing to do:" if summary.finished_before else "Wrote"
    print(f"{done} {summary.samples} of {len(opened.records)} samples to {out}.")
    for line in summary.describe():
        print(f"  {line}")


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
                "convert": convert,
                "fit": fit,
                "generate": generate,
                "filter": filter_store,
                "review": review,
                "check": check,
                "export": export,
                "calibrate": calibrate,
                "learn": learn,
                "look_alikes": look_alikes,
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

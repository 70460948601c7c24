"""The command ``anomalib-synth generate``: normals and a generator in, a store of kept samples out."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from jsonargparse import lazy_instance

from anomalib_synth.engines.claiming import claim, find_store
from anomalib_synth.engines.estimate import estimate_run
from anomalib_synth.engines.local import run_local
from anomalib_synth.engines.plan import missing_indices, plan_tasks
from anomalib_synth.engines.progress import make_progress, summarise
from anomalib_synth.engines.ray_engine import import_ray, run_on_ray
from anomalib_synth.engines.scanning import Scan, list_datamodule, require_readable, scan
from anomalib_synth.engines.settings import check_same, choose_settings
from anomalib_synth.engines.tiles import Tile
from anomalib_synth.engines.worker import Job, single_thread
from anomalib_synth.generators import AnomalyGenerator, RuleBasedGenerator
from anomalib_synth.generators.prepared import PreparedNormals, evenly_spread
from anomalib_synth.images import (
    ImageReader,
    ImageSize,
    Listing,
    WhitePoint,
    allow_large_images,
    list_images,
    to_tensor,
)
from anomalib_synth.store import SampleStore, describe_costs, measure_costs
from anomalib_synth.store.cost import check_price

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from anomalib_synth.images import Normal
    from anomalib_synth.store import Record

_DEFAULT = lazy_instance(RuleBasedGenerator)  # the command line shows it and takes arguments for it


def generate(
    normals: Path | None = None,
    *,
    out: Path,
    datamodule: Path | None = None,
    generator: AnomalyGenerator = _DEFAULT,
    num_samples: int = 100,
    seed: int = 0,
    image_size: int | str | None = None,
    bit_depth: int | None = None,
    split: Literal["train", "val", "test"] = "train",
    max_normals: int = 256,
    workers: int = 1,
    engine: Literal["local", "ray"] = "local",
    batch_size: int = 4,
    resume: bool = True,
    dry_run: bool = False,
    price_per_hour: float | None = None,
) -> None:
    """Draw synthetic defects onto your good images and keep them in a store.

    The samples depend on the images, the generator, the seed and the size alone, not on the number of workers or the
    engine. A run that was stopped, whatever stopped it, goes on where it was when the same command is given again; a
    larger num_samples adds to a finished one. Images that cannot be read are left out, with the reason, and the run
    goes on.

    Args:
        normals: Folder with good images, searched recursively; or name a datamodule.
        out: Folder of the store.
        datamodule: YAML file with class_path and init_args of any anomalib datamodule, in place of normals: its normal
            training images are taken.
        generator: Draws the defects: a class path, or a YAML file with class_path and init_args.
        num_samples: Number of samples, >= 1, those that fail the checks included. More than there are images: each is
            used again, with another defect.
        seed: Seed of the samples, >= 0.
        image_size: Long side in pixels that images are resized to, >= 16, or height x width, such as 384x512; by
            default they keep their size, and in those of more than 33 megapixels defects are drawn in tiles.
        bit_depth: Bits that white has in images of more than 8 bits, 8 to 16, such as 12 for a 12-bit camera whose
            images lie in 16-bit files; by default it is found in the folder, and printed.
        split: What the images are in your data set; samples of one split never serve another.
        max_normals: Number of images to prepare the generator with, >= 1, evenly spread.
        workers: Number of processes that draw, >= 1.
        engine: "local" draws on this machine, "ray" on the Ray cluster that RAY_ADDRESS names, or else on a local one.
        batch_size: Samples a worker draws at once, >= 1; changes the speed only.
        resume: Go on with a store that is there; otherwise refuse to touch it.
        dry_run: Draw a few samples, say how long the run would take and what it would need on disk, write nothing.
        price_per_hour: Price of an hour of the device a worker runs on, to tell what an accepted sample costs.

    Raises:
        ValueError: If an argument is out of its range, no image can be read, or the store has other settings.
        StoreError: If another run writes into the store, or the disk is full.
    """
    limits = {"num_samples": 1, "seed": 0, "max_normals": 1, "workers": 1, "batch_size": 1}
    _check_limits({name: (value, limits[name]) for name, value in locals().items() if name in limits})
    white_point = WhitePoint() if bit_depth is None else WhitePoint.of_bit_depth(bit_depth)
    reader = ImageReader(ImageSize.parse(image_size), white_point)
    check_price(price_per_hour)
    if engine == "ray":
        import_ray()
    if generator is _DEFAULT:
        generator = RuleBasedGenerator()
    settings = choose_settings(generator, seed=seed, image_size=image_size, split=split, max_normals=max_normals)
    store = find_store(out, settings, resume=resume)
    listing = _list_inputs(normals, datamodule, out)
    if dry_run:
        done = sum(record.index < num_samples for record in store.records) if store else 0
        with allow_large_images():
            estimate = estimate_run(
                listing.files, generator, out=out, done=done, seed=seed, num_samples=num_samples, reader=reader,
                max_normals=max_normals, workers=workers,
            )  # fmt: skip
        print(estimate)
        return
    run = _Run(
        listing=listing,
        reader=reader,
        settings=settings,
        num_samples=num_samples,
        workers=workers,
        draw=run_on_ray if engine == "ray" else run_local,
        batch_size=batch_size,
        price_per_hour=price_per_hour,
    )
    print(run.into(store, out))


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run whose arguments are checked."""

    listing: Listing
    reader: ImageReader
    settings: dict[str, Any]
    num_samples: int
    workers: int
    draw: Any
    batch_size: int
    price_per_hour: float | None = None

    def into(self, store: SampleStore | None, out: Path) -> str:
        """Draw what the store lacks, making it first if it is new; return what to tell the user."""
        known = store.settings["normals"] if store else None
        with make_progress() as progress, allow_large_images(), single_thread(), claim(out, store):
            found, prepared = self._look(progress, known=known)
            settings = {**self.settings, "normals": found.summary, "prepare_digest": prepared.digest}
            if store:
                check_same(store.settings, settings, str(out))
            else:
                store = SampleStore.create(out, settings)
            return self._fill(store, found, prepared, progress)

    def _look(self, progress: Any, *, known: dict[str, Any] | None) -> tuple[Scan, PreparedNormals]:
        """Read the inputs and measure the normals among them."""
        files = self.listing.files
        bar = progress.add_task("Reading the normals", total=len(files))
        found = scan(
            files,
            reader=self.reader,
            workers=self.workers,
            known=known,
            foreign=self.listing.foreign,
            advance=lambda: progress.advance(bar),
        )
        require_readable(found)
        chosen = evenly_spread(found.normals, self.settings["max_normals"])
        bar = progress.add_task("Preparing the generator", total=len(chosen))
        prepared = PreparedNormals.from_images(progress.track(_read_tensors(chosen, found.reader), task_id=bar))
        return found, prepared

    def _fill(self, store: SampleStore, found: Scan, prepared: PreparedNormals, progress: Any) -> str:
        """Draw the samples that are missing, and append their rows in order."""
        for name, reason in found.unreadable.items():
            store.quarantine(name, reason)
        done = {record.index for record in store.records}
        todo = list(missing_indices(done, self.num_samples))
        job = Job(
            store=store.path.absolute(),
            generator=self.settings["generator"],
            prepared=prepared,
            reader=found.reader,
            split=self.settings["split"],
            weights_hash=self.settings["weights_hash"],
        )
        tasks = plan_tasks(todo, found.normals, seed=self.settings["seed"], batch_size=self.batch_size)
        bar = progress.add_task("Drawing", total=self.num_samples, completed=self.num_samples - len(todo))
        share = _Shared()
        if todo:
            with closing(self.draw(job, tasks, workers=min(self.workers, len(todo)))) as results:
                for records in results:
                    for record in records:
                        store.append(share.record(record))
                        progress.advance(bar)
        kept = [store.is_accepted(record) for record in store.records]
        costs = describe_costs(measure_costs(store.records, kept, price_per_hour=self.price_per_hour))
        white = f"White is {found.reader.white_point}.\n" if str(found.reader.white_point) else ""
        return f"{summarise(store.records, found.unreadable)}\n{white}{costs}\nStore: {store.path}"


class _Shared:
    """Lets the rows of a run share what they have in common, so that many take little memory."""

    def __init__(self) -> None:
        self.configs: list[dict[str, Any]] = []

    def record(self, record: Record) -> Record:
        """Return a row with the generator's config, and the names of its parameters, of the rows before it."""
        config = next((each for each in self.configs if each == record.generator), None)
        if config is None:
            config = record.generator
            self.configs.append(config)
        return replace(record, generator=config, params={sys.intern(name): v for name, v in record.params.items()})


def _check_limits(values: dict[str, tuple[int, int]]) -> None:
    for name, (value, least) in values.items():
        if value < least:
            msg = f"`{name}` must be >= {least}, got {value}."
            raise ValueError(msg)


def _list_inputs(normals: Path | None, datamodule: Path | None, out: Path) -> Listing:
    """Return the input files by name."""
    if (normals is None) == (datamodule is None):
        given = "neither" if normals is None else "both"
        msg = f"Give one of `normals` (a folder of good images) and `datamodule` (a YAML file), got {given}."
        raise ValueError(msg)
    if normals is None:
        return Listing(list_datamodule(cast("Path", datamodule)))
    if out.resolve().is_relative_to(normals.resolve()):
        msg = (
            f"`out` must lie outside `normals`, got {str(out)!r} inside {str(normals)!r}: "
            "the samples would be taken for normals."
        )
        raise ValueError(msg)
    return list_images(normals)


def _read_tensors(normals: list[Normal], reader: ImageReader) -> Iterator[torch.Tensor]:
    """Yield the images (3, H, W) in [0, 1]; a tile of those that are too large for memory."""
    for normal in normals:
        pixels = reader.read_unchanged(normal)
        yield to_tensor(Tile.choose(pixels, 0).cut(pixels))

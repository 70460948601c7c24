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
from anomalib_synth.engines.known_inputs import Resumed, resume_inputs, write_inputs
from anomalib_synth.engines.local import run_local
from anomalib_synth.engines.plan import missing_indices, plan_sample, plan_tasks
from anomalib_synth.engines.progress import make_progress, summarise
from anomalib_synth.engines.ray_engine import import_ray, run_on_ray
from anomalib_synth.engines.scanning import list_datamodule, require_readable, scan
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
from anomalib_synth.store.verify import put_in_order, set_aside

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

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
        with make_progress() as progress, allow_large_images(), single_thread(), claim(out, store):
            inputs = self._scan(progress, store)
            prepared = self._prepare(progress, inputs, store)
            settings = {**self.settings, "normals": inputs.found.summary, "prepare_digest": prepared.digest}
            if store:
                if inputs.gone:  # what could not be prepared with is named, and the rest goes on
                    settings["prepare_digest"] = store.settings.get("prepare_digest")
                check_same(store.settings, settings, str(out))
            else:
                write_inputs(out, inputs.found)
                store = SampleStore.create(out, settings)
            return self._fill(store, inputs, prepared, progress)

    def _scan(self, progress: Any, store: SampleStore | None) -> Resumed:
        """Read the inputs, and compare them with those of a store that is there."""
        files = self.listing.files
        bar = progress.add_task("Reading the normals", total=len(files))
        found = scan(
            files,
            reader=self.reader,
            workers=self.workers,
            known={"unreadable": {}, **store.settings.get("normals", {})} if store else None,
            foreign=self.listing.foreign,
            advance=lambda: progress.advance(bar),
        )
        inputs = resume_inputs(store, found, files) if store else Resumed(found=found)
        require_readable(inputs.found)
        return inputs

    def _prepare(self, progress: Any, inputs: Resumed, store: SampleStore | None) -> PreparedNormals:
        """Measure the normals; of one that is gone, as the store has it."""
        chosen = evenly_spread(inputs.found.normals, self.settings["max_normals"])
        copies = {record.source: record for record in store.records if record.source in inputs.gone} if store else {}

        def read() -> Iterator[np.ndarray]:
            for normal in chosen:
                if normal.name not in inputs.gone:
                    yield inputs.found.reader.read_unchanged(normal)
                elif store and normal.name in copies:
                    yield store.read_source(copies[normal.name])

        images = (to_tensor(Tile.choose(pixels, 0).cut(pixels)) for pixels in read())
        bar = progress.add_task("Preparing the generator", total=len(chosen))
        return PreparedNormals.from_images(progress.track(images, task_id=bar))

    def _fill(self, store: SampleStore, inputs: Resumed, prepared: PreparedNormals, progress: Any) -> str:
        """Draw the samples that are missing, and append their rows in order."""
        normals, seed = inputs.found.normals, self.settings["seed"]
        for name, reason in inputs.found.unreadable.items():
            store.quarantine(name, reason)
        said = self._set_misfits_aside(store, normals)
        done = {record.index for record in store.records}
        missing = list(missing_indices(done, self.num_samples))
        todo = [index for index in missing if plan_sample(index, normals, seed=seed).normal.name not in inputs.gone]
        job = Job(
            store=store.path.absolute(),
            generator=self.settings["generator"],
            prepared=prepared,
            reader=inputs.found.reader,
            split=self.settings["split"],
            weights_hash=self.settings["weights_hash"],
        )
        tasks = plan_tasks(todo, normals, seed=seed, batch_size=self.batch_size)
        bar = progress.add_task("Drawing", total=self.num_samples, completed=self.num_samples - len(missing))
        share = _Shared()
        if todo:
            with closing(self.draw(job, tasks, workers=min(self.workers, len(todo)))) as results:
                for records in results:
                    for record in records:
                        store.append(share.record(record))
                        progress.advance(bar)
        put_in_order(store)
        kept = [store.is_accepted(record) for record in store.records]
        costs = describe_costs(measure_costs(store.records, kept, price_per_hour=self.price_per_hour))
        white = str(inputs.found.reader.white_point)
        said += [f"White is {white}."] if white else []
        said += inputs.notes
        if len(todo) < len(missing):
            said.append(f"{len(missing) - len(todo)} samples wait for inputs that cannot be read any more.")
        if todo and inputs.gone and prepared.digest != store.settings.get("prepare_digest"):
            said.append("The new samples were prepared without them, so they are not those of an uninterrupted run.")
        return "\n".join([summarise(store.records, inputs.found.unreadable), *said, costs, f"Store: {store.path}"])

    def _set_misfits_aside(self, store: SampleStore, normals: list[Normal]) -> list[str]:
        """Take rows out of the manifest that are not what the run draws at their place: they were edited."""
        misfits = []
        for record in store.records:
            planned = plan_sample(record.index, normals, seed=self.settings["seed"])
            if (record.source, record.seed) != (planned.normal.name, planned.seed):
                misfits.append(record.id)
        if not misfits:
            return []
        said = set_aside(store, misfits)
        store.reload()
        return [f"{len(misfits)} rows were not those of this run: the manifest was edited.", *said]


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

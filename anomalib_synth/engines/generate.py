"""A run of `anomalib-synth generate` once its arguments are checked: it reads, prepares, draws and keeps."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth.engines.known_inputs import ResumedInputs, resume_inputs, write_inputs
from anomalib_synth.engines.plan import missing_indices, plan_sample, plan_tasks
from anomalib_synth.engines.progress import summarise
from anomalib_synth.engines.scanning import require_readable, scan
from anomalib_synth.engines.settings import check_same
from anomalib_synth.engines.store_lock import lock_store
from anomalib_synth.engines.tiles import Tile
from anomalib_synth.engines.worker import Job
from anomalib_synth.generators.prepared import PreparedNormals, evenly_spread
from anomalib_synth.images import (
    ImageReader,
    Listing,
    allow_large_images,
    to_tensor,
)
from anomalib_synth.models.threads import one_thread
from anomalib_synth.progress import make_progress
from anomalib_synth.store import SampleStore, describe_costs, measure_costs
from anomalib_synth.store.verify import put_in_order, set_aside

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from anomalib_synth.images import Normal, WhitePoint
    from anomalib_synth.store import Record


@dataclass(frozen=True, kw_only=True)
class GenerateRun:
    """A run whose arguments are checked.

    Args:
        listing: The input files.
        reader: How they are read.
        settings: Settings of the store that are known before any image is read.
        num_samples: Number of samples the store is to have.
        workers: Number of processes.
        draw: Runs the tasks: locally or on Ray.
        batch_size: Samples drawn at once.
        price_per_hour: Price of an hour of a worker's device.
        defect_digests: File by digest of the real defects that the samples show.
        donor_whites: Name of each generator that draws, and white of the images that its samples show.
    """

    listing: Listing
    reader: ImageReader
    settings: dict[str, Any]
    num_samples: int
    workers: int
    draw: Any
    batch_size: int
    price_per_hour: float | None = None
    defect_digests: dict[str, str] = field(default_factory=dict)
    donor_whites: list[tuple[str, WhitePoint]] = field(default_factory=list)

    def into(self, store: SampleStore | None, out: Path) -> str:
        """Draw what the store lacks, making it first if it is new; return what to tell the user."""
        with make_progress(rate=True) as progress, allow_large_images(), one_thread(), lock_store(out, store):
            inputs = self._scan(progress, store)
            inputs.found.reader.white_point.check_same(self.donor_whites, "generator")
            prepared = self._prepare(progress, inputs, store)
            settings = {**self.settings, "normals": inputs.found.summary, "prepare_digest": prepared.digest}
            if store:
                if inputs.gone:  # its normals may be prepared without those: they are named, and the run goes on
                    settings["prepare_digest"] = store.settings.get("prepare_digest")
                check_same(store.settings, settings, str(out))
            else:
                write_inputs(out, inputs.found)
                shown = {"defect_digests": self.defect_digests} if self.defect_digests else {}
                store = SampleStore.create(out, {**settings, **shown})
            return self._fill(store, inputs, prepared, progress)

    def _scan(self, progress: Any, store: SampleStore | None) -> ResumedInputs:
        """Read the inputs, and compare them with those of the store if there is one already."""
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
        inputs = resume_inputs(store, found, files) if store else ResumedInputs(found=found)
        require_readable(inputs.found)
        return inputs

    def _prepare(self, progress: Any, inputs: ResumedInputs, store: SampleStore | None) -> PreparedNormals:
        """Measure the normals; in place of a normal that is gone, the store's copy is measured if it has one."""
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

    def _fill(self, store: SampleStore, inputs: ResumedInputs, prepared: PreparedNormals, progress: Any) -> str:
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
        said += self.listing.notes(inputs.found.unreadable)
        if left_out := inputs.found.unreadable:
            counted = "1 input was" if len(left_out) == 1 else f"{len(left_out)} inputs were"
            said.append(f"{counted} quarantined, see quarantine.jsonl.")
        said += [f"White is {white}."] if white else []
        said += inputs.notes
        if len(todo) < len(missing):
            said.append(f"{len(missing) - len(todo)} samples wait for inputs that cannot be read any more.")
        if todo and inputs.gone and prepared.digest != store.settings.get("prepare_digest"):
            said.append("The generator was prepared without them, so the samples differ from an uninterrupted run's.")
        return "\n".join([summarise(store.records), *said, costs, f"Store: {store.path}"])

    def _set_misfits_aside(self, store: SampleStore, normals: list[Normal]) -> list[str]:
        """Take rows out of the manifest whose source or seed is not the run's at their index: they were edited."""
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

"""Drawing one task, the same way in every engine: read the normals, draw, encode, put the files."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_synth.engines.tiles import Tile
from anomalib_synth.generators import build_generator
from anomalib_synth.generators.families.registry import import_modules, own_modules
from anomalib_synth.generators.keeping import SampleKeeper, to_levels
from anomalib_synth.generators.validation import check_drawn_on
from anomalib_synth.images import allow_large_images, to_tensor
from anomalib_synth.images.batching import batch_by_size
from anomalib_synth.models.threads import one_thread
from anomalib_synth.store import Record, SampleStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anomalib_synth.engines.plan import PlannedSample
    from anomalib_synth.generators import AnomalyGenerator
    from anomalib_synth.generators.keeping import Put
    from anomalib_synth.generators.prepared import PreparedNormals
    from anomalib_synth.images import ImageReader
    from anomalib_synth.sample import AnomalySample

_BATCH_PIXELS = 2**24


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all tasks of a run share: plain data that any process can draw from.

    Args:
        store: Folder of the store.
        generator: ``{"class_path": ..., "init_args": {...}}``.
        prepared: The normals, measured once.
        reader: How the images are read.
        split: Role of the sources.
        weights_hash: Digest of the generator's weights, ``""`` when it has none.
        modules: Modules of users' families, imported before the generator is built.
    """

    store: Path
    generator: dict[str, Any]
    prepared: PreparedNormals
    reader: ImageReader
    split: str
    weights_hash: str
    modules: tuple[str, ...] = field(default_factory=own_modules)

    def to_bytes(self) -> bytes:
        """Return the job by value: tensors would travel through shared memory, which containers have little of."""
        return pickle.dumps(self)

    @staticmethod
    def from_bytes(data: bytes) -> Job:
        """Return the job that another process of this run sent; nothing from a file is ever unpickled."""
        return pickle.loads(data)


class Worker:
    """Draws tasks, one after the other.

    Args:
        job: What to draw with.
        put: Stores a file: kind, name, bytes -> path in the store. None puts it into the job's store.
    """

    def __init__(self, job: Job, *, put: Put | None = None) -> None:
        self.job = job
        import_modules(job.modules)
        self.generator = build_generator(job.generator, imports=True)
        self.generator.use_prepared(job.prepared)
        self._keeper = SampleKeeper(put or SampleStore(job.store).put, split=job.split, weights_hash=job.weights_hash)

    def draw(self, task: Sequence[PlannedSample]) -> list[Record]:
        """Draw the samples of a task and put their files; return their rows.

        Raises:
            StoreError: If the store cannot take a file, as when the disk is full.
            ValueError: If an input changed since the run began, or the generator refuses one.
        """
        with one_thread(), allow_large_images():
            return [record for batch, pixels in self._batches(task) for record in self._draw_batch(batch, pixels)]

    def _batches(self, task: Sequence[PlannedSample]) -> Iterator[tuple[list[PlannedSample], list[np.ndarray]]]:
        """Yield consecutive samples whose images have one size, with the images; no more than memory is good for."""
        read = ((planned, self.job.reader.read_unchanged(planned.normal)) for planned in task)
        for pairs in batch_by_size(read, lambda pair: pair[1].shape[:2], most=_BATCH_PIXELS):
            yield [planned for planned, _ in pairs], [pixels for _, pixels in pairs]

    def _draw_batch(self, batch: list[PlannedSample], pixels: list[np.ndarray]) -> Iterator[Record]:
        started = time.perf_counter()
        tiles = [Tile.choose(each, planned.seed) for planned, each in zip(batch, pixels, strict=True)]
        if tiles[0].share_of(pixels[0]) < 1:
            _refuse_whole_masks(self.generator)
        cut = np.stack([tile.cut(each) for tile, each in zip(tiles, pixels, strict=True)])
        images = to_tensor(cut)
        try:
            names = self.generator.name_images([planned.normal.path for planned in batch])
            sample = self.generator(images, seeds=[planned.seed for planned in batch], **names)
        except ValueError as error:
            msg = f"{error} (Drawing {_describe(batch)}.)"
            raise ValueError(msg) from error
        except Exception as error:
            error.add_note(f"While drawing {_describe(batch)}.")
            raise
        check_drawn_on(
            sample, images, self.generator, [f"the input {planned.normal.name!r}" for planned in batch],
            "To train on kept samples use them as they are.",
        )  # fmt: skip
        seconds = (time.perf_counter() - started) / len(batch)
        for n, planned in enumerate(batch):
            yield self._keep(planned, pixels[n], tiles[n], sample, n, seconds)

    def _keep(
        self, planned: PlannedSample, source: np.ndarray, tile: Tile, sample: AnomalySample, n: int, seconds: float
    ) -> Record:
        """Put the files of one sample, drawn in a tile of its source, and return its row."""
        image = mask = None
        if bool(sample.accepted[n]):
            image = tile.put(to_levels(sample.image[n]), source)
            mask = tile.put(to_levels(sample.mask[n])[..., 0], np.zeros(source.shape[:2], np.uint8))
        return self._keeper.keep(
            sample, n, index=planned.index, name=planned.normal.name, seed=planned.seed,
            source=source, image=image, mask=mask, seconds=seconds,
        )  # fmt: skip


def _refuse_whole_masks(generator: AnomalyGenerator) -> None:
    """Refuse a mask of the part or of a region, which is the whole image's, for a tile of it."""
    for part in generator.walk():
        foreground = getattr(part, "foreground", None)
        if foreground not in {None, "auto"}:
            msg = (
                "`foreground` must be auto or null for images of more than 33 megapixels, which are drawn in tiles, "
                f"got {str(foreground)!r}. Set it so, or set `image_size`."
            )
            raise ValueError(msg)
        if getattr(part, "region", None) is not None:
            msg = (
                "`region` must be null for images of more than 33 megapixels, which are drawn in tiles, got "
                f"{str(part.region)!r}. Set it so, or set `image_size`."  # type: ignore[attr-defined]
            )
            raise ValueError(msg)


def _describe(batch: list[PlannedSample]) -> str:
    """Name the samples of a batch for an error."""
    names = ", ".join(repr(planned.normal.name) for planned in batch)
    return f"samples {batch[0].index} to {batch[-1].index} on {names}"

"""Drawing one task, the same way in every engine: read the normals, draw, encode, put the files."""

from __future__ import annotations

import pickle
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anomalib_synth.engines.tiles import Tile
from anomalib_synth.generators import build_generator
from anomalib_synth.generators.families.registry import import_modules, own_modules
from anomalib_synth.images import allow_large_images, hash_bytes, to_tensor
from anomalib_synth.store import Record, SampleStore, encode_png, hash_pixels, sample_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from anomalib_synth.engines.plan import PlannedSample
    from anomalib_synth.generators import AnomalyGenerator
    from anomalib_synth.generators.prepared import PreparedNormals
    from anomalib_synth.images import ImageReader
    from anomalib_synth.sample import AnomalySample
    from anomalib_synth.store.store import Kind

    Put = Callable[[Kind, str, bytes], str]

_MEASURED = ("area", "visibility", "agreement", "foreground")
_BATCH_PIXELS = 2**24
_REMEMBERED_SOURCES = 4096


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
        self._put = put or SampleStore(job.store).put
        self._sources: dict[str, tuple[str, str]] = {}

    def draw(self, task: Sequence[PlannedSample]) -> list[Record]:
        """Draw the samples of a task and put their files; return their rows.

        Raises:
            StoreError: If the store cannot take a file, as when the disk is full.
            ValueError: If an input changed since the run began, or the generator refuses one.
        """
        with single_thread(), allow_large_images():
            return [record for batch, pixels in self._batches(task) for record in self._draw_batch(batch, pixels)]

    def _batches(self, task: Sequence[PlannedSample]) -> Iterator[tuple[list[PlannedSample], list[np.ndarray]]]:
        """Yield consecutive samples whose images have one size, with the images; no more than memory is good for."""
        batch: list[PlannedSample] = []
        images: list[np.ndarray] = []
        for planned in task:
            pixels = self.job.reader.read_unchanged(planned.normal)
            full = (len(images) + 1) * pixels.shape[0] * pixels.shape[1] > _BATCH_PIXELS
            if images and (pixels.shape != images[0].shape or full):
                yield batch, images
                batch, images = [], []
            batch.append(planned)
            images.append(pixels)
        yield batch, images

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
        if not torch.equal(sample.source.cpu(), images):
            msg = (
                f"`generator` {type(self.generator).__name__} must draw on the images it is given, but it gave samples "
                "of other images. To train on kept samples use them as they are."
            )
            raise ValueError(msg)
        seconds = (time.perf_counter() - started) / len(batch)
        for n, planned in enumerate(batch):
            yield self._keep(planned, pixels[n], tiles[n], sample, n, seconds)

    def _keep(
        self, planned: PlannedSample, source: np.ndarray, tile: Tile, sample: AnomalySample, n: int, seconds: float
    ) -> Record:
        """Put the files of one sample, drawn in a tile of its source, and return its row."""
        provenance = sample.provenance[n]
        accepted = bool(sample.accepted[n])
        source_hash = hash_pixels(source)
        identity = sample_id(
            source_hash=source_hash,
            prepare_digest=provenance.prepare_digest,
            config=provenance.config,
            prompt=provenance.prompt,
            mask_hash="",
            files_digest=provenance.files_digest,
            weights_hash=self.job.weights_hash,
            seed=planned.seed,
        )
        source_file, source_file_hash = self._put_source(source_hash, source)
        image_file, image_hash, mask_file, mask_hash = "", "", "", ""
        if accepted:
            image = tile.put(to_levels(sample.image[n]), source)
            mask = tile.put(to_levels(sample.mask[n])[..., 0], np.zeros(source.shape[:2], np.uint8))
            image_file, image_hash = self._put_png("images", identity, image)
            mask_file, mask_hash = self._put_png("masks", identity, mask)
        measured = {name: provenance.measured.get(name, 0.0) for name in _MEASURED}
        measured["area"] *= tile.share_of(source)
        scores = {name: value for name, value in provenance.measured.items() if name not in _MEASURED}
        return Record(
            id=identity,
            index=planned.index,
            split=self.job.split,
            source=planned.normal.name,
            source_hash=source_hash,
            image_file=image_file,
            mask_file=mask_file,
            source_file=source_file,
            image_hash=image_hash,
            mask_hash=mask_hash,
            source_file_hash=source_file_hash,
            generator=provenance.config,
            prepare_digest=provenance.prepare_digest,
            files_digest=provenance.files_digest,
            weights_hash=self.job.weights_hash,
            seed=planned.seed,
            attempt=provenance.attempt,
            prompt=provenance.prompt,
            caption=sample.caption[n],
            family=provenance.family,
            params=dict(provenance.params),
            strength=provenance.params.get("strength"),
            **measured,
            quality=float(sample.quality[n]),
            scores=scores,
            accepted=accepted,
            reason=sample.reason[n],
            seconds=round(seconds, 4),
            version=provenance.version,
        )

    def _put_source(self, source_hash: str, source: np.ndarray) -> tuple[str, str]:
        """Put a source once; a worker remembers those it has put."""
        if source_hash not in self._sources:
            if len(self._sources) >= _REMEMBERED_SOURCES:
                self._sources.pop(next(iter(self._sources)))
            self._sources[source_hash] = self._put_png("sources", source_hash, source)
        return self._sources[source_hash]

    def _put_png(self, kind: Kind, name: str, pixels: np.ndarray) -> tuple[str, str]:
        data = encode_png(pixels)
        return self._put(kind, name, data), hash_bytes(data)


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute on one thread, whatever the number of workers: sums differ in the last bits between thread counts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def to_levels(image: torch.Tensor) -> np.ndarray:
    """Turn (C, H, W) in [0, 1] into (H, W, C) uint8; levels that were 8-bit before come back exactly."""
    levels = (image.detach().cpu().float() * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


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

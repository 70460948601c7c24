"""Estimates the time and the disk space of a run from a few samples that are drawn and thrown away."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.engines.plan import PlannedSample, plan_sample
from anomalib_synth.engines.progress import as_size
from anomalib_synth.engines.tiles import Tile
from anomalib_synth.engines.worker import Job, Worker
from anomalib_synth.generators.prepared import PreparedNormals, evenly_spread
from anomalib_synth.images import (
    ImageReader,
    Normal,
    UnreadableImageError,
    WhitePoint,
    find_white_point,
    hash_bytes,
    read_bytes,
    to_tensor,
)
from anomalib_synth.models.threads import one_thread
from anomalib_synth.progress import as_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from anomalib_synth.generators import AnomalyGenerator
    from anomalib_synth.images import Listing
    from anomalib_synth.store import Record

_PROBES = 8
_PREPARED = 16


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """The time and disk space that a run is expected to need.

    Args:
        samples: Samples that are still to be drawn.
        seconds: Time for reading the inputs, preparing and drawing.
        sample_seconds: Time for one sample in one worker.
        disk_bytes: Disk space for what is still to be written.
        free_bytes: Free space on the disk of the store.
        accepted: Share of the trial samples that passed the checks.
        notes: Lines that say what is left out, of the trial inputs that could not be read too.
    """

    samples: int
    seconds: float
    sample_seconds: float
    disk_bytes: float
    free_bytes: int
    accepted: float
    notes: list[str]

    def __str__(self) -> str:
        """Write it for people."""
        lines = [
            f"{self.samples} samples to draw, about {as_duration(self.seconds)} "
            f"({self.sample_seconds:.3f} s a sample and worker), about {as_size(self.disk_bytes)} on disk "
            f"({as_size(self.free_bytes)} free). {self.accepted:.0%} of the trial samples passed the checks.",
            *self.notes,
            "Dry run: nothing was written.",
        ]
        if self.disk_bytes > self.free_bytes:
            lines.insert(1, "This is more than is free: the run would stop with a full disk.")
        return "\n".join(lines)


def estimate_run(
    listing: Listing,
    generator: AnomalyGenerator,
    *,
    out: Path,
    num_samples: int,
    done: int,
    seed: int,
    reader: ImageReader,
    max_normals: int,
    workers: int,
) -> RunEstimate:
    """Draw eight samples on inputs spread over the folder, and extrapolate; nothing is written.

    Args:
        listing: The input files.
        generator: Draws the defects.
        out: Folder of the store, which need not be there yet.
        num_samples: Samples of the whole run.
        done: Samples the store holds already.
        seed: Seed of the run.
        reader: How the images are read.
        max_normals: Number of normals the run prepares with.
        workers: Number of workers.

    Raises:
        ValueError: If none of the trial inputs can be read.
    """
    files = listing.files
    inputs = _TrialRun(files, reader)
    started = time.perf_counter()
    with one_thread():
        prepared = PreparedNormals.from_images(inputs)
    prepare_seconds = (time.perf_counter() - started) / len(inputs.normals)
    normals = inputs.normals
    written: Counter[str] = Counter()
    job = Job(
        store=out,
        generator=generator.config,
        prepared=prepared,
        reader=inputs.reader,
        split="train",
        weights_hash=generator.weights_hash,
    )
    worker = Worker(job, put=lambda kind, _, data: written.update({kind: len(data), f"{kind} files": 1}) or ("", ""))
    worker.draw([plan_sample(_PROBES, normals, seed=seed)])  # the first draw builds what the others reuse
    written.clear()
    started = time.perf_counter()
    records = [record for k in range(_PROBES) for record in worker.draw(_probe(k, normals, seed))]
    sample_seconds = (time.perf_counter() - started) / _PROBES
    left = max(0, num_samples - done)
    scanning = len(files) * inputs.seconds / inputs.tried / workers + min(len(files), max_normals) * prepare_seconds
    return RunEstimate(
        samples=left,
        seconds=scanning + left * sample_seconds / workers,
        sample_seconds=sample_seconds,
        disk_bytes=_disk_bytes(written, records, left=left, sources=min(len(files), left)),
        free_bytes=shutil.disk_usage(_existing(out)).free,
        accepted=sum(record.accepted for record in records) / len(records),
        notes=listing.notes(inputs.unreadable),
    )


def _probe(k: int, normals: list[Normal], seed: int) -> list[PlannedSample]:
    return [plan_sample(k, normals, seed=seed)]


def _disk_bytes(written: Counter[str], records: list[Record], *, left: int, sources: int) -> float:
    """Extrapolate what was written: images and masks by sample, sources by input, and the manifest's rows."""
    pairs = (written["images"] + written["masks"]) / len(records)
    rows = sum(len(json.dumps(record.to_dict())) for record in records) / len(records)
    source = written["sources"] / max(1, written["sources files"])
    return left * (pairs + rows) + sources * source


class _TrialRun:
    """Some of the inputs, read one at a time as they are asked for."""

    def __init__(self, files: dict[str, Path], reader: ImageReader) -> None:
        self.chosen = evenly_spread(list(files.items()), _PREPARED)
        self.reader = reader
        self.normals: list[Normal] = []
        self.unreadable: dict[str, str] = {}
        self.seconds = 0.0
        if reader.white_point == WhitePoint():
            self.reader = replace(reader, white_point=find_white_point(files.values()))

    @property
    def tried(self) -> int:
        return len(self.normals) + len(self.unreadable)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for name, path in self.chosen:
            started = time.perf_counter()
            try:
                data = read_bytes(path)
                pixels = self.reader.decode(data)
                self.normals.append(Normal(path=path, name=name, content=hash_bytes(data)))
            except UnreadableImageError as error:
                self.unreadable[name] = str(error)
                continue
            finally:
                self.seconds += time.perf_counter() - started
            yield to_tensor(Tile.choose(pixels, 0).cut(pixels))
        if not self.normals:
            examples = "; ".join(f"{name!r}: {reason}" for name, reason in list(self.unreadable.items())[:3])
            msg = f"`normals` must hold readable images, none of the {self.tried} tried is: {examples}."
            raise ValueError(msg)


def _existing(path: Path) -> Path:
    """Return the path or the first of its parents that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())

"""The parts of `anomalib-synth filter`: reading normals, judging samples, writing scores."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anomalib_synth.generators.prepared import evenly_spread
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.images import ImageFolder, ImageSize, WhitePoint, list_images, to_tensor
from anomalib_synth.retrieval.filter import RetrievalFilter
from anomalib_synth.store import SampleStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anomalib_synth.store import Record

_COLUMNS = (
    "id", "index", "family", "similarity", "standing", "loss_of_similarity", "smoothed_visibility", "window", "reason",
)  # fmt: skip
_BATCH = 16


def read_normals(folder: Path, settings: dict[str, Any], *, limit: int) -> Iterator[torch.Tensor]:
    """Yield images (3, H, W) in [0, 1] as the store's run read them; unreadable ones are named and left out."""
    white = settings.get("normals", {}).get("white_point")
    listing = list_images(folder)
    images = ImageFolder(
        dict(evenly_spread(list(listing.files.items()), limit)),
        image_size=ImageSize.parse(settings.get("image_size")),
        white_point=WhitePoint.from_dict(white) if white else None,
    )
    for _, pixels in images:
        yield to_tensor(pixels)
    for line in listing.notes(images.left_out):
        print(line)
    images.require(2, "normals")


def judge_samples(
    store: SampleStore, records: Iterable[Record], keeper: RetrievalFilter
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield id, and the filter's scores and reason, for samples of a store, judged in batches of one image size."""
    batch: list[tuple[Record, tuple[torch.Tensor, ...]]] = []
    for record in records:
        source, image = (_as_tensor(read(record)) for read in (store.read_source, store.read_image))
        mask = torch.from_numpy(store.read_mask(record) > 0).float()[None, None]
        if batch and (len(batch) == _BATCH or batch[0][1][0].shape != source.shape):
            yield from _judge_batch(batch, keeper)
            batch = []
        batch.append((record, (source, image, mask)))
    if batch:
        yield from _judge_batch(batch, keeper)


def _judge_batch(
    batch: list[tuple[Record, tuple[torch.Tensor, ...]]], keeper: RetrievalFilter
) -> Iterator[tuple[str, dict[str, Any]]]:
    tensors = (torch.cat(parts) for parts in zip(*(parts for _, parts in batch), strict=True))
    for (record, _), judgement in zip(batch, keeper.judge(*tensors), strict=True):
        yield (
            record.id,
            {
                "similarity": judgement.similarity,
                "standing": judgement.standing,
                "loss_of_similarity": judgement.drop,
                "smoothed_visibility": judgement.visibility,
                "window": judgement.side,
                "reason": judgement.reason or ("" if record.accepted else record.reason),
            },
        )


def _as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Turn (H, W, C) or (H, W) uint8 into (1, C, H, W) in [0, 1]."""
    return to_tensor(pixels[..., None] if pixels.ndim == 2 else pixels)[None]


def scores_by_outcome(judgements: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """Return where the samples that are kept stand among the normals, and those that are refused."""
    split: dict[str, list[float]] = {"kept": [], "refused": []}
    for judgement in judgements.values():
        split["refused" if judgement["reason"] else "kept"].append(judgement["standing"])
    return split


def keep_at_random(judgements: dict[str, dict[str, Any]], seed: int) -> None:
    """Keep as many samples as the filter kept, but drawn at random: these get an empty reason, the others get one.

    The draw depends on the seed and the samples' ids alone. It is the control that shows whether the filter's choice
    matters.
    """
    count = sum(not judgement["reason"] for judgement in judgements.values())
    order = sorted(judgements, key=lambda sample: hash64(seed, "random_keep", sample))
    for position, sample in enumerate(order):
        left_out = f"left out at random, {count} of {len(order)} are kept"
        judgements[sample]["reason"] = "" if position < count else left_out


def write_scores(records: list[Record], judgements: dict[str, dict[str, Any]], out: Path) -> None:
    """Write a CSV file with one row per sample."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for record in records:
            writer.writerow({"id": record.id, "index": record.index, "family": record.family, **judgements[record.id]})

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
    from collections.abc import Iterator

    from anomalib_synth.store import Record

_COLUMNS = ("id", "index", "family", "similarity", "smoothed_visibility", "reason")


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
    for name, reason in {**listing.foreign, **images.left_out}.items():
        print(f"Left out {name}: {reason}.")
    images.require(2, "normals")


def judge_sample(store: SampleStore, record: Record, keeper: RetrievalFilter) -> dict[str, Any]:
    """Return the filter's scores and reason for a sample of a store."""
    source, image = (_as_tensor(read(record)) for read in (store.read_source, store.read_image))
    mask = torch.from_numpy(store.read_mask(record) > 0).float()[None, None]
    (judgement,) = keeper.judge(source, image, mask)
    return {
        "similarity": judgement.similarity,
        "smoothed_visibility": judgement.smoothed_visibility,
        "reason": judgement.reason or ("" if record.accepted else record.reason),
    }


def _as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Turn (H, W, C) or (H, W) uint8 into (1, C, H, W) in [0, 1]."""
    return to_tensor(pixels[..., None] if pixels.ndim == 2 else pixels)[None]


def scores_by_outcome(judgements: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """Return the similarities of the samples: ``kept`` and ``refused``."""
    split: dict[str, list[float]] = {"kept": [], "refused": []}
    for judgement in judgements.values():
        split["refused" if judgement["reason"] else "kept"].append(judgement["similarity"])
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

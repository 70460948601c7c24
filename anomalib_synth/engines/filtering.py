"""``anomalib-synth filter``: which samples of a store still look like the product."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from rich.progress import track

from anomalib_synth.generators.prepared import PreparedNormals, evenly_spread
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.images import ImageFolder, ImageSize, WhitePoint, list_images, to_tensor
from anomalib_synth.retrieval.filter import FilterSettings, RetrievalFilter
from anomalib_synth.retrieval.report import count_by_family, describe_counts, draw_scores
from anomalib_synth.store import SampleStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib_synth.store import Record

Mode = Literal["filter", "random_keep"]
_COLUMNS = ("id", "index", "family", "similarity", "smoothed_visibility", "reason")


def filter_store(
    store: Path,
    *,
    normals: Path,
    out: Path | None = None,
    retrieval: FilterSettings | None = None,
    mode: Mode = "filter",
    seed: int = 0,
    dry_run: bool = False,
) -> None:
    """Compare the samples of a store with real normals, and leave out those that no longer look like the product.

    What the filter says is kept in the store: the next training, export or count leaves out what it refused, and the
    review page shows its scores and reasons. A person's decision goes before the filter's. Run it again after
    `generate` added samples; what it said before is replaced.

    Args:
        store: Folder of the store.
        normals: Folder with good images of the product, searched recursively; those the samples were drawn on will do.
        out: Folder for the table, the scores, the picture and the index; by default `filter` in the store.
        retrieval: How samples are compared.
        mode: "filter", or the control "random_keep": as many samples are kept as the filter would keep, at random.
        seed: Seed of "random_keep".
        dry_run: Report only; the store stays as it is.

    Raises:
        ValueError: If an argument is out of its range, or fewer than two normals can be read.
        StoreError: If there is no store, or a file of it is damaged.
    """
    if mode not in get_args(Mode):
        msg = f"`mode` must be one of {', '.join(get_args(Mode))}, got {mode!r}."
        raise ValueError(msg)
    opened = SampleStore.open(store)
    out = store / "filter" if out is None else out
    settings = retrieval or FilterSettings()
    keeper = RetrievalFilter(settings, folder=out / "index")
    prepared = PreparedNormals.from_images(_read_normals(normals, opened.settings, limit=settings.max_normals))
    keeper.fit(
        prepared.donors,
        digest=prepared.digest,
        track=lambda each: track(each, "Indexing the normals", transient=True),
    )
    drawn = [record for record in opened.records if record.image_file]
    verdicts = {record.id: _judge(opened, record, keeper) for record in track(drawn, "Comparing", transient=True)}
    scores = _scores_by_outcome(verdicts)
    if mode == "random_keep":
        _keep_at_random(verdicts, seed)
    outcomes = [(record.family, verdicts.get(record.id, {}).get("reason", record.reason)) for record in opened.records]
    table = describe_counts(count_by_family(outcomes))
    _write_scores(drawn, verdicts, out / "scores.csv")
    draw_scores(keeper.normal_scores, scores, lower=keeper.lower, upper=keeper.upper, out=out / "scores.png")
    (out / "acceptance.txt").write_text(table + "\n", encoding="utf-8")
    if not dry_run:
        facts = {
            "retrieval": asdict(settings), "lower": keeper.lower, "floor": keeper.floor, "mode": mode, "seed": seed,
            "normals": prepared.digest, "embedder": keeper.embedder.weights_hash,
        }  # fmt: skip
        opened.write_verdicts(verdicts, facts)
    kept = sum(not verdict["reason"] for verdict in verdicts.values())
    print(table)
    print(
        f"Kept {kept} of {len(drawn)} drawn samples; similarity at least {keeper.lower:.4f}, set by "
        f"{len(keeper.normal_scores)} windows of {keeper.index.num_images} normals. Report: {out}"
    )


def _read_normals(folder: Path, settings: dict[str, Any], *, limit: int) -> Iterator[torch.Tensor]:
    """Yield images (3, H, W) in [0, 1] as the store's run read them; unreadable ones are named and left out."""
    white = settings.get("normals", {}).get("white_point")
    images = ImageFolder(
        dict(evenly_spread(list(list_images(folder).files.items()), limit)),
        image_size=ImageSize.parse(settings.get("image_size")),
        white_point=WhitePoint.from_dict(white) if white else None,
    )
    for _, pixels in images:
        yield to_tensor(pixels)
    for name, reason in images.left_out.items():
        print(f"Left out {name}: {reason}.")
    images.require(2, "normals")


def _judge(store: SampleStore, record: Record, keeper: RetrievalFilter) -> dict[str, Any]:
    """Return the filter's scores and reason for a sample of a store."""
    source, image = (_as_tensor(read(record)) for read in (store.read_source, store.read_image))
    mask = torch.from_numpy(store.read_mask(record) > 0).float()[None, None]
    (verdict,) = keeper.judge(source, image, mask)
    return {
        "similarity": verdict.similarity,
        "smoothed_visibility": verdict.visibility,
        "reason": verdict.reason or ("" if record.accepted else record.reason),
    }


def _as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Turn (H, W, C) or (H, W) uint8 into (1, C, H, W) in [0, 1]."""
    return to_tensor(pixels[..., None] if pixels.ndim == 2 else pixels)[None]


def _scores_by_outcome(verdicts: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    split: dict[str, list[float]] = {"kept": [], "refused": []}
    for verdict in verdicts.values():
        split["refused" if verdict["reason"] else "kept"].append(verdict["similarity"])
    return split


def _keep_at_random(verdicts: dict[str, dict[str, Any]], seed: int) -> None:
    """Give as many samples as were kept, chosen by their ids, an empty reason, and the others one."""
    count = sum(not verdict["reason"] for verdict in verdicts.values())
    order = sorted(verdicts, key=lambda sample: hash64(seed, "random_keep", sample))
    for position, sample in enumerate(order):
        left_out = f"left out at random, {count} of {len(order)} are kept"
        verdicts[sample]["reason"] = "" if position < count else left_out


def _write_scores(records: list[Record], verdicts: dict[str, dict[str, Any]], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for record in records:
            writer.writerow({"id": record.id, "index": record.index, "family": record.family, **verdicts[record.id]})

"""The command `anomalib-synth filter`: which samples of a store still look like the product."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, get_args

from anomalib_synth.commands.preconditions import check_writable_folder, require_extra
from anomalib_synth.retrieval.settings import FilterSettings

Mode = Literal["filter", "random_keep"]


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

    The filter's results are kept in the store: the next training, export or count leaves out the refused samples, and
    the review page shows the scores and reasons. A decision made in the review overrides the filter's. Run the command
    again after `generate` added samples; it replaces the earlier results.

    Args:
        store: Folder of the store.
        normals: Folder with good images of the product, searched recursively; the images that the samples were drawn on
            are good enough.
        out: Folder for the table, the scores, the picture and the index; by default `filter` in the store.
        retrieval: How samples are compared.
        mode: "filter", or the control "random_keep", which keeps as many samples as the filter would, chosen at random.
        seed: Seed of "random_keep".
        dry_run: Only report; the store stays as it is.

    Raises:
        ValueError: If an argument is out of its range, or fewer than two normals can be read.
        StoreError: If there is no store, or a file of it is damaged.
    """
    check_writable_folder("out", out or store)
    require_extra("filter", "filter", "faiss")
    from dataclasses import asdict

    from anomalib_synth.engines.filtering import (
        judge_samples,
        keep_at_random,
        read_normals,
        scores_by_outcome,
        write_scores,
    )
    from anomalib_synth.generators.prepared import PreparedNormals
    from anomalib_synth.progress import track
    from anomalib_synth.retrieval.filter import RetrievalFilter
    from anomalib_synth.retrieval.report import count_by_family, describe_counts, draw_scores
    from anomalib_synth.store import SampleStore

    if mode not in get_args(Mode):
        msg = f"`mode` must be one of {', '.join(get_args(Mode))}, got {mode!r}."
        raise ValueError(msg)
    opened = SampleStore.open(store)
    out = store / "filter" if out is None else out
    settings = retrieval or FilterSettings()
    keeper = RetrievalFilter(settings, folder=out / "index")
    prepared = PreparedNormals.from_images(read_normals(normals, opened.settings, limit=settings.max_normals))
    keeper.fit(prepared.donors, digest=prepared.digest)
    drawn = [record for record in opened.records if record.image_file]
    judgements = dict(judge_samples(opened, track(drawn, "Comparing"), keeper))
    scores = scores_by_outcome(judgements)
    if mode == "random_keep":
        keep_at_random(judgements, seed)
    outcomes = [
        (record.family, judgements.get(record.id, {}).get("reason", record.reason)) for record in opened.records
    ]
    table = describe_counts(count_by_family(outcomes))
    write_scores(drawn, judgements, out / "scores.csv")
    stands = [each.stand(score) for each in keeper.sizes.values() for score in each.scores]
    draw_scores(stands, scores, out=out / "scores.png")
    (out / "acceptance.txt").write_text(table + "\n", encoding="utf-8")
    if not dry_run:
        facts = {
            "retrieval": asdict(settings), "bounds": _describe_bounds(keeper), "floor": keeper.floor, "mode": mode,
            "seed": seed, "normals": prepared.digest, "embedder": keeper.embedder.weights_hash,
        }  # fmt: skip
        opened.write_filter_results(judgements, facts)
    kept = sum(not judgement["reason"] for judgement in judgements.values())
    print(table)
    print(
        f"Kept {kept} of {len(drawn)} drawn samples, compared with {len(keeper.normals)} normals; smoothed "
        f"visibility at least {keeper.floor:.2f}. Report: {out}"
    )
    _print_bounds(keeper)


def _describe_bounds(keeper: Any) -> dict[str, dict[str, Any]]:
    """Return the bounds of the filter for each size of windows, as plain data."""
    return {
        str(side): {
            "lower": each.lower,
            "most_lost": each.most_lost if math.isfinite(each.most_lost) else None,
            "windows": len(each.scores),
        }
        for side, each in keeper.sizes.items()
    }


def _print_bounds(keeper: Any) -> None:
    for side, each in keeper.sizes.items():
        print(
            f"  windows of {side} px: similarity at least {each.lower:.4f}, loss of similarity at most "
            f"{each.most_lost:.2f}, set by {len(each.scores)} windows of normals"
        )

"""Chooses the look-alikes that are kept: those a detector misses most, spread over defects and places."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.learning.missed_samples import ScoredSample, TrainedDetector
    from anomalib_synth.store import Record, SampleStore

_MOST = 1.5  # largest multiple of its even share that one defect, or one place, gets


def choose_missed(scored: Sequence[ScoredSample], count: int) -> list[ScoredSample]:
    """Return the samples with the lowest scores, spread over the defects and over the image.

    Samples are taken in the order of their scores, and those out of the detector's view are left out. A defect gets at
    most half as much again as its even share, and so does a place within a defect. If there is room after that, the
    lowest scores of the rest fill it.

    Args:
        scored: The candidates.
        count: Number of samples to return; all, if there are fewer.
    """
    ordered = sorted((each for each in scored if each.in_view), key=lambda each: (each.score, each.record.id))
    places: dict[Any, set[tuple[int, int]]] = defaultdict(set)
    for each in ordered:
        places[each.defect].add(each.place)
    taken: Counter[Any] = Counter()
    chosen: list[ScoredSample] = []
    left: list[ScoredSample] = []
    for each in ordered:
        share = _MOST * count / len(places)
        is_full = taken[each.defect] >= math.ceil(share)
        is_full |= taken[each.defect, each.place] >= math.ceil(share / len(places[each.defect]))
        if is_full or len(chosen) == count:
            left.append(each)
            continue
        taken.update([each.defect, (each.defect, each.place)])
        chosen.append(each)
    return chosen + left[: count - len(chosen)]


def judge(
    scored: Sequence[ScoredSample], chosen: Sequence[ScoredSample], others: Sequence[Record], detector: TrainedDetector
) -> dict[str, dict[str, Any]]:
    """Return the judgement on each sample, by id: its score, and the reason why it is left out, "" if it is kept.

    Args:
        scored: Samples the detector has scored.
        chosen: The samples to keep.
        others: Samples of the store that were not scored and are left out.
        detector: The detector.
    """
    kept = {each.record.id for each in chosen}
    judgements: dict[str, dict[str, Any]] = {
        record.id: {"reason": record.reason or "no candidate of the last run"} for record in others
    }
    ranks = {each.record.id: rank for rank, each in enumerate(sorted(scored, key=lambda each: each.score))}
    for each in scored:
        sample = each.record.id
        if not each.in_view:
            reason = "the detector does not look there"
        else:
            reason = "" if sample in kept else f"the detector misses {len(kept)} others more"
        said: dict[str, Any] = {"reason": reason, "detector_score": each.score}
        if detector.threshold is None:
            said["detector_rank"] = ranks[sample] / max(1, len(scored) - 1)
        else:
            said["detector_margin"] = each.score - detector.threshold
        judgements[sample] = said
    return judgements


def keep_missed(
    store: SampleStore, scored: Sequence[ScoredSample], others: Sequence[Record], detector: TrainedDetector, count: int
) -> list[ScoredSample]:
    """Write into a store which of its samples are kept, as a filter does, and return the kept ones.

    Args:
        store: The store.
        scored: Samples the detector has scored.
        others: The other samples of the store.
        detector: The detector.
        count: How many to keep.

    Raises:
        StoreError: If the disk is full.
    """
    chosen = choose_missed(scored, count)
    facts = {"look_alikes": count, "detector": detector.digest, "threshold": detector.threshold}
    store.write_filter_results(judge(scored, chosen, others, detector), facts)
    return chosen

"""The normals' windows of one size, and the bounds that they set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from anomalib_synth.encoders.embedders import Embedder, embed_rows
from anomalib_synth.retrieval.index import WindowIndex
from anomalib_synth.retrieval.reference import draw_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import torch

    from anomalib_synth.retrieval.settings import FilterSettings
    from anomalib_synth.retrieval.windows import WindowPlan

_ROUND = 6
_KEPT_REFERENCES = 0.8  # the rest are those in plain windows, which lose much by anything
_NOT_LOWER = 0.05  # share of references that may be less similar to normals than a sample
_REFERENCES = 64  # for each size
_LEAST_SPREAD = 1e-3  # of cosines: below, normals are the same and the spread is rounding


@dataclass(frozen=True, kw_only=True)
class SizedNormals:
    """What is known of the normals' windows of one size.

    Args:
        side: Side of the windows in pixels.
        index: The windows.
        scores: (M,) similarity of each to the windows of all other normals.
        references: (R, 2) similarity of some of them before and after a reference defect was drawn there.
        settings: How bounds are set.
    """

    side: int
    index: WindowIndex
    scores: np.ndarray
    references: np.ndarray
    settings: FilterSettings

    @cached_property
    def lower(self) -> float:
        """Least similarity of a sample: what normals have, and normals with a reference defect."""
        lower = float(np.quantile(self.scores, self.settings.quantile, method="lower"))
        if not len(self.references):
            return lower
        return min(lower, float(np.quantile(self.references[:, 1], _NOT_LOWER, method="lower")))

    @cached_property
    def most_lost(self) -> float:
        """Largest loss of similarity of a sample: what reference defects take; infinite where there are none."""
        lost = [self.rate_loss(*pair) for pair in self.references.tolist()]
        return float(np.quantile(lost, _KEPT_REFERENCES, method="higher")) if lost else float("inf")

    def rate_loss(self, before: float, after: float) -> float:
        """Return how much of its similarity an edit took: over what was lacking before it, or over the spread."""
        return round((before - after) / max(1 - before, self.spread), _ROUND)

    @cached_property
    def upper(self) -> float:
        """Largest similarity of a sample."""
        share = self.settings.upper_quantile
        return float("inf") if share is None else float(np.quantile(self.scores, share, method="higher"))

    @cached_property
    def median(self) -> float:
        """Similarity of every other window of a normal."""
        return float(np.median(self.scores))

    @cached_property
    def spread(self) -> float:
        """How far a quantile of the normals' similarities lies under their median."""
        return max(self.median - float(np.quantile(self.scores, self.settings.quantile, method="lower")), _LEAST_SPREAD)

    def stand(self, similarity: float) -> float:
        """Return a similarity in units in which 0 is the normals' median and -1 the lower bound."""
        return round((similarity - self.median) / max(self.median - self.lower, _LEAST_SPREAD), _ROUND)

    def search(self, queries: np.ndarray, own: list[int]) -> list[float]:
        """Return the similarity of vectors (Q, D) to the normals, without the image that each is of (-1: none)."""
        found = [
            # one by one, as a product of many rows may be summed in another order
            self.index.search(query[None], k=self.settings.top_k, without=[number])[0]
            for query, number in zip(queries, own, strict=True)
        ]
        return [mean_of_found(cosines)[0] for cosines in found]

    def save(self, folder: Path) -> None:
        """Write it to a folder that is not there yet."""
        self.index.save(folder, {"normal_scores": self.scores.tolist(), "references": self.references.tolist()})

    @classmethod
    def load(cls, folder: Path, side: int, settings: FilterSettings) -> SizedNormals:
        """Read what :meth:`save` wrote."""
        index, facts = WindowIndex.load(folder)
        scores, references = np.asarray(facts["normal_scores"]), np.asarray(facts["references"]).reshape(-1, 2)
        return cls(side=side, index=index, scores=scores, references=references, settings=settings)


def index_size(
    normals: torch.Tensor,
    side: int,
    *,
    plan: WindowPlan,
    embedder: Embedder,
    settings: FilterSettings,
    track: Callable[[Iterable[torch.Tensor]], Iterable[torch.Tensor]] = iter,
) -> SizedNormals:
    """Embed windows of one size of all normals, and compare each with those of the others; some with a defect, too.

    Args:
        normals: (N, C, H, W) in [0, 1], or uint8.
        side: Side of the windows in pixels.
        plan: Where they lie.
        embedder: What turns them into vectors.
        settings: How bounds are set.
        track: Wraps the images as they are read, to show progress.
    """
    vectors: list[np.ndarray] = []
    images: list[int] = []
    drawn: list[tuple[int, torch.Tensor]] = []
    length = max(1, round(side / plan.context))  # as long as an edit in such a window can be
    limit = max(1, settings.max_windows // len(normals))
    every = max(1, min(limit * len(normals), settings.max_windows) // _REFERENCES)
    for number, normal in enumerate(track(normals)):
        image = as_float(normal)
        places = plan.scatter(side, number, limit)
        vectors.append(embed_rows(embedder, [plan.cut(image, place, embedder.image_size) for place in places]).numpy())
        for place in places:
            if settings.reference is not None and len(images) % every == 0:
                marked = draw_reference(image, place, length=length, contrast=settings.reference, number=len(images))
                drawn.append((len(images), plan.cut(marked, place, embedder.image_size)))
            images.append(number)
    index = WindowIndex(np.concatenate(vectors), images)
    cosines, _ = index.search(index.vectors, k=settings.top_k, without=index.images)
    scores = np.asarray(mean_of_found(cosines))
    known = SizedNormals(side=side, index=index, scores=scores, references=np.zeros((0, 2)), settings=settings)
    if not drawn:
        return known
    rows = [row for row, _ in drawn]
    after = known.search(embed_rows(embedder, [window for _, window in drawn]).numpy(), [images[row] for row in rows])
    return replace(known, references=np.stack([scores[rows], after], axis=1))


def as_float(image: torch.Tensor) -> torch.Tensor:
    """Return an image in [0, 1] or uint8 as float32."""
    return image.float() / 255 if not image.is_floating_point() else image.float()


def mean_of_found(cosines: np.ndarray) -> list[float]:
    """Return the mean of each row's cosines, leaving out those that were not found."""
    found = cosines > -1
    return [
        round(float(row[seen].mean()) if seen.any() else -1.0, _ROUND) for row, seen in zip(cosines, found, strict=True)
    ]

"""The retrieval filter: keep what still looks like the product, and where something visibly changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch.nn import functional as F

from anomalib_synth.encoders.embedders import Embedder, embed_rows, load_embedder
from anomalib_synth.functional.masks import box_blur, exact_mean
from anomalib_synth.retrieval.index import WindowIndex
from anomalib_synth.retrieval.settings import FilterSettings
from anomalib_synth.retrieval.windows import WindowGrid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ALGORITHM = 1  # raise it when the same inputs give other scores
_TWO_LEVELS = 2 / 255
_ROUND = 6


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the filter says of one sample.

    Args:
        similarity: Mean cosine of its window and the nearest windows of normals, in [-1, 1].
        smoothed_visibility: Smoothed change in the mask over noise; not the ``visibility`` of the checks.
        reason: Which bound it breaks, the value and the limit; ``""`` when it is kept.
    """

    similarity: float
    smoothed_visibility: float
    reason: str

    @property
    def kept(self) -> bool:
        """Whether the sample keeps all bounds."""
        return not self.reason


class RetrievalFilter:
    r"""Keeps samples whose window real normals resemble, and in which something visibly changed.

    After "Anomaly Detection by Effectively Leveraging Synthetic Images" (arXiv 2512.23227), which retrieves the real
    normals nearest to a generated image and keeps it where it is close to them. The score is
    :math:`s = \frac{1}{k} \sum_{i=1}^{k} \cos(z, z_i)` over the k windows of normals nearest to the window z that holds
    the sample's mask; kept where :math:`\tau_{low} \le s` and the change is visible. We differ: windows, so that the
    score does not depend on the size of the image; :math:`\tau_{low}` is a quantile of the same score of the normals'
    own windows, each against the windows of all *other* normals, so no defect, real or synthetic, sets it. A sample,
    too, is compared with other images than the one it was drawn on.

    A window is about as large as a generator's edit. A local defect takes a small part of it and moves its vector
    little; another object, other colours, noise or a turned or warped window take most of it.

    Args:
        settings: How to compare.
        folder: Where indexes are kept and found again, each under the digest of the normals, the embedder's weights
            and the settings; None keeps nothing.

    Attributes:
        lower: Least similarity of a sample, set by :meth:`fit`.
        upper: Largest similarity, infinite where there is no bound.
        floor: Least smoothed visibility.
        normal_scores: (M,) similarity of each of the normals' windows to the other normals.

    Example:
        >>> normals = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)) / 8 + 0.4
        >>> keeper = RetrievalFilter(FilterSettings(embedder="bundle")).fit(normals)
        >>> mask = torch.zeros(1, 1, 64, 64)
        >>> mask[..., 16:48, 16:48] = 1
        >>> keeper.judge(normals[:1], normals[:1] * (1 - mask), mask)[0].kept
        False
    """

    def __init__(self, settings: FilterSettings | None = None, *, folder: Path | str | None = None) -> None:
        self.settings = settings or FilterSettings()
        self.folder = None if folder is None else Path(folder)
        self.lower = self.upper = self.floor = float("nan")
        self.normal_scores = np.zeros(0)
        self._fitted_grid: WindowGrid | None = None
        self._index: WindowIndex | None = None
        self._numbers: dict[str, int] = {}

    @cached_property
    def embedder(self) -> Embedder:
        """What turns windows into vectors."""
        return load_embedder(self.settings.embedder)

    @property
    def is_fitted(self) -> bool:
        """Whether there are normals to compare with."""
        return self._index is not None

    @property
    def _grid(self) -> WindowGrid:
        """The windows' places, known since :meth:`fit`."""
        return cast("WindowGrid", self._fitted_grid)

    @property
    def index(self) -> WindowIndex:
        """The windows of the normals.

        Raises:
            ValueError: Before :meth:`fit`.
        """
        if self._index is None:
            msg = "The retrieval filter compares with real normals and has none yet. Call `fit` (or `prepare`) first."
            raise ValueError(msg)
        return self._index

    def make_key(self, data_digest: str) -> str:
        """Return the digest of all that scores depend on beside the sample: normals, weights, settings."""
        settings = {**asdict(self.settings), "algorithm": ALGORITHM}
        parts = [data_digest, self.embedder.weights_hash, json.dumps(settings, sort_keys=True)]
        return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    def fit(
        self,
        normals: torch.Tensor,
        *,
        digest: str | None = None,
        track: Callable[[Iterable[torch.Tensor]], Iterable[torch.Tensor]] = iter,
    ) -> RetrievalFilter:
        """Index the windows of normals and set the bounds by them.

        Args:
            normals: (N, C, H, W) in [0, 1], or uint8, N >= 2; the first ``max_normals`` are used.
            digest: Digest of the normals, None to compute it.
            track: Wraps the images as they are read, to show progress.

        Returns:
            The filter itself.

        Raises:
            ValueError: If there are fewer than two normals, or none have windows.
        """
        if normals.ndim != 4 or len(normals) < 2 or normals.shape[1] not in {1, 3}:
            msg = (
                "`normals` must be (N, C, H, W) with N >= 2 and C = 1 or 3, as each is compared with the others, "
                f"got {tuple(normals.shape)}. Prepare with more good images."
            )
            raise ValueError(msg)
        normals = normals[: self.settings.max_normals]
        if digest is None:
            digest = blake2b(normals.contiguous().cpu().numpy().tobytes(), digest_size=16).hexdigest()
        key = self.make_key(digest)
        height, width = normals.shape[-2:]
        self._fitted_grid = WindowGrid(height=height, width=width, share=self.settings.window_share)
        kept = None if self.folder is None else self.folder / key
        if kept is not None and (kept / "index.json").is_file():
            self._index, facts = WindowIndex.load(kept)
            self.normal_scores = np.asarray(facts["normal_scores"])
            images, null_edits = facts["images"], facts["null_edits"]
        else:
            self._index = self._embed_normals(normals, track)
            self.normal_scores = self._score_normals(self._index)
            images = [_digest_levels(normal) for normal in normals]
            null_edits = [value for normal in normals for value in self._measure_null_edit(normal)]
            if kept is not None:
                facts = {"settings": asdict(self.settings), "normals": digest, "embedder": self.embedder.weights_hash}
                self._index.save(
                    kept,
                    {**facts, "images": images, "null_edits": null_edits, "normal_scores": self.normal_scores.tolist()},
                )
        self._numbers = {name: number for number, name in enumerate(images)}
        self.lower = float(np.quantile(self.normal_scores, self.settings.quantile, method="lower"))
        share = self.settings.upper_quantile
        least = self.settings.min_visibility
        null = float(np.quantile(null_edits, 1 - self.settings.quantile, method="higher"))
        self.floor = max(least, null) if least else 0.0
        self.upper = float("inf") if share is None else float(np.quantile(self.normal_scores, share, method="higher"))
        return self

    @torch.no_grad()
    def judge(self, source: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> list[Judgement]:
        """Judge samples.

        Args:
            source: (B, C, H, W) in [0, 1], the images without defects.
            image: (B, C, H, W), the images with them.
            mask: (B, 1, H, W), non-zero where the defect is; none empty.

        Raises:
            ValueError: Before :meth:`fit`, or if a mask is empty.
        """
        if not mask.flatten(1).any(1).all():
            msg = "`mask` must mark the defect of every sample, got an empty one. Judge samples with a defect only."
            raise ValueError(msg)
        scores = self.score(source, image, mask)
        visible = [
            measure_smoothed_visibility(*rows)
            for rows in zip(source.split(1), image.split(1), mask.split(1), strict=True)
        ]
        return [
            Judgement(
                similarity=similarity, smoothed_visibility=visibility, reason=self._find_reason(similarity, visibility)
            )
            for similarity, visibility in zip(scores, visible, strict=True)
        ]

    @torch.no_grad()
    def score(self, source: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> list[float]:
        """Return the similarity of each sample's window to the nearest of normals other than its source.

        Args:
            source: (B, C, H, W) in [0, 1], the images without defects.
            image: (B, C, H, W), the images with them.
            mask: (B, 1, H, W), non-zero where the defect is; none empty.
        """
        index, size = self.index, self.embedder.image_size
        windows = [self._grid.cut(one, self._grid.find(its), size) for one, its in zip(image, mask, strict=True)]
        if not windows:
            return []
        # one by one, as a product of many rows may be summed in another order
        queries = embed_rows(self.embedder, windows).numpy()
        own = [self._numbers.get(_digest_levels(self._grid.fit(one)), -1) for one in source]
        found = [
            index.search(query[None], k=self.settings.top_k, without=[number])[0]
            for query, number in zip(queries, own, strict=True)
        ]
        return [_mean_of_found(cosines)[0] for cosines in found]

    def _find_reason(self, similarity: float, visibility: float) -> str:
        if visibility < self.floor:
            return f"smoothed visibility {visibility:.2f} below {self.floor:.2f}"
        if similarity < self.lower:
            return f"similarity {similarity:.4f} below {self.lower:.4f}"
        if similarity > self.upper:
            return f"similarity {similarity:.4f} above {self.upper:.4f}"
        return ""

    @torch.no_grad()
    def _embed_normals(self, normals: torch.Tensor, track: Callable) -> WindowIndex:
        size, corners = self.embedder.image_size, self._grid.corners
        vectors, images = [], []
        for number, normal in enumerate(track(normals)):
            image = _as_float(normal)
            vectors.append(embed_rows(self.embedder, [self._grid.cut(image, corner, size) for corner in corners]))
            images += [number] * len(corners)
        return WindowIndex(torch.cat(vectors).numpy(), images)

    def _measure_null_edit(self, normal: torch.Tensor) -> list[float]:
        """Return how visible an edit that changes nothing is in each window of a normal."""
        source, side = _as_float(normal)[None], self._grid.side
        change, noise = _map_smoothed_change(source, make_null_edit(source))
        cut = [(slice(None), slice(None), slice(y, y + side), slice(x, x + side)) for y, x in self._grid.corners]
        return [_rate_smoothed_change(exact_mean(change[place]), exact_mean(noise[place])) for place in cut]

    def _score_normals(self, index: WindowIndex) -> np.ndarray:
        """Return the similarity of each window of a normal to the windows of all other normals."""
        cosines, _ = index.search(index.vectors, k=self.settings.top_k, without=index.images)
        return np.asarray(_mean_of_found(cosines))


def measure_smoothed_visibility(source: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> float:
    """Return how visible a change is: its smoothed size in the mask over the source's noise there and two grey levels.

    Args:
        source: (1, C, H, W) in [0, 1].
        image: (1, C, H, W) in [0, 1].
        mask: (1, 1, H, W), not empty.
    """
    inside = (mask != 0).float()
    change, noise = _map_smoothed_change(source.float(), image.float())
    return _rate_smoothed_change(exact_mean(change, inside), exact_mean(noise, inside))


def make_null_edit(image: torch.Tensor) -> torch.Tensor:
    """Return images after an edit that changes nothing: half the resolution, and a quarter of that for colours.

    Args:
        image: (B, C, H, W) in [0, 1].
    """
    coarse = _through(image, 2)
    grey = coarse.mean(1, keepdim=True)
    return (grey + _through(coarse - grey, 4)).clamp(0, 1)


def _through(image: torch.Tensor, factor: int) -> torch.Tensor:
    size = [max(1, side // factor) for side in image.shape[-2:]]
    return F.interpolate(F.interpolate(image, size, mode="area"), image.shape[-2:], mode="bilinear")


def _map_smoothed_change(source: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smoothed change and the source's noise, each (B, 1, H, W)."""
    change = box_blur(image - source).abs().amax(1, keepdim=True)
    return change, (source - box_blur(source)).abs().mean(1, keepdim=True)


def _rate_smoothed_change(change: torch.Tensor, noise: torch.Tensor) -> float:
    return round(float(change) / (float(noise) + _TWO_LEVELS), _ROUND)


def _as_float(image: torch.Tensor) -> torch.Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def _digest_levels(image: torch.Tensor) -> str:
    """Return the digest of an image's 8-bit levels: (C, H, W) in [0, 1] or uint8."""
    levels = image if image.dtype == torch.uint8 else (image.float() * 255).round().to(torch.uint8)
    return blake2b(levels.contiguous().cpu().numpy().tobytes(), digest_size=16).hexdigest()


def _mean_of_found(cosines: np.ndarray) -> list[float]:
    """Return the mean of each row's cosines, leaving out those that were not found."""
    found = cosines > -1
    return [
        round(float(row[seen].mean()) if seen.any() else -1.0, _ROUND) for row, seen in zip(cosines, found, strict=True)
    ]

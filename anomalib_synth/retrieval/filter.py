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

from anomalib_synth.retrieval.embedders import Embedder, embed_rows, load_embedder
from anomalib_synth.retrieval.index import require_faiss
from anomalib_synth.retrieval.settings import FilterSettings
from anomalib_synth.retrieval.sized import SizedNormals, index_size
from anomalib_synth.retrieval.visibility import measure_visibility, rate_null_edits
from anomalib_synth.retrieval.windows import Window, WindowPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ALGORITHM = 2  # raise it when the same inputs give other scores


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the filter says of one sample.

    Args:
        similarity: Mean cosine of its window and the nearest windows of normals, in [-1, 1].
        standing: The similarity where 0 is the median of normals' windows of that size and -1 the lower bound.
        drop: How much of its similarity the edit took, see :class:`RetrievalFilter`.
        visibility: Change in the mask over noise.
        side: Side of its window in pixels.
        reason: Which bound it breaks, the value and the limit; ``""`` when it is kept.
    """

    similarity: float
    standing: float
    drop: float
    visibility: float
    side: int
    reason: str

    @property
    def kept(self) -> bool:
        """Whether the sample keeps all bounds."""
        return not self.reason


class RetrievalFilter:
    r"""Keeps samples whose window real normals resemble, and in which something visibly changed.

    After "Anomaly Detection by Effectively Leveraging Synthetic Images" (arXiv 2512.23227), which retrieves the real
    normals nearest to a generated image and keeps it where it is close to them. The score is
    :math:`s = \frac{1}{k} \sum_{i=1}^{k} \cos(z, z_i)` over the k windows of normals nearest to the window z around the
    sample's mask. Kept where

    - :math:`\tau_{low} \le s`: it looks like the product;
    - :math:`(s_0 - s) / \max(1 - s_0, \sigma) \le \delta`, with :math:`s_0` the score of the window before the edit and
      :math:`\sigma` the spread of normals: the edit took it no further from them than a mild defect would;
    - the change is visible.

    We differ: windows, a fifth larger than the edit (up to 1.7 times as large, as they come in few sizes), so that the
    score depends neither on the size of the image nor on that of the edit: a bad edit of a tenth of the side fills its
    window as one of half the side does. All bounds are quantiles over windows *of that size* of the normals, each
    compared with the windows of all *other* normals, and no defect sets them, real or of a generator. How far a mild
    defect takes a window from the normals depends on the product, so a plain ellipse or line of ``reference`` contrast
    is drawn in some of the normals' windows: :math:`\delta` is what keeps 80 % of these, and :math:`\tau_{low}` lies
    below 99 % of the normals and 95 % of these. A sample, too, is compared with other images than the one it was drawn
    on.

    The windows of a size are embedded when a sample first asks for that size: at most ``max_windows`` of them.

    Args:
        settings: How to compare.
        folder: Where indexes are kept and found again, each under the digest of the normals, the embedder's weights
            and the settings; None keeps nothing.

    Example:
        >>> normals = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)) / 8 + 0.4
        >>> keeper = RetrievalFilter(FilterSettings(max_windows=24)).fit(normals)
        >>> mask = torch.zeros(1, 1, 64, 64)
        >>> mask[..., 16:48, 16:48] = 1
        >>> keeper.judge(normals[:1], normals[:1] * (1 - mask), mask)[0].kept
        False
    """

    def __init__(self, settings: FilterSettings | None = None, *, folder: Path | str | None = None) -> None:
        self.settings = settings or FilterSettings()
        self.folder = None if folder is None else Path(folder)
        self._normals: torch.Tensor | None = None
        self._fitted_plan: WindowPlan | None = None
        self._key = ""
        self._sizes: dict[int, SizedNormals] = {}
        self._numbers: dict[str, int] = {}

    @cached_property
    def embedder(self) -> Embedder:
        """What turns windows into vectors."""
        return load_embedder(self.settings.embedder)

    @property
    def is_fitted(self) -> bool:
        """Whether there are normals to compare with."""
        return self._normals is not None

    @property
    def normals(self) -> torch.Tensor:
        """(N, C, H, W), what samples are compared with.

        Raises:
            ValueError: Before :meth:`fit`.
        """
        if self._normals is None:
            msg = "The retrieval filter compares with real normals and has none yet. Call `fit` (or `prepare`) first."
            raise ValueError(msg)
        return self._normals

    @property
    def plan(self) -> WindowPlan:
        """The windows' sizes and places, known since :meth:`fit`."""
        return cast("WindowPlan", self._fitted_plan)

    @property
    def sizes(self) -> dict[int, SizedNormals]:
        """What is known of the normals' windows, by side, for the sizes that were asked for so far."""
        return dict(sorted(self._sizes.items()))

    def make_key(self, data_digest: str) -> str:
        """Return the digest of all that scores depend on beside the sample: normals, weights, settings."""
        settings = {**asdict(self.settings), "algorithm": ALGORITHM}
        parts = [data_digest, self.embedder.weights_hash, json.dumps(settings, sort_keys=True)]
        return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    def fit(self, normals: torch.Tensor, *, digest: str | None = None) -> RetrievalFilter:
        """Take the normals to compare with; their windows are embedded when a sample of their size comes.

        Args:
            normals: (N, C, H, W) in [0, 1], or uint8, N >= 2; the first ``max_normals`` are used.
            digest: Digest of the normals, None to compute it.

        Returns:
            The filter itself.

        Raises:
            ImportError: If faiss is not installed.
            ValueError: If there are fewer than two normals.
        """
        require_faiss()
        if normals.ndim != 4 or len(normals) < 2 or normals.shape[1] not in {1, 3}:
            msg = (
                "`normals` must be (N, C, H, W) with N >= 2 and C = 1 or 3, as each is compared with the others, "
                f"got {tuple(normals.shape)}. Prepare with more good images."
            )
            raise ValueError(msg)
        normals = normals[: self.settings.max_normals]
        if digest is None:
            digest = blake2b(normals.contiguous().cpu().numpy().tobytes(), digest_size=16).hexdigest()
        height, width = normals.shape[-2:]
        share = self.settings.window_share
        self._fitted_plan = WindowPlan(height=height, width=width, context=self.settings.context, share=share)
        self._key = self.make_key(digest)
        self._normals, self._sizes = normals, {}
        self.__dict__.pop("floor", None)  # of other normals
        self._numbers = {_digest_levels(normal): number for number, normal in enumerate(normals)}
        return self

    @cached_property
    def floor(self) -> float:
        """Least visibility of a sample, whatever its size."""
        least = self.settings.min_visibility
        if not least:
            return 0.0
        return max(
            least, float(np.quantile(rate_null_edits(self.normals), 1 - self.settings.quantile, method="higher"))
        )

    @torch.no_grad()
    def size(self, side: int, track: Callable[[Iterable[torch.Tensor]], Iterable[torch.Tensor]] = iter) -> SizedNormals:
        """Return the normals' windows of one size, read from the folder or embedded now.

        Args:
            side: One of ``plan.sides``.
            track: Wraps the normals as they are embedded, to show progress.
        """
        if side not in self._sizes:
            kept = None if self.folder is None else self.folder / self._key / str(side)
            if kept is not None and (kept / "index.json").is_file():
                self._sizes[side] = SizedNormals.load(kept, side, self.settings)
            else:
                self._sizes[side] = index_size(
                    self.normals, side, plan=self.plan, embedder=self.embedder, settings=self.settings, track=track
                )
                if kept is not None:
                    self._sizes[side].save(kept)
        return self._sizes[side]

    @torch.no_grad()
    def judge(self, source: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> list[Judgement]:
        """Judge samples, all at once.

        Args:
            source: (B, C, H, W) in [0, 1], the images without defects.
            image: (B, C, H, W), the images with them.
            mask: (B, 1, H, W), non-zero where the defect is; none empty.

        Raises:
            ValueError: Before :meth:`fit`, or if a mask is empty.
        """
        _ = self.normals
        if not mask.flatten(1).any(1).all():
            msg = "`mask` must mark the defect of every sample, got an empty one. Judge samples with a defect only."
            raise ValueError(msg)
        if not len(mask):
            return []
        places = [self.plan.find(each) for each in mask]
        own = [self._numbers.get(_digest_levels(self.plan.fit(one)), -1) for one in source]
        cut = [
            self.plan.cut(one, place, self.embedder.image_size)
            for images in (image, source)
            for one, place in zip(images, places, strict=True)
        ]
        vectors = embed_rows(self.embedder, cut).numpy()
        after, before = (self._score(part, places, own) for part in np.split(vectors, 2))
        visible = measure_visibility(source, image, mask)
        return [self._decide(*row) for row in zip(places, after, before, visible, strict=True)]

    def score(self, source: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> list[float]:
        """Return the similarity of each sample's window to the nearest of normals other than its source."""
        return [verdict.similarity for verdict in self.judge(source, image, mask)]

    def _score(self, vectors: np.ndarray, places: list[Window], own: list[int]) -> list[float]:
        """Return the similarity of vectors (B, D) to normals' windows of their size."""
        scores = [0.0] * len(places)
        for side in sorted({place.side for place in places}):
            rows = [row for row, place in enumerate(places) if place.side == side]
            found = self.size(side).search(vectors[rows], [own[row] for row in rows])
            for row, score in zip(rows, found, strict=True):
                scores[row] = score
        return scores

    def _decide(self, place: Window, after: float, before: float, visibility: float) -> Judgement:
        normals = self.size(place.side)
        drop = normals.rate_loss(before, after)
        return Judgement(
            similarity=after,
            standing=normals.stand(after),
            drop=drop,
            visibility=visibility,
            side=place.side,
            reason=self._find_reason(normals, after, drop, visibility),
        )

    def _find_reason(self, normals: SizedNormals, similarity: float, drop: float, visibility: float) -> str:
        if visibility < self.floor:
            return f"smoothed visibility {visibility:.2f} below {self.floor:.2f}"
        if similarity < normals.lower:
            return f"similarity {similarity:.4f} below {normals.lower:.4f}"
        if drop > normals.most_lost:
            return f"loss of similarity {drop:.2f} above {normals.most_lost:.2f}"
        if similarity > normals.upper:
            return f"similarity {similarity:.4f} above {normals.upper:.4f}"
        return ""


def _digest_levels(image: torch.Tensor) -> str:
    """Return the digest of an image's 8-bit levels: (C, H, W) in [0, 1] or uint8."""
    levels = image if image.dtype == torch.uint8 else (image.float() * 255).round().to(torch.uint8)
    return blake2b(levels.contiguous().cpu().numpy().tobytes(), digest_size=16).hexdigest()

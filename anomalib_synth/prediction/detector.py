"""The interface that all detectors share, whether they are checkpoints or exports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    import torch

    from anomalib_synth.images import WhitePoint
    from anomalib_synth.prediction.reading import LoadedImage


@dataclass(frozen=True, kw_only=True)
class DetectorInfo:
    """The facts about a detector, as plain data.

    Args:
        path: Its file.
        content: Digest of its file.
        kind: ``"checkpoint"``, ``"exported"`` or ``"torch"``.
        model: Name of the model's class, "" where an export does not tell.
        threshold: An image with a score above it is a defect; None where an export does not tell.
        raw_threshold: The threshold on raw scores, before anomalib normalises them; None where an export does not tell.
        inference: What else changes its scores (tiler, callbacks, precision), in words; "" for nothing.
    """

    path: str
    content: str
    kind: str
    model: str
    threshold: float | None
    raw_threshold: float | None
    inference: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the facts by name."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class DetectorOutput:
    """The output of a detector for one image.

    Args:
        score: Image score as anomalib gives it: normalised to [0, 1], unless the model's post-processor does not.
        is_defect: Whether the score is above the threshold.
        raw_score: The score before it was normalised, None where an export does not tell.
        anomaly_map: (h, w) float32, larger where the image is more anomalous; None where the model gives none.
        mask: (h, w) bool, where the map is above the pixel threshold; None where the model gives none.
    """

    score: float
    is_defect: bool
    raw_score: float | None = None
    anomaly_map: np.ndarray | None = None
    mask: np.ndarray | None = None


def check_scores(scores: Sequence[float], count: int) -> None:
    """Refuse a detector whose scores are missing or not finite.

    Raises:
        ValueError: If there is not one finite score for each image.
    """
    if len(scores) != count or not all(map(math.isfinite, scores)):
        msg = (
            f"`detector` must give one finite score an image, got {list(scores[:4])} for {count} images. Train it "
            "longer, or take another model."
        )
        raise ValueError(msg)


class Detector(Protocol):
    """Judges batches of images."""

    about: DetectorInfo
    white_point: WhitePoint

    def fit(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image (3, H, W) in [0, 1] as it goes into a batch; called from several threads."""

    def view(self, size: tuple[int, int]) -> torch.Tensor | None:
        """Return where the pixels of an image of ``size`` (height, width) are on the map, as :func:`find_view` does.

        None where the model's own transform does more than move, scale, turn and crop.
        """

    def judge(
        self, batches: Iterable[list[LoadedImage]], tell: Callable[[list[LoadedImage], list[DetectorOutput]], None]
    ) -> None:
        """Judge batches of images of one size as they come; call ``tell`` for each before the next is drawn."""

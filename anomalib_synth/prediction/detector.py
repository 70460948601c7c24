"""What a detector is here, be it a checkpoint or a model that was exported."""

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
    """What a detector is, plain data.

    Args:
        path: Its file.
        content: Digest of its file.
        kind: ``"checkpoint"``, ``"exported"`` or ``"torch"``.
        model: Class of the model, "" where an export does not tell.
        threshold: What a score must be above to be a defect, None where an export does not tell.
        raw_threshold: The same before anomalib normalises scores, None where an export does not tell.
        inference: What else changes its scores: the tiler, the precision; "" for nothing.
    """

    path: str
    content: str
    kind: str
    model: str
    threshold: float | None
    raw_threshold: float | None
    inference: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class DetectorOutput:
    """What a detector says of an image.

    Args:
        score: As anomalib gives it: normalised, unless the model's post-processor does not.
        is_defect: Whether that is above the threshold.
        raw_score: Before it was normalised, None where an export does not tell.
        anomaly_map: (h, w) float32, larger where it is more anomalous; None where the model gives none.
        mask: (h, w) bool, where the map is above its own threshold; None without a map.
    """

    score: float
    is_defect: bool
    raw_score: float | None = None
    anomaly_map: np.ndarray | None = None
    mask: np.ndarray | None = None


def check_scores(scores: Sequence[float], count: int) -> None:
    """Refuse a detector whose scores say nothing.

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
        """Return where the pixels of images of a size are on the map, as :func:`find_view` does.

        None where the model's own transform does more than move, scale, turn and crop.
        """

    def judge(
        self, batches: Iterable[list[LoadedImage]], tell: Callable[[list[LoadedImage], list[DetectorOutput]], None]
    ) -> None:
        """Judge batches of images of one size as they come; tell what was found in each before the next is drawn."""

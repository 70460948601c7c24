"""The scores of a trained detector on the samples of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from anomalib_synth.calibration.checkpoints import load_model
from anomalib_synth.calibration.kept_white_point import read_kept_white_point
from anomalib_synth.calibration.scoring import Item, Row, score_items
from anomalib_synth.calibration.training_run import read_inference
from anomalib_synth.host.thresholds import check_post_processor, find_image_threshold
from anomalib_synth.images import digest_file, to_tensor
from anomalib_synth.learning.versions import DetectorFolder
from anomalib_synth.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from anomalib_synth.store import Record, SampleStore

_BATCH = 16
_PLACES = 3  # cells along each side of the image


@dataclass(frozen=True, kw_only=True)
class ScoredSample:
    """A sample that a detector has looked at.

    Args:
        record: Its row.
        score: Raw image score.
        place: Row and column, each 0 to 2, of the image's cell in which the middle of its mask lies.
        in_view: Whether the detector's own transform leaves anything of its mask.
    """

    record: Record
    score: float
    place: tuple[int, int]
    in_view: bool = True

    @property
    def defect(self) -> tuple[str, float, float]:
        """The real defect that it is a look-alike of: type, image and region."""
        params = self.record.params
        return self.record.family, params.get("image", 0.0), params.get("region", 0.0)


class TrainedDetector:
    """The current version of a detector, scored through the loop that `anomalib predict` runs.

    Args:
        folder: Folder of `anomalib train`, `calibrate` or `learn`, or a checkpoint.
        accelerator: ``"auto"``, ``"cpu"`` or ``"gpu"``.

    Attributes:
        white_point: White by which it was shown images of more than 8 bits, without values if none was kept.
        threshold: Raw image score above which it calls an image anomalous, None if it has no threshold.

    Raises:
        ValueError: If it holds no detector of anomalib.
    """

    def __init__(self, folder: Path, *, accelerator: str = "auto") -> None:
        self._folder = DetectorFolder(folder)
        checkpoint = self._folder.read_current()
        self._model, _ = load_model(str(self._folder.config), self._folder.current, checkpoint)
        check_post_processor(self._model)
        self._inference = read_inference(self._folder.config)
        self._accelerator = accelerator
        self.white_point = read_kept_white_point(self._folder.current, checkpoint)
        self.threshold = find_image_threshold(checkpoint)

    @property
    def digest(self) -> str:
        """Digest of its checkpoint."""
        return digest_file(self._folder.current)

    def finds(self, score: float) -> bool:
        """Return whether a raw score is above the threshold; always False without a threshold."""
        return self.threshold is not None and score > self.threshold

    def score(self, items: Iterable[Item]) -> None:
        """Score images, and write the scores into their rows."""
        score_items(
            self._model, self._folder.current, items,
            inference=self._inference, batch_size=_BATCH, accelerator=self._accelerator,
        )  # fmt: skip


def score_samples(store: SampleStore, records: Sequence[Record], detector: TrainedDetector) -> list[ScoredSample]:
    """Return a detector's scores of samples of a store; each sample has an image.

    Raises:
        StoreError: If a file of the store is damaged.
        ValueError: If the detector gives no usable score.
    """
    rows = [Row(role="synthetic", path=record.source, family=record.family) for record in records]
    places: list[tuple[int, int]] = []

    def items() -> Iterator[Item]:
        for record, row in zip(records, rows, strict=True):
            mask = store.read_mask(record) > 0
            places.append(_find_place(mask))
            yield Item(row=row, image=_to_image(store.read_image(record)), mask=torch.from_numpy(mask[None]).float())

    if records:
        detector.score(track(items(), "Asking the detector", total=len(records)))
    return [
        ScoredSample(record=record, score=row.score, place=place, in_view=row.in_view)
        for record, row, place in zip(records, rows, places, strict=True)
    ]


def _to_image(pixels: np.ndarray) -> torch.Tensor:
    """Turn (H, W, C) or (H, W) uint8 into (3, H, W) in [0, 1]."""
    return to_tensor(pixels[..., None] if pixels.ndim == 2 else pixels)[:3].expand(3, -1, -1)


def _find_place(mask: np.ndarray) -> tuple[int, int]:
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return int(_PLACES * (rows.mean() + 0.5) / height), int(_PLACES * (columns.mean() + 0.5) / width)

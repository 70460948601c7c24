"""The metrics of one run: a table of plain functions of the model's outputs on the test images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from anomalib_synth.calibration.statistics import Proportion, conformal_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FALSE_POSITIVES = 0.3  # AUPRO is the area up to this share of false-positive pixels


@dataclass(frozen=True, kw_only=True)
class ModelOutputs:
    """A model's outputs on the test images, with the truth.

    Args:
        scores: Raw anomaly score of each image.
        labels: Whether each image shows a defect; both kinds must be there.
        maps: (B, H', W') raw anomaly maps, resized bilinearly where the masks have another size; None for none.
        masks: (B, H, W), defective where > 0; None for none.

    Raises:
        ValueError: If the labels are all the same.
    """

    scores: Sequence[float]
    labels: Sequence[bool]
    maps: torch.Tensor | None = None
    masks: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if len(set(self.labels)) < 2:
            msg = "The test set must hold good and defective images. Check its folders."
            raise ValueError(msg)

    @cached_property
    def pixels(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Maps (B, H, W) float and masks (B, H, W) bool; None where no pixel, or every pixel, is defective."""
        if self.maps is None or self.masks is None:
            return None
        truth = self.masks > 0
        if not bool(truth.any()) or bool(truth.all()):
            return None
        maps = self.maps
        if maps.shape[-2:] != truth.shape[-2:]:
            maps = F.interpolate(maps[:, None], size=truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return maps, truth


def image_auroc(tested: ModelOutputs) -> float:
    """Area under the ROC curve of the images' scores.

    Example:
        >>> image_auroc(ModelOutputs(scores=[0.1, 0.4, 0.3, 0.9], labels=[False, False, True, True]))
        0.75
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(tested.labels, tested.scores))


def pixel_auroc(tested: ModelOutputs) -> float | None:
    """Area under the ROC curve of the maps' pixels; None without defective pixels."""
    from sklearn.metrics import roc_auc_score

    if tested.pixels is None:
        return None
    maps, truth = tested.pixels
    return float(roc_auc_score(truth.flatten().numpy(), maps.flatten().numpy()))


def pixel_ap(tested: ModelOutputs) -> float | None:
    """Average precision of the maps' pixels; None without defective pixels."""
    from sklearn.metrics import average_precision_score

    if tested.pixels is None:
        return None
    maps, truth = tested.pixels
    return float(average_precision_score(truth.flatten().numpy(), maps.flatten().numpy()))


def aupro(tested: ModelOutputs) -> float | None:
    """AUPRO up to 30 % false positives (Bergmann et al. 2021); None without defective pixels.

    The curve is anomalib's. The regions are found here, because anomalib's own labelling loses a mask that fills its
    image. A region is connected, diagonals included, and lies within one image.
    """
    from anomalib.metrics import AUPRO
    from scipy.ndimage import label

    if tested.pixels is None:
        return None
    maps, truth = tested.pixels
    regions, count = np.zeros(truth.shape, np.int64), 0
    for number, mask in enumerate(truth.numpy()):
        found, more = label(mask, np.ones((3, 3)))
        regions[number] = np.where(found > 0, found + count, 0)
        count += more
    metric = AUPRO(fpr_limit=_FALSE_POSITIVES, fields=["anomaly_map", "gt_mask"])
    rates, overlaps = metric.compute_pro(cca=torch.from_numpy(regions), preds=maps)
    return float(torch.trapezoid(overlaps, rates) / rates[-1])


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A column of the results.

    Args:
        label: Name in tables and plots.
        measure: Computes it from the outputs, and returns None where it does not apply; None for a metric that the run
            measures elsewhere (threshold, times).
        unit: ``"%"``: a share, shown times 100; ``"s"``: seconds.
        higher_is_better: Whether a larger value is better.
    """

    label: str
    measure: Callable[[ModelOutputs], float | None] | None = None
    unit: str = "%"
    higher_is_better: bool = True


METRICS = {
    "image_auroc": Metric(label="image AUROC", measure=image_auroc),
    "pixel_auroc": Metric(label="pixel AUROC", measure=pixel_auroc),
    "pixel_ap": Metric(label="pixel AP", measure=pixel_ap),
    "aupro": Metric(label="AUPRO@0.3", measure=aupro),
    "recall": Metric(label="recall at the calibrated threshold"),
    "false_alarms": Metric(label="false alarms on held-out normals", higher_is_better=False),
    "fit_seconds": Metric(label="seconds to fit", unit="s", higher_is_better=False),
    "sample_seconds": Metric(label="seconds per accepted sample", unit="s", higher_is_better=False),
}
QUALITY = [name for name, metric in METRICS.items() if metric.unit == "%" and metric.higher_is_better]


def measure(tested: ModelOutputs) -> dict[str, float | None]:
    """Return every metric that is computed from the outputs on the test images, by name."""
    return {name: metric.measure(tested) for name, metric in METRICS.items() if metric.measure is not None}


def measure_threshold(
    choose: Sequence[float], measure: Sequence[float], good: Sequence[float], defects: Sequence[float], rate: float
) -> dict[str, float | int]:
    """Set a threshold on some held-out normals, and measure it on the others and on the test images.

    Args:
        choose: Scores of the held-out normals that set the threshold, by
            :func:`~anomalib_synth.calibration.statistics.conformal_threshold`.
        measure: Scores of the other held-out normals.
        good: Scores of the good test images.
        defects: Scores of the defective test images.
        rate: Target false-alarm rate in (0, 1).

    Returns:
        ``threshold``; ``recall``, ``false_alarms`` (on the other normals) and ``false_alarms_on_test`` as shares in
        [0, 1]; and the numbers of normals that set the threshold and that measured it.

    Raises:
        ValueError: If there are too few normals to set a threshold for the rate.
    """
    threshold = conformal_threshold(choose, rate)

    def above(scores: Sequence[float]) -> Proportion:
        return Proportion(sum(score > threshold for score in scores), len(scores))

    return {
        "threshold": threshold,
        "recall": above(defects).value,
        "false_alarms": above(measure).value,
        "threshold_normals": len(choose),
        "measured_normals": len(measure),
        "false_alarms_on_test": above(good).value,
    }

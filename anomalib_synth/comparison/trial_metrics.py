"""What is measured of one run: plain functions of raw scores, maps, labels and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from anomalib_synth.calibration.statistics import Proportion, conformal_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

_FALSE_POSITIVES = 0.3  # AUPRO is the area up to this share of false-positive pixels


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A column of the results.

    Args:
        label: What tables and plots call it.
        unit: ``"%"``: a share, shown times 100; ``"s"``: seconds.
        higher_is_better: Whether more is better.
    """

    label: str
    unit: str = "%"
    higher_is_better: bool = True


METRICS = {
    "image_auroc": Metric(label="image AUROC"),
    "pixel_auroc": Metric(label="pixel AUROC"),
    "pixel_ap": Metric(label="pixel AP"),
    "aupro": Metric(label="AUPRO@0.3"),
    "recall": Metric(label="recall at the calibrated threshold"),
    "false_alarms": Metric(label="false alarms on held-out normals", higher_is_better=False),
    "fit_seconds": Metric(label="seconds to fit", unit="s", higher_is_better=False),
    "sample_seconds": Metric(label="seconds per accepted sample", unit="s", higher_is_better=False),
}
QUALITY = [name for name, metric in METRICS.items() if metric.unit == "%" and metric.higher_is_better]


def measure_images(scores: Sequence[float], labels: Sequence[bool]) -> dict[str, float]:
    """Return the image AUROC.

    Raises:
        ValueError: If the labels are all the same.

    Example:
        >>> measure_images([0.1, 0.4, 0.3, 0.9], [False, False, True, True])
        {'image_auroc': 0.75}
    """
    from sklearn.metrics import roc_auc_score

    if len(set(labels)) < 2:
        msg = "The test set must hold good and defective images. Check its folders."
        raise ValueError(msg)
    return {"image_auroc": float(roc_auc_score(labels, scores))}


def measure_pixels(maps: torch.Tensor, masks: torch.Tensor) -> dict[str, float | None]:
    """Return pixel AUROC, pixel AP and AUPRO up to 30 % false positives (Bergmann et al. 2021).

    The curve of AUPRO is anomalib's; the regions are found here, as anomalib's loses a mask that fills its image.

    Maps of another size than the masks are resized to them, bilinearly. Without a defective pixel all are None.

    Shape:
        - maps: (B, H', W') raw anomaly maps; masks: (B, H, W), inside where > 0
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = masks > 0
    if not bool(truth.any()) or bool(truth.all()):
        return {"pixel_auroc": None, "pixel_ap": None, "aupro": None}
    if maps.shape[-2:] != truth.shape[-2:]:
        maps = F.interpolate(maps[:, None], size=truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    flat, score = truth.flatten().numpy(), maps.flatten().numpy()
    return {
        "pixel_auroc": float(roc_auc_score(flat, score)),
        "pixel_ap": float(average_precision_score(flat, score)),
        "aupro": _measure_regions(maps, truth),
    }


def _measure_regions(maps: torch.Tensor, truth: torch.Tensor) -> float:
    """Return AUPRO; a region is what is connected, diagonals included, within an image."""
    from anomalib.metrics import AUPRO
    from scipy.ndimage import label

    regions, count = np.zeros(truth.shape, np.int64), 0
    for number, mask in enumerate(truth.numpy()):
        found, more = label(mask, np.ones((3, 3)))
        regions[number] = np.where(found > 0, found + count, 0)
        count += more
    metric = AUPRO(fpr_limit=_FALSE_POSITIVES, fields=["anomaly_map", "gt_mask"])
    rates, overlaps = metric.compute_pro(cca=torch.from_numpy(regions), preds=maps)
    return float(torch.trapezoid(overlaps, rates) / rates[-1])


def measure_threshold(
    choose: Sequence[float], measure: Sequence[float], good: Sequence[float], defects: Sequence[float], rate: float
) -> dict[str, float | int]:
    """Set a threshold on some held-out normals and say what it does to the others.

    Args:
        choose: Scores of the held-out normals that set the threshold, by
            :func:`~anomalib_synth.calibration.statistics.conformal_threshold`.
        measure: Scores of the other held-out normals.
        good: Scores of the good test images.
        defects: Scores of the defective test images.
        rate: Target false-alarm rate in (0, 1).

    Returns:
        Threshold, recall and false alarms; their counts are whole numbers of images.
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

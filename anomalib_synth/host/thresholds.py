"""The thresholds of anomalib's post-processor, and where a checkpoint keeps them.

anomalib 2.7 labels an image anomalous if ``(score - threshold) / (max - min) + 0.5 > 1 - sensitivity``. Threshold and
range are buffers of ``PostProcessor``, the sensitivity is its attribute. Without normalisation, or without a range, the
rule is ``score > 1 - sensitivity``, whatever the threshold. A checkpoint holds the buffers twice: in ``state_dict``
and, because the post-processor is also a Lightning callback, in ``callbacks``, which is restored last and so takes
precedence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from anomalib.models import AnomalibModule

_CONFIG = "anomalib_post_processor_config"
_PREFIX = "post_processor."


@dataclass(frozen=True, kw_only=True)
class Level:
    """A threshold on raw scores, and the range of scores seen, which normalisation uses if it has no range yet.

    Args:
        threshold: Raw scores above this value are anomalous.
        low: Smallest raw score seen.
        high: Largest raw score seen.
    """

    threshold: float
    low: float
    high: float


def check_post_processor(model: AnomalibModule) -> None:
    """Refuse a model without a post-processor that can store a threshold.

    Raises:
        ValueError: If the model's post-processor is off or not one of anomalib's.
    """
    from anomalib.post_processing import PostProcessor

    if not isinstance(model.post_processor, PostProcessor):
        found = "none" if model.post_processor is None else type(model.post_processor).__name__
        msg = (
            f"The model must have a post-processor of anomalib to keep the threshold in, got {found}. Train it with "
            "`post_processor: true`, or with one derived from anomalib.post_processing.PostProcessor."
        )
        raise ValueError(msg)


def give_raw_scores(model: AnomalibModule) -> None:
    """Switch normalisation and labels off in this object, so that predictions are the model's raw scores."""
    model.post_processor.enable_normalization = False
    model.post_processor.enable_thresholding = False


def has_pixel_threshold(checkpoint: dict[str, Any]) -> bool:
    """Return whether masks use one threshold; anomalib's MEBin, known by its settings, finds one per image."""
    return "min_interval_len" not in (checkpoint.get(_CONFIG) or {})


def post_processor_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a checkpoint with the post-processor's settings (plain data), such as sensitivities."""
    return {_CONFIG: dict(checkpoint[_CONFIG])} if checkpoint.get(_CONFIG) else {}


def find_image_threshold(checkpoint: dict[str, Any]) -> float | None:
    """Return the raw image score above which a loaded checkpoint calls an image anomalous, None if there is none."""
    config = checkpoint.get(_CONFIG) or {}
    sensitivity = config.get("image_sensitivity", 0.5)
    for state, prefix in _states(checkpoint):
        if not config.get("enable_normalization", True):
            return 1 - float(sensitivity)
        threshold = float(state[f"{prefix}_image_threshold"])
        span = float(state[f"{prefix}image_max"]) - float(state[f"{prefix}image_min"])
        if not math.isnan(threshold) and not math.isnan(span):
            return threshold + (0.5 - float(sensitivity)) * span
    return None


def read_image_threshold(checkpoint: dict[str, Any]) -> float:
    """Return the raw image score above which a loaded checkpoint calls an image anomalous.

    Raises:
        ValueError: If the checkpoint has no threshold.
    """
    threshold = find_image_threshold(checkpoint)
    if threshold is None:
        msg = (
            "The checkpoint must hold a threshold of anomalib's post-processor, got none. Validate the model when it "
            "is trained, or calibrate it with `anomalib-synth calibrate`."
        )
        raise ValueError(msg)
    return threshold


def read_normalised_threshold(checkpoint: dict[str, Any]) -> float:
    """Return the score, on the scale of predictions, above which a loaded checkpoint calls an image anomalous.

    Raises:
        ValueError: If the checkpoint does not label images.
    """
    config = checkpoint.get(_CONFIG) or {}
    if not config.get("enable_thresholding", True):
        msg = (
            "The checkpoint must label images, but thresholding is off in it (`enable_thresholding: false`). Calibrate "
            "it with `anomalib-synth calibrate`, or train it with thresholding."
        )
        raise ValueError(msg)
    return 1 - float(config.get("image_sensitivity", 0.5))


def read_model_thresholds(model: AnomalibModule) -> dict[str, Any]:
    """Return the part of a checkpoint with the thresholds, from a model in memory."""
    post = model.post_processor
    return {
        "state_dict": {f"{_PREFIX}{name}": value for name, value in post.state_dict().items()},
        _CONFIG: post.checkpoint_config(),
    }


def lower_pixel_threshold(model: AnomalibModule, limit: float) -> None:
    """Lower the threshold of a model's anomaly maps to a limit, if it is higher.

    Args:
        model: A model whose validation has just ended.
        limit: Largest threshold allowed, on raw maps.
    """
    threshold = getattr(model.post_processor, "_pixel_threshold", None)
    if threshold is not None:  # NaN stays: no threshold was computed
        threshold.clamp_(max=limit)


def write_thresholds(checkpoint: dict[str, Any], *, image: Level, pixel: Level | None) -> list[str]:
    """Write thresholds into a loaded checkpoint, in place, so that predictions are labelled by them.

    With normalisation, sensitivities are set to 0.5, because other values would shift the threshold; normalised scores
    change only by the shift of the threshold. Without normalisation, they are set to one minus the threshold.

    Args:
        checkpoint: The checkpoint, as loaded from its file.
        image: Threshold of the image scores.
        pixel: Threshold of the anomaly maps; None leaves it as it is.

    Returns:
        Notes on what else was changed, one sentence each.

    Raises:
        ValueError: If the checkpoint has no post-processor of anomalib.
    """
    states = list(_states(checkpoint))
    if not states:
        msg = (
            "The checkpoint must hold the thresholds of anomalib's post-processor, got none. Train the model with "
            "`post_processor: true`."
        )
        raise ValueError(msg)
    config = dict(checkpoint.get(_CONFIG) or {})
    notes = []
    if not config.get("enable_thresholding", True):
        notes.append("Thresholding was off in this checkpoint; it is on now.")
    config["enable_thresholding"] = True
    for kind, level in (("image", image), ("pixel", pixel)):
        if level is None:
            continue
        before = config.get(f"{kind}_sensitivity", 0.5)
        if not config.get("enable_normalization", True):
            # Without normalisation the post-processor looks at the sensitivity alone.
            config[f"{kind}_sensitivity"] = _sensitivity_for(level.threshold)
            notes.append(f"Normalisation is off in this checkpoint, so `{kind}_sensitivity` holds 1 - threshold.")
        else:
            config[f"{kind}_sensitivity"] = 0.5
            if before != 0.5:
                notes.append(f"`{kind}_sensitivity` was {before:g}; it is 0.5 now, as it would shift the threshold.")
        for state, prefix in states:
            _write(state, prefix, kind, level)
    checkpoint[_CONFIG] = config
    return notes


def _states(checkpoint: dict[str, Any]) -> Iterator[tuple[MutableMapping[str, Any], str]]:
    """Yield every dictionary that holds the buffers, with the prefix of their names in it."""
    if f"{_PREFIX}_image_threshold" in checkpoint.get("state_dict", {}):
        yield checkpoint["state_dict"], _PREFIX
        for state in checkpoint.get("callbacks", {}).values():
            if hasattr(state, "keys") and "_image_threshold" in state:
                yield state, ""


def _write(state: MutableMapping[str, Any], prefix: str, kind: str, level: Level) -> None:
    name = f"{prefix}_{kind}_threshold"
    state[name] = torch.full_like(state[name], level.threshold)
    low, high = f"{prefix}{kind}_min", f"{prefix}{kind}_max"
    if bool(torch.isnan(state[low]) | torch.isnan(state[high])):
        state[low], state[high] = torch.full_like(state[low], level.low), torch.full_like(state[high], level.high)


def _sensitivity_for(threshold: float) -> float:
    """Return the sensitivity for which anomalib's float32 ``1.0 - sensitivity`` is the threshold or just above it."""
    sensitivity = np.float32(1.0 - threshold)
    while np.float32(1.0) - sensitivity < np.float32(threshold):
        sensitivity = np.nextafter(sensitivity, np.float32(-np.inf))
    return float(sensitivity)

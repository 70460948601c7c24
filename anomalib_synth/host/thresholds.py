"""The thresholds of anomalib's post-processor, and where a checkpoint keeps them.

anomalib 2.7 labels an image by ``(score - threshold) / (max - min) + 0.5 > 1 - sensitivity``, with the threshold and
the range as buffers of ``PostProcessor`` and the sensitivity as its attribute; without normalisation, or without a
range, by ``score > 1 - sensitivity``, whatever the threshold. A checkpoint holds the buffers twice: in ``state_dict``,
and, as the post-processor is a Lightning callback too, in ``callbacks``, which is restored last and wins.
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
    """A threshold on raw scores, and the range of scores seen, which normalisation takes where it has none yet.

    Args:
        threshold: What is above it is anomalous.
        low: Smallest raw score seen.
        high: Largest raw score seen.
    """

    threshold: float
    low: float
    high: float


def check_post_processor(model: AnomalibModule) -> None:
    """Refuse a model that has no threshold to write.

    Raises:
        ValueError: If its post-processor is off, or not one of anomalib's.
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
    """Switch normalisation and labels off, in this object only, so that predictions are the model's raw scores."""
    model.post_processor.enable_normalization = False
    model.post_processor.enable_thresholding = False


def has_pixel_threshold(checkpoint: dict[str, Any]) -> bool:
    """Return whether masks are made with a threshold; anomalib's MEBin, told by its settings, finds one an image."""
    return "min_interval_len" not in (checkpoint.get(_CONFIG) or {})


def post_processor_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a checkpoint, plain data, with the sensitivities and what the post-processor does."""
    return {_CONFIG: dict(checkpoint[_CONFIG])} if checkpoint.get(_CONFIG) else {}


def find_image_threshold(checkpoint: dict[str, Any]) -> float | None:
    """Return the raw image score above which a checkpoint that was read calls an image anomalous, None if none is."""
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
    """Return the raw image score above which a checkpoint that was read calls an image anomalous.

    Raises:
        ValueError: If it has no threshold.
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
    """Return the score, as predictions give it, above which a checkpoint that was read calls an image anomalous.

    Raises:
        ValueError: If it does not label images.
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
    """Return the part of a checkpoint with the thresholds of a model that is whole."""
    post = model.post_processor
    return {
        "state_dict": {f"{_PREFIX}{name}": value for name, value in post.state_dict().items()},
        _CONFIG: post.checkpoint_config(),
    }


def lower_pixel_threshold(model: AnomalibModule, limit: float) -> None:
    """Lower the threshold of a model's anomaly maps to a limit, where it has one that is higher.

    Args:
        model: A model whose validation has just ended.
        limit: The largest threshold wanted, on raw maps.
    """
    threshold = getattr(model.post_processor, "_pixel_threshold", None)
    if threshold is not None:  # NaN, where none was computed, stays
        threshold.clamp_(max=limit)


def write_thresholds(checkpoint: dict[str, Any], *, image: Level, pixel: Level | None) -> list[str]:
    """Write thresholds into a checkpoint that was read, in place, so that prediction labels by them.

    Sensitivities become neutral: they shift the threshold. Normalised scores stay as they are but for that shift.

    Args:
        checkpoint: The checkpoint, as read from its file.
        image: Threshold of the image scores.
        pixel: Threshold of the anomaly maps; None leaves it as it is.

    Returns:
        What else was changed, in words.

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
    """Yield every place that holds the buffers, with the prefix of their names there."""
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
    """Return the sensitivity for which anomalib's ``1.0 - sensitivity``, in float32, is the threshold or just above."""
    sensitivity = np.float32(1.0 - threshold)
    while np.float32(1.0) - sensitivity < np.float32(threshold):
        sensitivity = np.nextafter(sensitivity, np.float32(-np.inf))
    return float(sensitivity)

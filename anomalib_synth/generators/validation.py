"""Checks of the arguments and the samples of a generator's call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from anomalib_synth.sample import AnomalySample

_TOLERANCE = 1e-3


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Clip values that resampling or de-normalisation put slightly outside [0, 1].

    Raises:
        ValueError: If a value is more than 0.001 outside, as in a normalised image.
    """
    images = images.detach().as_subclass(torch.Tensor)
    if images.numel() == 0:
        return images
    low, high = torch.stack(torch.aminmax(images)).tolist()
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        msg = (
            f"Synthesis needs images in [0, 1] before normalisation, got values from {low:g} to {high:g}. Move "
            "`Normalize` from the datamodule's augmentations to the model's pre_processor."
        )
        raise ValueError(msg)
    return images.clamp(0, 1) if low < 0 or high > 1 else images


def check_images(images: torch.Tensor) -> None:
    """Refuse anything but a batch of float images in [0, 1] with 1 or 3 channels."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point() or images.ndim != 4:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        msg = f"`images` must be float (B, C, H, W), got {got}. Add the batch dimension, divide 8-bit images by 255."
        raise ValueError(msg)
    if images.shape[1] not in {1, 3} or 0 in images.shape[1:]:
        msg = f"`images` must have 1 or 3 channels and at least one pixel, got shape {tuple(images.shape)}."
        raise ValueError(msg)
    if images.shape[0] == 0:
        return
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if not (low >= 0 and high <= 1):  # NaN compares false
        msg = (
            f"`images` must be finite and in [0, 1], got values from {low:g} to {high:g}. "
            "Give images before normalisation; divide 8-bit images by 255."
        )
        raise ValueError(msg)


def check_masks(masks: torch.Tensor | None, images: torch.Tensor) -> None:
    """Refuse a mask that does not fit the images."""
    expected = (images.shape[0], 1, *images.shape[-2:])
    if masks is not None and (not isinstance(masks, torch.Tensor) or tuple(masks.shape) != expected):
        msg = f"`masks` must have shape {expected}, like the images, got {tuple(getattr(masks, 'shape', ()))}."
        raise ValueError(msg)


def check_drawn_on(
    sample: AnomalySample, images: torch.Tensor, generator: object, names: Sequence[object], remedy: str
) -> None:
    """Refuse samples whose source is not the image that the generator got, as ``StoredGenerator(paired=True)`` serves.

    Args:
        sample: What the generator returned; rows that it did not accept are not checked.
        images: What it got, (B, C, H, W).
        generator: The generator, for the message.
        names: The name of each image.
        remedy: A sentence that says what to do.

    Raises:
        ValueError: If there is such a sample; the message names the first image.
    """
    if sample.source is images:
        return
    for row in sample.accepted.nonzero().flatten().tolist():
        if not torch.equal(sample.source[row].to(images.device), images[row]):
            msg = f"`generator` {type(generator).__name__} gave a sample of another image than {names[row]}. {remedy}"
            raise ValueError(msg)


def check_texts(name: str, texts: Sequence[str] | None, count: int) -> list[str] | None:
    """Return texts without surrounding blanks; refuse them unless there is one for each image and none is empty."""
    if texts is None:
        return None
    listed = list(texts) if isinstance(texts, Sequence) and not isinstance(texts, str) else []
    if len(listed) != count or not all(isinstance(text, str) and text.strip() for text in listed):
        msg = f"`{name}` must be {count} texts, one for each image and none empty, got {texts!r}."
        raise ValueError(msg)
    return [text.strip() for text in listed]


def check_range(
    name: str, value: tuple[float, float], *, largest: float = 1.0, from_zero: bool = False
) -> tuple[float, float]:
    """Return a range as floats; refuse it unless 0 < min <= max <= largest. With ``from_zero`` min may be 0."""
    is_right = hasattr(value, "__len__") and len(value) == 2 and 0 <= value[0] <= value[1] <= largest
    if not is_right or (value[0] == 0 and not from_zero):
        least = "0 <=" if from_zero else "0 <"
        msg = f"`{name}` must satisfy {least} min <= max <= {largest:g}, got {value}. For one value, give it twice."
        raise ValueError(msg)
    return float(value[0]), float(value[1])

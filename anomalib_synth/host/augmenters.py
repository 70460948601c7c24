"""Finds and replaces the augmenters from which anomalib's models take anomalies.

Relies on ``Draem.augmenter``, ``Dsr.perlin_generator`` and ``Glass.model.augmentor`` of anomalib 2.7, which take normal
images and return defective images and their masks, and on ``Supersimplenet.supervised``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn

from anomalib_synth.host.swapping import ModuleSwap

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from anomalib.models import AnomalibModule

    from anomalib_synth.sample import AnomalySample


@dataclass(frozen=True)
class AnomalyInput:
    """How a model takes anomalies.

    Args:
        kind: ``"slot"``: the model calls an augmenter on normal images, and the augmenter can be swapped. ``"labels"``:
            the model learns from the labels and masks of the batch.
        slot: Dotted path of the augmenter in the model; empty for ``"labels"``.
    """

    kind: Literal["slot", "labels"]
    slot: str = ""


def find_anomaly_input(model: AnomalibModule) -> AnomalyInput:
    """Return how a model takes anomalies.

    Raises:
        ValueError: If the model cannot learn from anomalies; the message says what to use instead.
    """
    from anomalib.models import Supersimplenet, UniNet

    if slot := _slot_path(model):
        return AnomalyInput("slot", slot)
    if isinstance(model, Supersimplenet):
        if not model.supervised:
            msg = (
                "Supersimplenet learns from labelled samples only with `supervised: true`, got `supervised: false`. "
                "Set it in the model's init_args, or remove SynthesisCallback."
            )
            raise ValueError(msg)
        return AnomalyInput("labels")
    if isinstance(model, UniNet) or getattr(model, "learns_from_labels", False):
        return AnomalyInput("labels")
    msg = (
        f"SynthesisCallback cannot be used with {type(model).__name__}: this model does not learn from anomalies. "
        "Use `anomalib_synth.data.SyntheticDataModule` to give it a synthetic validation set for its threshold, or "
        "train DiscriminativePadim, RealNet, Draem, Dsr, Glass, Supersimplenet (supervised: true), UniNet, or a model "
        "of your own with the class attribute `learns_from_labels = True`."
    )
    raise ValueError(msg)


def _slot_path(model: AnomalibModule) -> str:
    """Return the dotted path of the model's augmenter, "" if the model has none."""
    from anomalib.models import Draem, Dsr, Glass

    if isinstance(model, Draem):
        return "augmenter"
    if isinstance(model, Dsr):
        return "perlin_generator"
    return "model.augmentor" if isinstance(model, Glass) else ""


def draws_by_itself(model: AnomalibModule) -> bool:
    """Return whether the model trains on samples of its own augmenter, whose quality is not known."""
    slot = _slot_path(model)
    return bool(slot) and not isinstance(model.get_submodule(slot), AugmenterSlot)


class AugmenterSlot(nn.Module):
    """Replaces a model's augmenter: takes normal images, returns defective images and masks.

    It has no parameters or buffers, so checkpoints do not change.

    Args:
        draw: Draws a sample for a batch of images in [0, 1].
    """

    def __init__(self, draw: Callable[[torch.Tensor], AnomalySample]) -> None:
        super().__init__()
        self._draw = draw

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, C, H, W) with defects, and their masks (B, 1, H, W) in {0, 1}."""
        sample = self._draw(images)
        return sample.image, sample.mask.to(sample.image.dtype)


class SlotSwap(ModuleSwap):
    """Puts an :class:`AugmenterSlot` into a model, and can restore the original augmenter.

    Args:
        model: The model.
        path: Dotted path of the augmenter in the model.
        draw: Draws a sample for a batch of images in [0, 1].
    """

    def __init__(self, model: AnomalibModule, path: str, draw: Callable[[torch.Tensor], AnomalySample]) -> None:
        super().__init__(model, path, lambda _: AugmenterSlot(draw))

"""The only file that names the internals of anomalib's models: where each of them takes anomalies from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torchvision.tv_tensors import Image, Mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule

    from anomalib_synth.sample import AnomalySample

Draw = "Callable[[torch.Tensor], AnomalySample]"


@dataclass(frozen=True)
class Intake:
    """How a model takes anomalies.

    Args:
        kind: ``"slot"``: it calls an augmenter on normal images, which can be swapped. ``"labels"``: it learns from
            the labels and masks of the batch.
        slot: Dotted path of the augmenter in the model, for a slot.
    """

    kind: Literal["slot", "labels"]
    slot: str = ""


def find_intake(model: AnomalibModule) -> Intake:
    """Return how a model takes anomalies.

    Raises:
        ValueError: If it cannot learn from anomalies; the message says what to use instead.
    """
    from anomalib.models import Draem, Dsr, Glass, Supersimplenet, UniNet

    if isinstance(model, Draem):
        return Intake("slot", "augmenter")
    if isinstance(model, Dsr):
        return Intake("slot", "perlin_generator")
    if isinstance(model, Glass):
        return Intake("slot", "model.augmentor")
    if isinstance(model, Supersimplenet):
        if not model.supervised:
            msg = (
                "Supersimplenet learns from labelled samples only with `supervised: true`, got `supervised: false`. "
                "Set it in the model's init_args, or remove SynthesisCallback."
            )
            raise ValueError(msg)
        return Intake("labels")
    if isinstance(model, UniNet) or getattr(model, "learns_from_labels", False):
        return Intake("labels")
    msg = (
        f"SynthesisCallback cannot be used with {type(model).__name__}: this model does not learn from anomalies. "
        "Use `anomalib_synth.data.SyntheticDataModule` to give it a synthetic validation set for its threshold, or "
        "train Draem, Dsr, Glass, Supersimplenet (supervised: true), UniNet, or a model of your own with the class "
        "attribute `learns_from_labels = True`."
    )
    raise ValueError(msg)


class AugmenterSlot(nn.Module):
    """Stands where a model's augmenter stood: normal images in, defective images and masks out.

    A module without parameters or buffers, so checkpoints do not change.

    Args:
        draw: Draws a sample for a batch of images in [0, 1].
    """

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self._draw = draw

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, C, H, W) with defects, and their masks (B, 1, H, W) in {0, 1}."""
        sample = self._draw(images)
        return sample.image, sample.mask.to(sample.image.dtype)


class SlotSwap:
    """Puts an :class:`AugmenterSlot` into a model, and puts back what was there.

    Args:
        model: The model.
        path: Dotted path of the augmenter in the model.
        draw: Draws a sample for a batch of images in [0, 1].
    """

    def __init__(self, model: AnomalibModule, path: str, draw: Draw) -> None:
        parent, _, self._name = path.rpartition(".")
        self._owner = model.get_submodule(parent)
        self._original = getattr(self._owner, self._name)
        setattr(self._owner, self._name, AugmenterSlot(draw))

    def restore(self) -> None:
        """Put the original augmenter back."""
        setattr(self._owner, self._name, self._original)


def write_labels(batch: ImageBatch, sample: AnomalySample, pre_process: Callable | None) -> None:
    """Write a sample into a batch: ``image``, ``source``, ``gt_mask``, ``gt_label``, ``quality``, ``synthetic``.

    Rows that already carry a real defect keep their image, mask and label. The model's pre-processor transforms
    ``image`` and ``gt_mask`` after this; ``source``, which it does not know, is transformed here.

    Args:
        batch: The batch, changed in place.
        sample: One row for each image of the batch; rows that are not accepted change nothing.
        pre_process: The transform of the model's pre-processor, or None.

    Raises:
        ValueError: If a real anomalous image comes without a mask.
    """
    real = torch.zeros(len(sample), dtype=torch.bool, device=sample.mask.device)
    if batch.gt_label is not None:
        real = batch.gt_label.to(real.device).bool()
    if batch.gt_mask is None and bool(real.any()):
        msg = (
            "A training batch holds real anomalous images without masks, so their `gt_mask` cannot be set. Give the "
            "datamodule a mask_dir, or train on normal images only."
        )
        raise ValueError(msg)
    image = torch.where(real.view(-1, 1, 1, 1), batch.image.as_subclass(torch.Tensor), sample.image)
    mask = sample.mask[:, 0] > 0
    if batch.gt_mask is not None:
        mask = torch.where(real.view(-1, 1, 1), batch.gt_mask.as_subclass(torch.Tensor) > 0, mask)
    known = getattr(batch, "source", None)
    own = batch.image if known is None else known
    source = torch.where(real.view(-1, 1, 1, 1), own.as_subclass(torch.Tensor), sample.source)
    known = getattr(batch, "quality", None)
    quality = torch.ones_like(sample.quality) if known is None else known
    batch.image = Image(image)
    batch.source = Image(source) if pre_process is None else pre_process(Image(source))
    batch.gt_mask = Mask(mask)
    batch.gt_label = real | (sample.label & sample.accepted)
    batch.quality = torch.where(real, quality, sample.quality)
    batch.synthetic = ~real & sample.label & sample.accepted


def label_from_mask(batch: ImageBatch, pre_process: Callable | None = None) -> None:
    """Set ``gt_label`` of a batch whose masks a transform changed; a label that was set stays set.

    Where the batch has none, ``quality`` is 1 and ``synthetic`` follows the mask; ``source``, if there is one, gets the
    model's pre-processing.

    Args:
        batch: The batch, changed in place.
        pre_process: The transform of the model's pre-processor, or None.

    Raises:
        ValueError: If the batch has no masks.
    """
    if batch.gt_mask is None:
        msg = (
            "SynthesisCallback(generator=None) sets labels from masks, but the batch has no `gt_mask`: a "
            "classification datamodule makes none. Use `anomalib_synth.data.SyntheticDataModule`, or pass a generator."
        )
        raise ValueError(msg)
    drawn = batch.gt_mask.flatten(1).any(1)
    batch.gt_label = drawn if batch.gt_label is None else drawn | batch.gt_label.bool()
    if getattr(batch, "quality", None) is None:
        batch.quality = torch.ones(len(drawn), device=drawn.device)
    if getattr(batch, "synthetic", None) is None:
        batch.synthetic = drawn
    if getattr(batch, "source", None) is not None and pre_process is not None:
        batch.source = pre_process(Image(batch.source))

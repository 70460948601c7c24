"""The only file that names the internals of anomalib's models: where they take anomalies from and keep their losses."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torchvision.tv_tensors import Image

from anomalib_synth.functional.field_of_view import CoverageMask, in_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule, Glass

    from anomalib_synth.sample import AnomalySample


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
    from anomalib.models import Supersimplenet, UniNet

    if slot := _slot_path(model):
        return Intake("slot", slot)
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


def _slot_path(model: AnomalibModule) -> str:
    """Return the dotted path of the model's augmenter, "" if it has none."""
    from anomalib.models import Draem, Dsr, Glass

    if isinstance(model, Draem):
        return "augmenter"
    if isinstance(model, Dsr):
        return "perlin_generator"
    return "model.augmentor" if isinstance(model, Glass) else ""


def draws_by_itself(model: AnomalibModule) -> bool:
    """Return whether the model trains on what its own augmenter draws, of which no quality is known."""
    slot = _slot_path(model)
    return bool(slot) and not isinstance(model.get_submodule(slot), AugmenterSlot)


@dataclass(frozen=True)
class LossSite:
    """Where a model keeps a loss that depends on the samples of the batch.

    Args:
        path: Dotted path of the loss module in the model.
        kind: Which function of :mod:`anomalib_synth.losses.per_sample` splits it; ``"patches"`` is GLASS' loss, whose
            rows are patches, see :func:`glass_parts`.
        copies: How many times the model repeats the batch before the loss.
    """

    path: str
    kind: Literal["draem", "dsr", "supersimplenet", "uninet", "elementwise", "samples", "patches"]
    copies: int = 1


def find_losses(model: AnomalibModule) -> list[LossSite]:
    """Return where a model keeps the losses that can be weighted sample by sample.

    Raises:
        ValueError: If they are not known, or something else has taken their place; the message says what to do.
    """
    from anomalib.models import Draem, Dsr, Glass, Supersimplenet, UniNet
    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.dsr.loss import DsrThirdStageLoss
    from anomalib.models.image.glass.loss import FocalLoss
    from anomalib.models.image.supersimplenet.loss import SSNLoss
    from anomalib.models.image.uninet.components import UniNetLoss

    sites: dict[LossSite, type[nn.Module]] = {}
    if isinstance(model, Draem):
        sites[LossSite("loss", "draem")] = DraemLoss
        if model.sspcab:
            sites[LossSite("sspcab_loss", "elementwise")] = nn.MSELoss
    elif isinstance(model, Dsr):
        sites[LossSite("third_stage_loss", "dsr")] = DsrThirdStageLoss
    elif isinstance(model, Glass):
        sites[LossSite("model.focal_loss", "patches")] = FocalLoss
    elif isinstance(model, Supersimplenet) and model.supervised:
        sites[LossSite("loss", "supersimplenet", copies=2)] = SSNLoss
    elif isinstance(model, UniNet):
        sites[LossSite("model.loss", "uninet")] = UniNetLoss
        sites[LossSite("model.bce_loss", "elementwise")] = nn.BCEWithLogitsLoss
    elif isinstance(getattr(model, "sample_reduction", None), nn.Module):
        sites[LossSite("sample_reduction", "samples")] = nn.Module
    if not sites:
        msg = (
            f"QualityWeightingCallback cannot weight the loss of {type(model).__name__}: how it splits into samples is "
            "not known. Remove the callback, or train Draem, Dsr, Glass, Supersimplenet (supervised: true), UniNet, "
            "DiscriminativePadim, RealNet, or a model of your own with an attribute `sample_reduction`: an nn.Module "
            "that takes the loss of each sample, (B,), and returns their mean."
        )
        raise ValueError(msg)
    for site, known in sites.items():
        _check_loss(model, site, known)
    return list(sites)


def _check_loss(model: AnomalibModule, site: LossSite, known: type[nn.Module]) -> None:
    found = model.get_submodule(site.path)
    if not isinstance(found, known):
        msg = (
            f"QualityWeightingCallback knows `{site.path}` of {type(model).__name__} as {known.__name__}, got "
            f"{type(found).__name__}. Keep the model's own loss, or remove the callback."
        )
        raise ValueError(msg)


@contextmanager
def watch_memory(model: AnomalibModule, tell: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Be told how near each image of a batch comes to PatchCore's memory, (B,): the least distance of its patches.

    An image that the memory was made of comes as near as rounding. Other models tell nothing.
    """
    from anomalib.models import Patchcore

    if not isinstance(model, Patchcore):
        yield
        return
    generator = model.model.anomaly_map_generator
    with generator.register_forward_pre_hook(lambda _, inputs: tell(inputs[0].detach().flatten(1).amin(1).cpu())):
        yield


def glass_parts(model: Glass) -> dict[str, Any]:
    """Return what decides which patches GLASS' loss sees: the arguments of ``anomalib_synth.losses.GlassPatches``."""
    network = model.model
    return {
        "scorer": network.discriminator,
        "drawer": network.augmentor,
        "extractor": network.forward_modules["feature_aggregator"],
        "layer": network.layers[0],
        "patchify": network.patch_maker.patchify,
        "quantile": network.focal_loss_quantile_threshold,
    }


class AugmenterSlot(nn.Module):
    """Stands where a model's augmenter stood: normal images in, defective images and masks out.

    A module without parameters or buffers, so checkpoints do not change.

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


class ModuleSwap:
    """Puts a module into a model, and puts back what was there.

    Args:
        model: The model.
        path: Dotted path of the module in the model.
        replace: Makes the new module from the one that is there.
    """

    def __init__(self, model: AnomalibModule, path: str, replace: Callable[[nn.Module], nn.Module]) -> None:
        parent, _, self._name = path.rpartition(".")
        self._owner = model.get_submodule(parent)
        self._original = getattr(self._owner, self._name)
        setattr(self._owner, self._name, replace(self._original))

    def restore(self) -> None:
        """Put the original module back."""
        setattr(self._owner, self._name, self._original)


class SlotSwap(ModuleSwap):
    """Puts an :class:`AugmenterSlot` into a model, and puts back what was there.

    Args:
        model: The model.
        path: Dotted path of the augmenter in the model.
        draw: Draws a sample for a batch of images in [0, 1].
    """

    def __init__(self, model: AnomalibModule, path: str, draw: Callable[[torch.Tensor], AnomalySample]) -> None:
        super().__init__(model, path, lambda _: AugmenterSlot(draw))


def write_labels(batch: ImageBatch, sample: AnomalySample, pre_process: Callable | None) -> None:
    """Write a sample into a batch: ``image``, ``source``, ``gt_mask``, ``gt_label``, ``quality``, ``synthetic``.

    Rows that already carry a real defect keep their image, mask and label. The model's pre-processor transforms
    ``image`` and ``gt_mask`` after this; ``source``, which it does not know, is transformed here. A defect of which
    that leaves nothing is none: its image is normal.

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
    seen = _follow_mask(mask, real, pre_process)
    source = _transform(pre_process, sample.source)
    if bool(real.any()):
        own = getattr(batch, "source", None)  # SyntheticDataModule sets it, and pre-processes it
        own = _transform(pre_process, batch.image) if own is None else own
        source = torch.where(real.view(-1, 1, 1, 1), own, source)
    batch.source = Image(source)
    known = getattr(batch, "quality", None)
    quality = torch.ones_like(sample.quality) if known is None else known
    known = getattr(batch, "synthetic", None)
    synthetic = torch.zeros_like(real) if known is None else known
    batch.image = Image(image)
    _set_mask(batch, mask)
    drawn = sample.accepted & ~real
    batch.gt_label = seen & (real | drawn)
    batch.quality = torch.where(real, quality, torch.where(seen, sample.quality, 1.0))
    batch.synthetic = torch.where(real, synthetic, drawn) & seen


def label_from_mask(batch: ImageBatch, pre_process: Callable | None = None) -> None:
    """Set ``gt_label`` of a batch whose masks a transform changed; a label that came without a mask stays set.

    A mask of which the model's pre-processor leaves nothing is no defect. Where the batch has none, ``quality`` is 1,
    and ``synthetic`` is True where a mask came without a label.

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
    mask = batch.gt_mask.as_subclass(torch.Tensor) > 0
    labelled = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
    labelled = labelled if batch.gt_label is None else batch.gt_label.bool()
    seen = _follow_mask(mask, labelled, pre_process)
    _set_mask(batch, mask)
    batch.gt_label = seen
    if getattr(batch, "quality", None) is None:
        batch.quality = torch.ones(len(mask), device=mask.device)
    if getattr(batch, "synthetic", None) is None:
        batch.synthetic = seen & ~labelled


def _follow_mask(mask: torch.Tensor, labelled: torch.Tensor, pre_process: Callable | None) -> torch.Tensor:
    """Return (B,) bool: which images are anomalous to the model; one that is labelled without a mask stays so."""
    return in_view(mask, pre_process) | (labelled & ~mask.flatten(1).any(1))


def _set_mask(batch: ImageBatch, mask: torch.Tensor) -> None:
    """Set ``gt_mask``, past anomalib's check, which would take away the type under which resizing loses no defect."""
    batch.gt_mask = mask
    vars(batch)["gt_mask"] = CoverageMask(batch.gt_mask)


def _transform(pre_process: Callable | None, images: torch.Tensor) -> torch.Tensor:
    """Return images as the model's pre-processor will leave them; a random transform draws the same then."""
    if pre_process is None:
        return images
    with torch.random.fork_rng(devices=[]):
        return pre_process(Image(images))

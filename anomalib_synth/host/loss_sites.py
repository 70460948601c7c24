"""Finds the losses of anomalib's models, and the parts by which GLASS selects the patches of its loss.

Relies on these parts of anomalib 2.7: ``Draem.loss`` and ``sspcab_loss``, ``Dsr.third_stage_loss``,
``Supersimplenet.loss``, ``UniNet.model.loss`` and ``bce_loss``, and the ``focal_loss`` of ``Glass.model`` with the
parts that select its patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule, Glass


@dataclass(frozen=True)
class LossSite:
    """Where a model keeps a loss that depends on the samples of the batch.

    Args:
        path: Dotted path of the loss module in the model.
        kind: Which function of :mod:`anomalib_synth.losses.per_sample` splits the loss into samples; ``"patches"`` is
            GLASS' loss, whose rows are patches, see :func:`glass_parts`.
        copies: How many times the model repeats the batch before the loss.
    """

    path: str
    kind: Literal["draem", "dsr", "supersimplenet", "uninet", "elementwise", "samples", "patches"]
    copies: int = 1


def find_losses(model: AnomalibModule) -> list[LossSite]:
    """Return where a model keeps those of its losses that can be weighted per sample.

    Raises:
        ValueError: If the model's losses are not known, or were replaced by another class; the message says what to do.
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


def glass_parts(model: Glass) -> dict[str, Any]:
    """Return the parts that select the patches of GLASS' loss: arguments of ``anomalib_synth.losses.GlassPatches``."""
    network = model.model
    return {
        "scorer": network.discriminator,
        "drawer": network.augmentor,
        "extractor": network.forward_modules["feature_aggregator"],
        "layer": network.layers[0],
        "patchify": network.patch_maker.patchify,
        "quantile": network.focal_loss_quantile_threshold,
    }

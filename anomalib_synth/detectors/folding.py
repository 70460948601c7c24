"""Folds batch normalisation into the convolutions of a frozen network: the same features in fewer memory passes."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

if TYPE_CHECKING:
    from collections.abc import Callable

_PROBE = (1, 3, 64, 64)


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Return the network with each normalisation that follows a convolution folded into it.

    A forward pass on a random image shows which normalisation follows which convolution. If folding would change the
    features, because a convolution's output is also used elsewhere, the network is returned unfolded. That test uses
    random batch statistics, so the decision depends on the architecture and not on the weights.

    Args:
        network: Network in evaluation mode that takes (B, 3, H, W) images and returns a list of features; it is not
            changed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        probe = torch.rand(_PROBE)
        trial = deepcopy(network)
        for module in trial.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2.0)
    same = all(
        torch.allclose(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
        for before, after in zip(trial(probe), _fold(trial, probe)(probe), strict=True)
    )
    return _fold(network, probe) if same else network


def _fold(network: nn.Module, probe: torch.Tensor) -> nn.Module:
    folded = deepcopy(network)
    for name, convolution in _pairs(folded, probe):
        norm = folded.get_submodule(name)
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        convolution.weight, convolution.bias = weight.requires_grad_(False), bias.requires_grad_(False)
        folded.set_submodule(name, getattr(norm, "act", nn.Identity()))  # timm's normalisation may hold an activation
    return folded


def _pairs(network: nn.Module, probe: torch.Tensor) -> list[tuple[str, nn.Conv2d]]:
    """Return the name of each normalisation whose input comes from a convolution, with that convolution."""
    made: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}  # holding the tensors keeps their ids unique
    pairs = []

    def after_convolution(module: nn.Conv2d, _: tuple, output: torch.Tensor) -> None:
        made[id(output)] = (module, output)

    def watch(name: str) -> Callable[..., None]:
        def before_norm(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if id(inputs[0]) in made:
                pairs.append((name, made[id(inputs[0])][0]))

        return before_norm

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(watch(name)))
    network(probe)
    for hook in hooks:
        hook.remove()
    return pairs

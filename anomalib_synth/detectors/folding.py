"""Folds batch normalisation into the convolutions of a frozen network: fewer passes over memory, the same features."""

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

    Which follows which is seen on a random image. A network whose features the folding would change (a convolution's
    output is also used elsewhere) comes back as it is; that is tried with random statistics, so it depends on the
    architecture only, not on the weights.

    Args:
        network: In evaluation mode; (1, 3, 64, 64) images in, a list of features out. Not changed.
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
    """Return the name of each normalisation whose input a convolution made, and that convolution."""
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

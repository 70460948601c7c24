"""Freezing parameters for a part of the training."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


class FrozenModules:
    """Freezes parameters until :meth:`restore`.

    Modules left without a trainable parameter go to eval mode, so that batch statistics stop and dropout is off. They
    are kept in it, as some models call ``train()`` on their modules in every step.

    Args:
        model: The model.
        patterns: Shell patterns (``fnmatch``) on the names of its parameters.

    Raises:
        ValueError: If a pattern matches no parameter, or no trainable parameter would be left.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str]) -> None:
        names = match_parameters(model, patterns)
        parameters = [parameter for name, parameter in model.named_parameters() if name in names]
        self._parameters = [(parameter, parameter.requires_grad) for parameter in parameters]
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimiser would still apply it
        self._modules = [(module, module.training) for module in _modules_of(model, parameters)]
        self._hooks = [module.register_forward_pre_hook(_stay_in_eval) for module, _ in self._modules]
        for module, _ in self._modules:
            module.training = False

    def restore(self) -> None:
        """Restore the mode of every module and ``requires_grad`` of every parameter, in reverse order."""
        for module, training in reversed(self._modules):
            module.training = training
        for hook in reversed(self._hooks):
            hook.remove()
        for parameter, requires_grad in reversed(self._parameters):
            parameter.requires_grad_(requires_grad)


def match_parameters(model: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Return the names of the parameters that match any of the patterns.

    Raises:
        ValueError: If a pattern matches no parameter, or no trainable parameter would be left.
    """
    names = [name for name, _ in model.named_parameters()]
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            modules = sorted({".".join(name.split(".")[:2]) for name in names})
            msg = (
                f"`frozen` must hold patterns on the parameters of {type(model).__name__}, but {pattern!r} matches "
                f"none. Their names start with: {', '.join(modules)}; a whole module is '{modules[0]}.*'."
            )
            raise ValueError(msg)
        matched |= found
    if not any(parameter.requires_grad for name, parameter in model.named_parameters() if name not in matched):
        msg = f"`frozen` must leave a trainable parameter of {type(model).__name__}, but {list(patterns)} leave none."
        raise ValueError(msg)
    return matched


def _modules_of(model: nn.Module, frozen: Sequence[nn.Parameter]) -> list[nn.Module]:
    """Return the modules that hold frozen parameters but no trainable one, with all modules inside them."""
    chosen = {id(parameter) for parameter in frozen}
    found: dict[int, nn.Module] = {}
    for module in model.modules():
        parameters = list(module.parameters())
        if any(id(parameter) in chosen for parameter in parameters) and not any(p.requires_grad for p in parameters):
            found |= {id(inner): inner for inner in module.modules()}
    return list(found.values())


def _stay_in_eval(module: nn.Module, inputs: object) -> None:
    del inputs
    module.training = False

"""Swaps modules of a model, and restores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib.models import AnomalibModule
    from torch import nn


class ModuleSwap:
    """Replaces a module of a model, and can restore the original.

    Args:
        model: The model.
        path: Dotted path of the module in the model.
        replace: Makes the new module from the original one.
    """

    def __init__(self, model: AnomalibModule, path: str, replace: Callable[[nn.Module], nn.Module]) -> None:
        parent, _, self._name = path.rpartition(".")
        self._owner = model.get_submodule(parent)
        self._original = getattr(self._owner, self._name)
        setattr(self._owner, self._name, replace(self._original))

    def restore(self) -> None:
        """Put the original module back."""
        setattr(self._owner, self._name, self._original)

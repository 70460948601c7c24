"""Loaders that are gone through besides the training.

Touches ``DataLoader._iterator`` of PyTorch 2, where a loader with persistent workers keeps its only iterator.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


def fresh_loader(loader: DataLoader) -> DataLoader:
    """Return a loader of its own: persistent workers would reset the iterator that the first epoch is to use."""
    loader = copy.copy(loader)
    loader._iterator = None
    return loader

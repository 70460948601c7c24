"""Copies of data loaders, for iterating besides training.

Relies on ``DataLoader._iterator`` of PyTorch 2, where a loader with persistent workers keeps its only iterator.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


def fresh_loader(loader: DataLoader) -> DataLoader:
    """Return a copy with its own iterator: persistent workers would reset the one that the first epoch is to use."""
    loader = copy.copy(loader)
    loader._iterator = None
    return loader

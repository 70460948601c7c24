"""Fields of anomalib's batches.

Relies on the descriptors of ``anomalib.data.dataclasses`` 2.7, which check what a field is set to and keep it in the
batch's own dictionary under the field's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from anomalib.data import ImageBatch


def set_unchecked(batch: ImageBatch, name: str, value: torch.Tensor) -> None:
    """Set a field past anomalib's check, which would replace a tensor's type by its own.

    Args:
        batch: The batch, changed in place.
        name: Name of the field.
        value: A value that the check would take.
    """
    vars(batch)[name] = value

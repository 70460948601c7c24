"""Sets fields of anomalib's batches.

Relies on the descriptors of ``anomalib.data.dataclasses`` in anomalib 2.7, which check a field's new value and store it
in the batch's ``__dict__`` under the field's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from anomalib.data import ImageBatch


def set_unchecked(batch: ImageBatch, name: str, value: torch.Tensor) -> None:
    """Set a field without anomalib's check, which would convert the tensor to its own type.

    Args:
        batch: The batch, changed in place.
        name: Name of the field.
        value: A value that would pass the check.
    """
    vars(batch)[name] = value

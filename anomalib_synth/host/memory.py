"""Reads how near images come to PatchCore's memory bank.

Relies on ``Patchcore.model.anomaly_map_generator`` of anomalib 2.7, whose first argument is the distances of the
patches.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from anomalib.models import AnomalibModule


@contextmanager
def watch_memory(model: AnomalibModule, tell: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Report the smallest distance of each image's patches to PatchCore's memory bank, (B,) per batch, to ``tell``.

    For an image in the memory bank, that distance is zero up to rounding. Other models report nothing.
    """
    from anomalib.models import Patchcore

    if not isinstance(model, Patchcore):
        yield
        return
    generator = model.model.anomaly_map_generator
    with generator.register_forward_pre_hook(lambda _, inputs: tell(inputs[0].detach().flatten(1).amin(1).cpu())):
        yield

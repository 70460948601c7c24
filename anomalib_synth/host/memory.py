"""How near images come to what PatchCore remembers.

Touches ``Patchcore.model.anomaly_map_generator`` of anomalib 2.7, which is given the distances of
the patches first.
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
    """Be told how near each image of a batch comes to PatchCore's memory, (B,): the least distance of its patches.

    An image that the memory was made of comes as near as rounding. Other models tell nothing.
    """
    from anomalib.models import Patchcore

    if not isinstance(model, Patchcore):
        yield
        return
    generator = model.model.anomaly_map_generator
    with generator.register_forward_pre_hook(lambda _, inputs: tell(inputs[0].detach().flatten(1).amin(1).cpu())):
        yield

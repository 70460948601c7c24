"""A loss module with a weight for each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

_TOLERANCE = 0.02  # under autocast the original rounds to bfloat16


class WeightedLoss(nn.Module):
    """Stands where a model's loss stood, and weights the contribution of each sample before they are averaged.

    Without weights the original is called, so nothing changes by a bit. It has no state and the original is not
    registered in it, so checkpoints do not change.

    The first time it weights a batch it compares the mean contribution with what the original returns: another version
    of anomalib that computes its loss in another way is found out, rather than replaced.

    Args:
        original: The model's loss.
        split: Takes the original and its arguments, returns the contribution of each row, (R,).
        get_weights: Returns the weights of the batch, (B,), or None when each of them is 1.
        copies: How many times the model repeats the batch before the loss: R = copies * B.

    Raises:
        ValueError: If the original has state; in use, if the rows are not ``copies`` times as many as the weights.
        RuntimeError: In use, if the contributions do not add up to the original.
    """

    def __init__(
        self,
        original: nn.Module,
        *,
        split: Callable[..., torch.Tensor],
        get_weights: Callable[[], torch.Tensor | None],
        copies: int = 1,
    ) -> None:
        super().__init__()
        if original.state_dict():
            msg = f"A loss with parameters or buffers cannot be weighted, got {type(original).__name__} with some."
            raise ValueError(msg)
        object.__setattr__(self, "_original", original)  # past nn.Module, which would register it
        self._split = split
        self._get_weights = get_weights
        self._copies = copies
        self._compared = False

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the weighted loss of the batch, a scalar; the arguments are those of the original."""
        weights = self._get_weights()
        if weights is None:
            return self._original(*args, **kwargs)
        contributions = self._split(self._original, *args, **kwargs)
        if len(contributions) != self._copies * len(weights):
            msg = (
                f"The batch has {len(weights)} qualities, but the loss has {len(contributions)} rows; "
                f"{self._copies} for each sample were expected. `batch.quality` must hold one entry for each image."
            )
            raise ValueError(msg)
        if not self._compared:
            self._compare(contributions.detach().mean(), *args, **kwargs)
        return (weights.to(contributions.device).repeat(self._copies) * contributions).mean()

    @torch.no_grad()
    def _compare(self, found: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        expected = self._original(*args, **kwargs).to(found.dtype)
        if not torch.isclose(found, expected, rtol=_TOLERANCE, atol=1e-6, equal_nan=True):
            msg = (
                f"The per-sample losses of {type(self._original).__name__} average to {float(found):.6g}, its own "
                f"value is {float(expected):.6g}. This version of anomalib may compute it in another way: remove "
                "QualityWeightingCallback, or use anomalib 2.7. A `sample_reduction` of your own must return the mean."
            )
            raise RuntimeError(msg)
        self._compared = True

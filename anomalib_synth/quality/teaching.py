"""How much a detector can learn from a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BEST_VISIBILITY = 3.0  # chosen on two kinds of rendered parts, by benchmarks/quality.py


def rate_teaching(visibility: torch.Tensor, agreement: torch.Tensor, on_part: torch.Tensor) -> torch.Tensor:
    r"""Return how much a detector can learn from samples, in [0, 1].

    A sample teaches when it can be seen, but not at a glance: what stands far out of the noise is found without being
    learned, and what does not stand out at all cannot be. So the score is a hump over the visibility v, with its top at
    b = 3 times the noise of normals: :math:`(4 v b / (v + b)^2)^2`, symmetric over the logarithm. It is multiplied by
    the share of the intended area that changed, and by the share of the mask on the part. What it predicts, and what
    it does not, is in docs/results.md.

    Args:
        visibility: (N,) mean change in the mask over the noise of normals there, >= 0.
        agreement: (N,) share of the intended area that changed, >= 0.
        on_part: (N,) share of the mask on the part, in [0, 1].

    Example:
        >>> import torch
        >>> one = torch.ones(3)
        >>> rate_teaching(torch.tensor([0.6, 3.0, 15.0]), one, one)
        tensor([0.3086, 1.0000, 0.3086])
    """
    ratio = visibility / BEST_VISIBILITY  # products and quotients alone: the same bits whatever the batch
    hump = (4 * ratio / ((1 + ratio) * (1 + ratio))).clamp(max=1)
    return agreement.clamp(max=1) * on_part.clamp(max=1) * hump * hump

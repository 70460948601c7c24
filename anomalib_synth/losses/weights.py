"""From the qualities of a batch to one weight a sample."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch

from anomalib_synth.generators.seeding import hash64

WeightMode = Literal["softmax", "linear", "none", "shuffled"]
MIN_TEMPERATURE = 0.01
_HALVINGS = 40


class QualityWeights:
    r"""Gives each synthetic sample of a batch a weight by its quality, with mean 1; real images weigh exactly 1.

    After "QARAD" (arXiv 2508.03539), which weights synthetic samples by the softmax of their image-text similarity.
    We choose the temperature of the softmax from the batch, and use the weights before the loss is averaged: the
    authors' public code multiplies the batch loss by the mean weight, which only scales the learning rate.

    - ``softmax``: :math:`w = N \cdot \mathrm{softmax}(s / T)` over the N synthetic samples, with the temperature T at
      which the effective sample size :math:`(\sum w)^2 / \sum w^2` is ``effective_share`` of N. T is never below
      ``MIN_TEMPERATURE`` (0.01), so that differences of quality far below that do not decide; the share is then
      larger. So it is with few samples, since it cannot be below 1/N.
    - ``linear``: :math:`w = \max(w_{min}, (s - s_0) / (1 - s_0))`, rescaled to mean 1.
    - ``none``: every weight is 1. All else, checks included, is the same.
    - ``shuffled``: the control. The softmax weights of the batch, at random among its synthetic samples.

    Args:
        mode: One of the four above.
        effective_share: Effective sample size of the softmax, as a share of the synthetic samples, in (0, 1].
        linear_floor: Least weight before rescaling, :math:`w_{min}`, in (0, 1].
        linear_threshold: Quality at and below which a sample has that weight, :math:`s_0`, in [0, 1).
        seed: Seed of ``shuffled``. Global random state is never touched.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> weigh = QualityWeights(mode="linear", linear_floor=0.2, linear_threshold=0.5)
        >>> quality, synthetic = torch.tensor([1.0, 0.9, 0.6, 0.1]), torch.tensor([False, True, True, True])
        >>> weigh(quality, synthetic, step=0)
        tensor([1.0000, 2.0000, 0.5000, 0.5000])
    """

    def __init__(
        self,
        *,
        mode: WeightMode = "softmax",
        effective_share: float = 0.7,
        linear_floor: float = 0.1,
        linear_threshold: float = 0.0,
        seed: int = 0,
    ) -> None:
        if mode not in get_args(WeightMode):
            msg = f"`mode` must be one of {', '.join(get_args(WeightMode))}, got {mode!r}."
            raise ValueError(msg)
        for name, value in (("effective_share", effective_share), ("linear_floor", linear_floor)):
            if not 0 < value <= 1:
                msg = f"`{name}` must be in (0, 1], got {value}."
                raise ValueError(msg)
        if not 0 <= linear_threshold < 1:
            msg = f"`linear_threshold` must be in [0, 1), got {linear_threshold}."
            raise ValueError(msg)
        self.mode = mode
        self.effective_share = effective_share
        self.linear_floor = linear_floor
        self.linear_threshold = linear_threshold
        self.seed = seed

    def __call__(self, quality: torch.Tensor, synthetic: torch.Tensor, *, step: int) -> torch.Tensor:
        """Return the weights of a batch.

        Args:
            quality: (B,) in [0, 1].
            synthetic: (B,) bool.
            step: Number of the training step; only ``shuffled`` depends on it.

        Returns:
            (B,) float32 on the CPU.

        Raises:
            ValueError: If a quality is not in [0, 1], or the two do not have one entry a sample each.
        """
        quality, synthetic = quality.detach().cpu().double(), synthetic.detach().cpu().bool()
        _check(quality, synthetic)
        weights = torch.ones(len(quality))
        weights[synthetic] = self._weigh(quality[synthetic], step).float()
        return weights

    def _weigh(self, quality: torch.Tensor, step: int) -> torch.Tensor:
        """Return the weights of synthetic samples alone, (N,)."""
        if len(quality) < 2 or self.mode == "none":
            return torch.ones_like(quality)
        if self.mode == "linear":
            return linear_weights(quality, floor=self.linear_floor, threshold=self.linear_threshold)
        weights = softmax_weights(quality, effective_share=self.effective_share)
        return weights if self.mode == "softmax" else shuffle_weights(weights, seed=hash64(self.seed, step))


def softmax_weights(quality: torch.Tensor, *, effective_share: float) -> torch.Tensor:
    """Return (N,) softmax weights with mean 1, whose effective share is the one asked for if it can be reached.

    Args:
        quality: (N,) float64 on the CPU, N >= 1.
        effective_share: In (0, 1].
    """
    distance = quality - quality.max()
    weights = (_inverse_temperature(distance.numpy(), effective_share) * distance).exp()
    return weights / weights.mean()


def _inverse_temperature(distance: np.ndarray, effective_share: float) -> float:
    """Bisect the inverse temperature: the effective share is 1 at 0 and falls from there.

    Args:
        distance: (N,) quality less the highest; in NumPy, whose calls cost a fraction of torch's on so few numbers.
        effective_share: In (0, 1].
    """

    def reaches(inverse: float) -> bool:
        weights = np.exp(inverse * distance)
        return weights.sum() ** 2 >= effective_share * len(weights) * (weights @ weights)

    low, high = 0.0, 1 / MIN_TEMPERATURE
    if reaches(high):
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return low


def linear_weights(quality: torch.Tensor, *, floor: float, threshold: float) -> torch.Tensor:
    """Return (N,) weights with mean 1, linear in the quality above the threshold.

    Args:
        quality: (N,), N >= 1.
        floor: Least weight before rescaling, in (0, 1].
        threshold: Quality whose weight is 0 before the floor is applied, in [0, 1).
    """
    weights = ((quality - threshold) / (1 - threshold)).clamp(min=floor)
    return weights / weights.mean()


def shuffle_weights(weights: torch.Tensor, *, seed: int) -> torch.Tensor:
    """Return (N,) weights in an order drawn from the seed."""
    return weights[torch.randperm(len(weights), generator=torch.Generator().manual_seed(seed))]


def measure_effective_share(weights: torch.Tensor) -> float:
    """Return the effective sample size of (N,) weights as a share of N, in [1/N, 1].

    Example:
        >>> measure_effective_share(torch.tensor([1.0, 1.0, 0.0, 0.0]))
        0.5
    """
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


def _check(quality: torch.Tensor, synthetic: torch.Tensor) -> None:
    if quality.ndim != 1 or quality.shape != synthetic.shape:
        msg = (
            "`quality` and `synthetic` must have one entry a sample, (B,), got "
            f"{tuple(quality.shape)} and {tuple(synthetic.shape)}. Whatever sets them in the batch must set both."
        )
        raise ValueError(msg)
    wrong = quality[~((quality >= 0) & (quality <= 1))]  # so written, NaN is wrong too
    if len(wrong):
        msg = (
            f"`quality` must be in [0, 1] for every sample, got {float(wrong[0])}. Rescale the score of the generator, "
            "or of whatever sets `batch.quality`."
        )
        raise ValueError(msg)

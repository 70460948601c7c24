"""From the qualities of a run to one weight a sample."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch

from anomalib_synth.generators.seeding import hash64

WeightMode = Literal["softmax", "linear", "none", "shuffled"]
MIN_TEMPERATURE = 0.01
LEAST_SEEN = 32
_HALVINGS = 40


class QualityWeights:
    r"""Gives each synthetic sample a weight by its quality, with mean 1 over the run; real images weigh exactly 1.

    After "QARAD" (arXiv 2508.03539), which weights synthetic samples by the softmax of their image-text similarity.
    The authors' public code multiplies the batch loss by the mean weight, which only scales the learning rate; we use
    the weights before the loss is averaged. And we take N to be the last ``history`` synthetic samples of the run,
    those of the batch included: a batch of a few would set another temperature at every step, and would rescale the
    best of three bad samples to the weight of the best of three good ones.

    - ``softmax``: :math:`w = N \cdot \mathrm{softmax}(s / T)` over these N, with the temperature T at which their
      effective sample size :math:`(\sum w)^2 / \sum w^2` is ``effective_share`` of N. T is never below
      ``MIN_TEMPERATURE`` (0.01), so that differences of quality far below that do not decide; the share is then larger.
    - ``linear``: :math:`w = \max(w_{min}, (s - s_0) / (1 - s_0))`, rescaled to mean 1 over these N.
    - ``none``: every weight is 1. All else, checks included, is the same.
    - ``shuffled``: the control. Each synthetic sample gets the softmax weight of one of these N, drawn at random.

    The mean is 1 over the N, and so in expectation over the run; that of one batch is what its samples deserve, and is
    not rescaled. Until ``LEAST_SEEN`` (32) samples were seen, every weight is 1. Weights depend on the qualities seen
    so far and on their order, on nothing else: with :meth:`state_dict` a resumed run goes on as it would have.

    Args:
        mode: One of the four above.
        effective_share: Effective sample size of the softmax, as a share of the synthetic samples, in (0, 1].
        linear_floor: Least weight before rescaling, :math:`w_{min}`, in (0, 1].
        linear_threshold: Quality at and below which a sample has that weight, :math:`s_0`, in [0, 1).
        history: Number of the latest synthetic samples that set temperature and scale, >= 32.
        seed: Seed of ``shuffled``. Global random state is never touched.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> weigh = QualityWeights(mode="linear", linear_floor=0.2, linear_threshold=0.5)
        >>> quality, synthetic = torch.tensor([1.0, 0.9, 0.6, 0.1]), torch.tensor([False, True, True, True])
        >>> weigh(quality, synthetic, step=0)  # too few were seen
        tensor([1., 1., 1., 1.])
        >>> for step in range(1, 11):
        ...     weights = weigh(quality, synthetic, step=step)
        >>> weights
        tensor([1.0000, 2.0000, 0.5000, 0.5000])
    """

    def __init__(
        self,
        *,
        mode: WeightMode = "softmax",
        effective_share: float = 0.7,
        linear_floor: float = 0.1,
        linear_threshold: float = 0.0,
        history: int = 512,
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
        if isinstance(history, bool) or not isinstance(history, int) or history < LEAST_SEEN:
            msg = (
                f"`history` must be a whole number >= {LEAST_SEEN}, got {history!r}: fewer samples do not say how "
                "qualities are spread."
            )
            raise ValueError(msg)
        self.mode = mode
        self.effective_share = effective_share
        self.linear_floor = linear_floor
        self.linear_threshold = linear_threshold
        self.history = history
        self.seed = seed
        self._seen = torch.zeros(0, dtype=torch.float64)

    def __call__(self, quality: torch.Tensor, synthetic: torch.Tensor, *, step: int) -> torch.Tensor:
        """Remember the qualities of a batch, and return its weights.

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
        own = quality[synthetic]
        self._seen = torch.cat([self._seen, own])[-self.history :]
        if self.mode != "none" and len(own) and len(self._seen) >= LEAST_SEEN:
            weights[synthetic] = self._weigh(own, step).float()
        return weights

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the qualities that weights depend on."""
        return {"seen": self._seen.clone()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from the qualities of :meth:`state_dict`."""
        self._seen = state["seen"].detach().cpu().double()[-self.history :]

    def forget(self) -> None:
        """Forget all qualities seen: another run begins."""
        self._seen = torch.zeros(0, dtype=torch.float64)

    def _weigh(self, quality: torch.Tensor, step: int) -> torch.Tensor:
        """Return the weights of synthetic samples alone, (N,)."""
        if self.mode == "shuffled":
            quality = draw_qualities(self._seen, len(quality), seed=hash64(self.seed, step))
        if self.mode == "linear":
            return linear_weights(quality, self._seen, floor=self.linear_floor, threshold=self.linear_threshold)
        return softmax_weights(quality, self._seen, effective_share=self.effective_share)


def softmax_weights(quality: torch.Tensor, seen: torch.Tensor, *, effective_share: float) -> torch.Tensor:
    """Return (N,) softmax weights with mean 1 over all that were seen, and there with the effective share asked for.

    Args:
        quality: (N,) float64 on the CPU.
        seen: (M,) float64, the qualities that set temperature and scale, M >= 1.
        effective_share: In (0, 1]; the weights' own is larger where the temperature would be below the least.
    """
    best = seen.max()
    inverse = _inverse_temperature((seen - best).numpy(), effective_share)
    return (inverse * (quality - best)).exp() / (inverse * (seen - best)).exp().mean()


def _inverse_temperature(distance: np.ndarray, effective_share: float) -> float:
    """Bisect the inverse temperature: the effective share is 1 at 0 and falls from there.

    Args:
        distance: (M,) quality less the highest; in NumPy, whose calls cost a fraction of torch's on so few numbers.
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


def linear_weights(quality: torch.Tensor, seen: torch.Tensor, *, floor: float, threshold: float) -> torch.Tensor:
    """Return (N,) weights, linear in the quality above the threshold, with mean 1 over all that were seen.

    Args:
        quality: (N,).
        seen: (M,), the qualities that set the scale, M >= 1.
        floor: Least weight before rescaling, in (0, 1].
        threshold: Quality whose weight is 0 before the floor is applied, in [0, 1).
    """
    mine, all_of_them = (((each - threshold) / (1 - threshold)).clamp(min=floor) for each in (quality, seen))
    return mine / all_of_them.mean()


def draw_qualities(seen: torch.Tensor, count: int, *, seed: int) -> torch.Tensor:
    """Return (count,) of the qualities seen, drawn with replacement from the seed."""
    return seen[torch.randint(len(seen), (count,), generator=torch.Generator().manual_seed(seed))]


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

"""The learning rate of the heads: one cycle over the remaining steps of the run."""

from __future__ import annotations

import math


class OneCycle:
    """Factor on the learning rate, for ``LambdaLR``: rises from 0.04 to 1 along half a cosine, then falls to 4e-6.

    After "Super-Convergence" (arXiv 1708.07120), with cosines, as in torch's ``OneCycleLR``. It is an object, not a
    function, so that a checkpoint stores where the cycle began: optimisers renewed during a run get a cycle over the
    remaining steps.

    Args:
        steps: Number of steps of the cycle; values below 1 count as 1.
        start: Number of steps of the run before the cycle.
        warm_up: Share of the steps in which the rate rises, in (0, 1).

    Example:
        >>> cycle = OneCycle(10)
        >>> round(cycle(0), 6), cycle(3), cycle(10) < 1e-3
        (0.04, 1.0, True)
    """

    def __init__(self, steps: int, *, start: int = 0, warm_up: float = 0.3) -> None:
        self.steps = max(1, steps)
        self.start = start
        self.warm_up = warm_up

    def __call__(self, step: int) -> float:
        """Return the factor at a step of the cycle, counted from 0."""
        done = min(step / self.steps, 1.0)
        first, last = 0.04, 4e-6
        if done < self.warm_up:
            return _between(first, 1.0, done / self.warm_up)
        return _between(1.0, last, (done - self.warm_up) / (1 - self.warm_up))


def _between(start: float, end: float, share: float) -> float:
    """Interpolate from start to end along half a cosine; ``share`` is in [0, 1]."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

"""Generators that misbehave, by class path: worker processes build them from their config."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from anomalib_synth.generators import RuleBasedGenerator

if TYPE_CHECKING:
    import torch

    from anomalib_synth.generators import Condition
    from anomalib_synth.sample import AnomalySample


class DyingGenerator(RuleBasedGenerator):
    """Takes its process with it, as the system does when memory runs out."""

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().draw(images, seeds, condition)


class FailingGenerator(RuleBasedGenerator):
    """Raises what nobody expects, on some samples."""

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        if any(seed % 5 == 0 for seed in seeds):
            msg = "out of ideas"
            raise RuntimeError(msg)
        return super().draw(images, seeds, condition)


class SwappingGenerator(RuleBasedGenerator):
    """Gives samples of other images than it is asked to draw on."""

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        return super().draw(images.flip(-1), seeds, condition)


class SlowGenerator(RuleBasedGenerator):
    """Takes its time, so that a run can be met while it works."""

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        import time

        time.sleep(0.05 * len(seeds))
        return super().draw(images, seeds, condition)

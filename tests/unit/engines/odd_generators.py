"""Generators that misbehave, by class path: worker processes build them from their config."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from anomalib_synth.generators import RuleBasedGenerator

if TYPE_CHECKING:
    import torch

    from anomalib_synth.sample import AnomalySample


class DyingGenerator(RuleBasedGenerator):
    """Takes its process with it, as the system does when memory runs out."""

    def _draw(self, images: torch.Tensor, seeds: list[int], masks: torch.Tensor | None) -> AnomalySample:
        os.kill(os.getpid(), signal.SIGKILL)
        return super()._draw(images, seeds, masks)


class FailingGenerator(RuleBasedGenerator):
    """Raises what nobody expects, on some samples."""

    def _draw(self, images: torch.Tensor, seeds: list[int], masks: torch.Tensor | None) -> AnomalySample:
        if any(seed % 5 == 0 for seed in seeds):
            msg = "out of ideas"
            raise RuntimeError(msg)
        return super()._draw(images, seeds, masks)


class SwappingGenerator(RuleBasedGenerator):
    """Gives samples of other images than it is asked to draw on."""

    def _draw(self, images: torch.Tensor, seeds: list[int], masks: torch.Tensor | None) -> AnomalySample:
        return super()._draw(images.flip(-1), seeds, masks)


class SlowGenerator(RuleBasedGenerator):
    """Takes its time, so that a run can be met while it works."""

    def _draw(self, images: torch.Tensor, seeds: list[int], masks: torch.Tensor | None) -> AnomalySample:
        import time

        time.sleep(0.05 * len(seeds))
        return super()._draw(images, seeds, masks)

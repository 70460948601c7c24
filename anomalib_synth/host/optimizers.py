"""Renews the optimisers during a run.

Relies on ``Strategy.setup_optimizers`` of Lightning 2, and on ``base_lrs``, ``max_lrs`` and ``_schedulers`` of PyTorch
2's learning rate schedulers; a chain or a sequence keeps its schedulers in the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def renew_optimizers(trainer: Trainer, factor: float) -> None:
    """Make fresh optimisers and schedulers as at the start of training, with each learning rate times ``factor``."""
    trainer.strategy.setup_optimizers(trainer)
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for name in ("lr", "initial_lr", "max_lr", "min_lr"):  # cyclic schedules use the last two
                if name in group:
                    group[name] = group[name] * factor
    for config in trainer.lr_scheduler_configs:
        _scale_base_rates(config.scheduler, factor)


def _scale_base_rates(scheduler: Any, factor: float) -> None:
    for name in ("base_lrs", "max_lrs"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, [rate * factor for rate in getattr(scheduler, name)])
    for inner in getattr(scheduler, "_schedulers", ()):  # in a chain or a sequence of schedulers
        _scale_base_rates(inner, factor)

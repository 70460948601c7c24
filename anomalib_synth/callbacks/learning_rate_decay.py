"""A learning rate that decays over the run, for models that keep theirs constant."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from anomalib_synth.callbacks.restoring import require_single
from anomalib_synth.callbacks.schedule import RunLimits

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class LearningRateDecayCallback(Callback):
    """Lowers the learning rate of every optimiser along half a cosine (arXiv 1608.03983, equation 5, one cycle).

    It is for models that train at a constant rate, such as GLASS and RealNet. In a short run on synthetic defects their
    last steps still move the scores, so that the result depends on the last batches. The callback works with automatic
    and manual optimisation. The decay follows ``max_epochs`` or ``max_steps``, whichever ends the run first. A resumed
    run continues it. Optimisers that ``TwoStageTrainingCallback`` renews decay from the rate they start with.

    Args:
        final_factor: Share of the first learning rate that is left at the end, in [0, 1].

    Raises:
        ValueError: If ``final_factor`` is out of its range; at the start of training, if the run has no end, or the
            model has a schedule of its own.

    Example:
        >>> callback = LearningRateDecayCallback(final_factor=0.01)
    """

    def __init__(self, *, final_factor: float = 0.01) -> None:
        super().__init__()
        if not 0 <= final_factor <= 1:
            msg = f"`final_factor` must be in [0, 1], got {final_factor}."
            raise ValueError(msg)
        self.final_factor = final_factor
        self._limits = RunLimits()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the length of the run, and refuse a model that has a schedule of its own."""
        require_single(trainer, self, "Each would set the learning rate. Remove all but one.")
        if trainer.lr_scheduler_configs:
            msg = (
                f"LearningRateDecayCallback sets the learning rate, but {type(pl_module).__name__} has a schedule of "
                "its own. Remove the callback."
            )
            raise ValueError(msg)
        self._limits = RunLimits.of(trainer)
        if math.isinf(self._limits.steps) and math.isinf(self._limits.epochs):
            msg = (
                "LearningRateDecayCallback decays over the whole run, but this run has no known length. Set "
                "`trainer.max_epochs` or `trainer.max_steps`."
            )
            raise ValueError(msg)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the learning rate for the next step."""
        del pl_module, batch
        epochs = trainer.current_epoch + batch_idx / self._limits.batches
        done = max(epochs / self._limits.epochs, trainer.global_step / self._limits.steps)
        factor = decay_factor(done, self.final_factor)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor  # checkpoints keep `initial_lr`


def decay_factor(done: float, final: float) -> float:
    """Return the factor on the first learning rate after a share of the run.

    Args:
        done: Share of the run that is done, in [0, 1].
        final: The factor at its end.

    Example:
        >>> decay_factor(0.0, 0.1), round(decay_factor(0.5, 0.1), 6), round(decay_factor(1.0, 0.1), 6)
        (1.0, 0.55, 0.1)
    """
    return final + (1 - final) * (1 + math.cos(math.pi * min(done, 1.0))) / 2

"""A callback that changes a model for the length of a fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lightning.pytorch import Callback

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class RestoringCallback(Callback, ABC):
    """Undoes what it changed however the fit ends: as planned, by an error, or by the trainer's teardown.

    All callbacks of a trainer that do so restore together, the last one first: two may have changed the same module,
    and the one that came later keeps what the earlier one put there. One that fails does not keep the others from it.
    """

    @abstractmethod
    def restore(self) -> None:
        """Put back what was changed; called up to three times a fit, so the second call must do nothing."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back what was changed."""
        del pl_module
        restore_all(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put back what was changed."""
        del pl_module, exception
        restore_all(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put back what was changed."""
        del pl_module, stage
        restore_all(trainer)


def restore_all(trainer: Trainer) -> None:
    """Have every restoring callback of a trainer put back what it changed, the last one first."""
    with ExitStack() as stack:
        for callback in trainer.callbacks:
            if isinstance(callback, RestoringCallback):
                stack.callback(callback.restore)


def require_single(trainer: Trainer, callback: Callback, remedy: str) -> None:
    """Refuse a second callback of the same kind.

    Args:
        trainer: The trainer.
        callback: One of them.
        remedy: What to do instead.

    Raises:
        ValueError: If there are several.
    """
    kind = type(callback)
    count = sum(isinstance(each, kind) for each in trainer.callbacks)
    if count > 1:
        msg = (
            f"`trainer.callbacks` must hold one {kind.__name__}, got {count}. {remedy} Of two configurations, "
            "`callbacks:` in the second replaces the first's list, `callbacks+:` appends to it."
        )
        raise ValueError(msg)

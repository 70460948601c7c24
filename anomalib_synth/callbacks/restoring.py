"""The base of callbacks that change a model for the duration of a fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lightning.pytorch import Callback

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class RestoringCallback(Callback, ABC):
    """Undoes its changes however the fit ends: normally, by an error, or by the trainer's teardown.

    All such callbacks of a trainer restore together, the last one first: if two have changed the same module, the later
    one has kept what the earlier one put there. If one fails, the others still restore.
    """

    @abstractmethod
    def restore(self) -> None:
        """Put back what was changed. A fit may call this up to three times; later calls must do nothing."""

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
    """Call ``restore`` of every restoring callback of a trainer, the last one first."""
    with ExitStack() as stack:
        for callback in trainer.callbacks:
            if isinstance(callback, RestoringCallback):
                stack.callback(callback.restore)


def require_single(trainer: Trainer, callback: Callback, remedy: str) -> None:
    """Refuse a second callback of the same kind.

    Args:
        trainer: The trainer.
        callback: The callback that must be the only one of its class.
        remedy: A sentence that says what to do instead.

    Raises:
        ValueError: If there are several.
    """
    kind = type(callback)
    count = sum(isinstance(each, kind) for each in trainer.callbacks)
    if count > 1:
        msg = (
            f"`trainer.callbacks` must hold one {kind.__name__}, got {count}. {remedy} With two config files, "
            "`callbacks:` in the second replaces the list of the first, and `callbacks+:` appends to it."
        )
        raise ValueError(msg)

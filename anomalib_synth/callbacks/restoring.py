"""A callback that changes a model for the length of a fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lightning.pytorch import Callback

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class RestoringCallback(Callback, ABC):
    """Undoes what it changed however the fit ends: as planned, by an error, or by the trainer's teardown."""

    @abstractmethod
    def restore(self) -> None:
        """Put back what was changed; called up to three times a fit, so the second call must do nothing."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back what was changed."""
        del trainer, pl_module
        self.restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put back what was changed."""
        del trainer, pl_module, exception
        self.restore()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put back what was changed."""
        del trainer, pl_module, stage
        self.restore()

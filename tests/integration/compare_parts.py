"""Parts of a comparison that a fresh process finds by their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class FailsWhenValidated(Callback):
    """Fails when the training looks at validation images."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail."""
        del trainer, pl_module
        msg = "validation images played a part in the training"
        raise AssertionError(msg)


class FailsWithout(Callback):
    """Fails when training starts with seed 0, unless a file is there.

    Args:
        file: The file.
        seed: Seed of the run; the comparison gives it.
    """

    def __init__(self, file: Path, *, seed: int = 99) -> None:
        self.file = file
        self.seed = seed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail."""
        del trainer, pl_module
        if self.seed == 0 and not Path(self.file).is_file():
            msg = "the <file> is missing"
            raise ValueError(msg)

"""The loop that `anomalib predict` runs, for images that are drawn or read while it runs."""

from __future__ import annotations

import logging
import tempfile
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anomalib_synth.host.interrupts import passing_interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Callback
    from torch.utils.data import DataLoader
    from torchvision.transforms.v2 import Transform

    from anomalib_synth.calibration.training_run import Inference

_LOUD = ("anomalib", "lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric", "pytorch_lightning")


def run_predict_loop(
    model: AnomalibModule,
    checkpoint: Path | None,
    loader: DataLoader,
    collector: Callback,
    *,
    inference: Inference,
    accelerator: str,
) -> None:
    """Run the loop of `anomalib predict`; nothing is printed or written.

    Args:
        model: The model.
        checkpoint: Its checkpoint, restored as `anomalib predict --ckpt_path` does; None where the model has its
            weights already.
        loader: Gives batches as anomalib's datasets do.
        collector: Takes the predictions out of the loop.
        inference: The tiler, callbacks and precision that the training run used.
        accelerator: Lightning's name of the device: ``"auto"``, ``"cpu"``, ``"gpu"``.

    Raises:
        ValueError: If the checkpoint does not fit the model.
        KeyboardInterrupt: If the user interrupts; Lightning does not swallow it here.
    """
    from anomalib.engine import Engine

    model.visualizer = model.evaluator = None  # one would write pictures, the other would measure labels
    with tempfile.TemporaryDirectory() as folder, quiet_host(), passing_interrupts():
        engine = Engine(
            callbacks=[*inference.callbacks, collector],
            precision=inference.precision,
            default_root_dir=folder,
            accelerator=accelerator,
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            engine.predict(model, dataloaders=loader, ckpt_path=checkpoint, return_predictions=False)
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            msg = (
                f"`model` {type(model).__name__} does not fit the checkpoint {str(checkpoint)!r}: "
                f"{str(error).splitlines()[1].strip()} Give the class or the configuration it was trained with."
            )
            raise ValueError(msg) from error


def first_resize(transform: Transform | None) -> Transform | None:
    """Return the resize that a transform begins with, None for none: it can be applied before images are batched."""
    from torchvision.transforms.v2 import Compose, Resize

    first = first_resize(transform.transforms[0]) if isinstance(transform, Compose) else transform
    return first if isinstance(first, Resize) else None


def as_it_is(batch: ImageBatch) -> ImageBatch:
    """Return a batch unchanged: the collate function of loaders whose dataset yields batches."""
    return batch


@contextmanager
def quiet_host() -> Iterator[None]:
    """Keep Lightning's and anomalib's remarks on a run of the trainer off the screen, but no error."""
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for category in (UserWarning, FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(lightning|torchmetrics|anomalib)\b")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

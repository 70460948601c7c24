"""Trains one candidate as `anomalib train` does, and leaves a run folder that every command accepts."""

from __future__ import annotations

import contextlib
import copy
import io
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from anomalib_synth.calibration.predict_loop import quiet_host
from anomalib_synth.host.from_config import build_object
from anomalib_synth.host.interrupts import passing_interrupts
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anomalib.models import AnomalibModule
    from lightning.pytorch import Callback

_CHECKPOINT = Path("weights") / "lightning" / "model.ckpt"


def checkpoint_of(folder: Path) -> Path:
    """Return the checkpoint of a run."""
    return folder / _CHECKPOINT


def train_candidate(
    config: dict[str, Any], folder: Path, *, advance: Callable[[float], None] = lambda _: None
) -> float:
    """Train the model of a configuration.

    Args:
        config: A configuration of ``anomalib train``.
        folder: Folder for ``config.yaml`` and the checkpoint; it is emptied first. The checkpoint is written whole or
            not at all.
        advance: Called with the share of the steps that is done, in [0, 1].

    Returns:
        The seconds that training took.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_whole(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode())
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        trainer, _ = fit(config, Path(work), [_make_counter(advance)])
        made = Path(work) / "model.ckpt"
        with quiet_host():
            trainer.save_checkpoint(made)
        checkpoint_of(folder).parent.mkdir(parents=True)
        made.replace(checkpoint_of(folder))
    return time.perf_counter() - started


def fit(config: dict[str, Any], work: Path, callbacks: list[Callback]) -> tuple[Any, AnomalibModule]:
    """Build what a configuration describes and train it; return the trainer and the model.

    Raises:
        KeyboardInterrupt: If the user presses Ctrl-C, which Lightning would swallow.
    """
    from anomalib.data import AnomalibDataModule
    from anomalib.engine import Engine
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Callback, seed_everything

    import anomalib_synth  # noqa: F401  (registers the backbone)

    config = copy.deepcopy(config)  # jsonargparse builds parts in place
    settings = dict(config["trainer"])
    own = [
        build_object(Callback, section, "The configuration's `callbacks`") for section in settings.pop("callbacks", [])
    ]
    with quiet_host(), _no_bars(), passing_interrupts():
        seed_everything(config["seed_everything"], workers=True, verbose=False)
        model = build_object(AnomalibModule, config["model"], "The configuration's `model`")
        datamodule = build_object(AnomalibDataModule, config["data"], "The configuration's `data`")
        engine = Engine(
            callbacks=[*own, *callbacks], default_root_dir=work, logger=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, **settings,
        )  # fmt: skip
        engine.fit(model, datamodule=datamodule)
    return engine.trainer, model


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Keep anomalib's progress bars off the screen, where one bar shows the whole build."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _make_counter(advance: Callable[[float], None]) -> Callback:
    from lightning.pytorch import Callback

    class Counter(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
            total = trainer.max_steps if trainer.max_steps > 0 else trainer.num_training_batches
            advance(min(1.0, done / max(1, total)))

    return Counter()

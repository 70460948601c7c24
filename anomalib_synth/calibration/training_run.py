"""Reads from a run's configuration how its model predicts, and which images it may have been trained on.

`anomalib train` writes a ``config.yaml`` three folders above its checkpoint. A checkpoint holds neither the callbacks
that change how a model predicts, such as the tiler, nor the images.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth.host.from_config import build_object
from anomalib_synth.host.splits import find_datasets, list_files, lists_in_order

if TYPE_CHECKING:
    from lightning.pytorch import Callback

_CALIBRATIONS = 4  # times the origin of a calibrated checkpoint is followed
_LEVELS = 4  # <run>/weights/lightning/model.ckpt and <run>/config.yaml, with a folder to spare
_ACT_ONLY_IN_TRAINING = {"anomalib_synth", "lightning", "pytorch_lightning"}  # packages
_TILER = "TilerConfigurationCallback"
_PREDICTING = (
    "setup",
    "on_predict_start",
    "on_predict_epoch_start",
    "on_predict_batch_start",
    "on_predict_batch_end",
)


@dataclass(frozen=True)
class Inference:
    """The settings besides its checkpoint that change a model's scores.

    Args:
        callbacks: Callbacks that act while predicting.
        precision: Precision of the trainer, None for its default.
    """

    callbacks: list[Callback] = field(default_factory=list)
    precision: str | int | None = None

    def describe(self) -> str:
        """Return what a prediction must do too to give the same labels, ``""`` for nothing."""
        parts = [type(callback).__name__ for callback in self.callbacks]
        parts += [] if self.precision is None else [f"precision {self.precision}"]
        if not parts:
            return ""
        return (
            f"Scored with {' and '.join(parts)}, as the model was trained. A checkpoint does not hold that: predict "
            "with the same, or the threshold does not fit."
        )


def find_config(checkpoint: Path) -> Path | None:
    """Return the configuration that `anomalib train` wrote above a checkpoint, None if it is not there.

    A calibrated checkpoint may lie elsewhere: the ``calibration.json`` beside it, or above what `learn` made of it,
    says which one it was made from.
    """
    for _ in range(_CALIBRATIONS):
        config = _find_above(checkpoint)
        origins = [] if config else map(_read_origin, list(checkpoint.resolve().parents)[:2])
        origin = next((path for path in origins if path), None)
        if origin is None:
            return config
        checkpoint = origin
    return None


def _read_origin(folder: Path) -> Path | None:
    """Return the checkpoint that was calibrated, as the report in a folder says; None if there is none."""
    try:
        origin = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))["settings"]["checkpoint"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Path(origin) if isinstance(origin, str) else None


def _find_above(checkpoint: Path) -> Path | None:
    for folder in list(checkpoint.resolve().parents)[:_LEVELS]:
        path = folder / "config.yaml"
        section = read_config(path).get("model") if path.is_file() else None
        if isinstance(section, dict) and "class_path" in section:
            return path
    return None


def read_config(path: Path) -> dict[str, Any]:
    """Return what a configuration says.

    Raises:
        ValueError: If it cannot be read.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        msg = f"`model` must be a readable configuration, got {str(path)!r}: {error}"
        raise ValueError(msg) from error
    return content if isinstance(content, dict) else {}


def read_inference(config: Path) -> Inference:
    """Return what a run's trainer changes about predictions: the tiler, the user's own callbacks, the precision.

    Raises:
        ValueError: If a callback that may change predictions cannot be built.
    """
    from lightning.pytorch import Callback

    trainer = read_config(config).get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    listed = trainer.get("callbacks") or []
    callbacks = []
    for section in listed if isinstance(listed, list) else [listed]:
        path = section.get("class_path", "") if isinstance(section, dict) else section
        if isinstance(path, str) and _acts_while_predicting(path):
            callbacks.append(build_object(Callback, section, "The configuration's `callbacks`"))
    return Inference(callbacks, trainer.get("precision"))


def tile(settings: dict[str, Any]) -> Inference:
    """Return predictions through anomalib's tiler with these settings; without settings, there is no tiler.

    Raises:
        ValueError: If the tiler does not take these settings.
    """
    if not settings:
        return Inference()
    from lightning.pytorch import Callback

    section = {"class_path": f"anomalib.callbacks.{_TILER}", "init_args": {"enable": True, **settings}}
    return Inference([build_object(Callback, section, "The configuration's `tiler`")])


def _acts_while_predicting(path: str) -> bool:
    """Return whether callbacks of a class can change what a model predicts, given its checkpoint."""
    from lightning.pytorch import Callback

    module, _, name = path.rpartition(".")
    package = path.split(".", maxsplit=1)[0]
    if package == "anomalib" or not module:  # the others write, count, or load weights that the checkpoint overwrites
        return name == _TILER
    if package in _ACT_ONLY_IN_TRAINING:
        return False
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = (
            f"The run had the callback {path}, which cannot be found ({error}), so nobody can tell how its model "
            "predicts. Install its package, or take it out of the configuration if it only acts while training."
        )
        raise ValueError(msg) from error
    return any(getattr(found, hook, None) is not getattr(Callback, hook) for hook in _PREDICTING)


def training_images(config: Path, *, known_folder: bool = False) -> list[str]:
    """Return every normal image that the model of a configuration may have been trained on: rather too many.

    The files are listed and no split is drawn: which files of the training folder a run held out at random is not
    known, so all of them are returned. A datamodule of another package may split at random while it lists, so all its
    normals are returned, unless the user named the training folder.

    Args:
        config: The configuration.
        known_folder: Whether the user named the training folder.

    Raises:
        ValueError: If the images cannot be listed; the message is a clause that says why.
    """
    from anomalib.data import AnomalibDataModule
    from anomalib.data.datasets import AnomalibVideoDataset

    section = read_config(config).get("data")
    if not section:
        msg = f"{config} has no `data`"
        raise ValueError(msg)
    datamodule = build_object(AnomalibDataModule, section, "The configuration's `data`")
    while isinstance(getattr(datamodule, "base", None), AnomalibDataModule):
        datamodule = datamodule.base
    try:
        list_files(datamodule)  # anomalib draws its splits afterwards
        train = datamodule.train_data
        everything = not known_folder and not lists_in_order(datamodule)
        datasets = find_datasets(datamodule) if everything else [train]
        paths = {str(path) for each in datasets for path in each.samples.image_path[each.samples.label_index == 0]}
    except Exception as error:  # whatever a datamodule of any package raises
        msg = f"the images of {config} could not be listed ({error})"
        raise ValueError(msg) from error
    if not paths or isinstance(train, AnomalibVideoDataset):
        msg = f"the images of {config} could not be listed ({'a video' if paths else 'no normal image'} was found)"
        raise ValueError(msg)
    return sorted(paths)

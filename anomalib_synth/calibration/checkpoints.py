"""Reads an anomalib checkpoint, builds its model, and checks that it holds all that the model does to an image.

A checkpoint of anomalib holds weights, hyper-parameters, the pre-processor's transform (where that consists of a few
known ones) and the post-processor's settings, but not the name of its class.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from anomalib_synth.calibration.found_config import check_found_config, check_names
from anomalib_synth.calibration.training_run import find_config, read_config
from anomalib_synth.data.normals import model_transform
from anomalib_synth.host.from_config import build_object
from anomalib_synth.store import StoreError
from anomalib_synth.store.files import raise_when_full

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib.models import AnomalibModule

_CONFIG_SUFFIXES = {".yaml", ".yml", ".json"}
_PRE_PROCESSOR = "anomalib_pre_processor_config"


def read_checkpoint(path: Path, *, allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """Read a checkpoint without unpickling anything but tensors, plain data and anomalib's own settings.

    Args:
        path: The file.
        allowed: Further types that the model's hyper-parameters may hold, as its ``checkpoint_safe_globals()`` names
            them.

    Raises:
        ValueError: If there is no such file, or it is not a checkpoint of anomalib.
    """
    from anomalib.utils.serialization import anomalib_safe_globals

    if not path.is_file():
        msg = f"`checkpoint` must be a checkpoint of anomalib (.ckpt), got {str(path)!r}, which is no file."
        raise ValueError(msg)
    try:
        with anomalib_safe_globals(extra=[*allowed, *_settings_of_models()]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, KeyError) as error:
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines()
        msg = (
            f"`checkpoint` must be a checkpoint of anomalib >= 2.7 that loads as plain data, got {str(path)!r}: "
            f"{reason[0] if reason else type(error).__name__} Save it again with the anomalib that is installed."
        )
        raise ValueError(msg) from error
    if not isinstance(loaded, dict) or not {"state_dict", "hyper_parameters", "anomalib_components_enabled"} <= {
        *loaded
    }:
        msg = (
            f"`checkpoint` must be a Lightning checkpoint that anomalib >= 2.7 saved, got {str(path)!r}, which lacks "
            "its state, hyper-parameters or components. Give the file under weights/lightning/, no exported model."
        )
        raise ValueError(msg)
    return loaded


def save_checkpoint(loaded: dict[str, Any], path: Path) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        StoreError: If the disk is full.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        torch.save(loaded, name)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except RuntimeError as error:  # torch's words for a disk that takes no more
        reason = str(error).splitlines()[0][:200]
        msg = (
            f"{str(path)!r} could not be written ({reason}). Is the disk full? Free space and run the same command "
            "again."
        )
        raise StoreError(msg) from error
    except OSError as error:
        raise_when_full(error, path)
        raise
    finally:
        Path(name).unlink(missing_ok=True)


def load_model(model: str | None, checkpoint: Path, loaded: dict[str, Any]) -> tuple[AnomalibModule, Path | None]:
    """Build the model of a checkpoint.

    Args:
        model: A configuration file, a class path or the name of a model of anomalib; None looks for the configuration
            next to the checkpoint.
        checkpoint: The file.
        loaded: Content of the checkpoint.

    Returns:
        The model, and the configuration it was trained with, if there is one.

    Raises:
        ValueError: If the class is not known, the class or configuration does not fit the checkpoint, or a
            configuration found next to the checkpoint, or its hyper-parameters, name code of other packages or a hub.
    """
    config = find_config(checkpoint)
    if model is not None and Path(model).suffix.lower() in _CONFIG_SUFFIXES:
        config = Path(model)
    else:
        check_names(loaded["hyper_parameters"], checkpoint)
        if config is not None:
            check_found_config(read_config(config), config)
    if model is not None and config != Path(model):
        restored = _from_class(_find_class(model), checkpoint, loaded)
        default = restored.configure_pre_processor()
        if restored.pre_processor is not None and _PRE_PROCESSOR not in loaded:
            _refuse_lost("a pre-processor of another package", checkpoint)
        _check_transform(restored, getattr(default, "transform", None), checkpoint)
        return restored, config
    if config is None:
        folders = [name for name in checkpoint.resolve().parts[:-1] if hasattr(_models(), name)]
        hint = f" Its folders suggest `--model {folders[-1]}`." if folders else ""
        msg = (
            f"`model` must be given: a checkpoint does not name its class, and no config.yaml of `anomalib train` was "
            f"found above {str(checkpoint)!r}. Give a class path such as anomalib.models.Patchcore, or the training "
            f"configuration.{hint}"
        )
        raise ValueError(msg)
    built = _from_config(config)
    trained_with = model_transform(built)
    built.on_load_checkpoint(loaded)
    _check_transform(built, trained_with, checkpoint)
    return built, config


def _check_transform(model: AnomalibModule, expected: Any, checkpoint: Path) -> None:
    """Refuse a model whose transform got lost on the way into its checkpoint.

    anomalib saves transforms of a few classes; with any other, it saves and restores none at all, and predicts on
    images that are neither resized nor normalised.
    """
    if model.pre_processor is not None and expected is not None and model_transform(model) is None:
        _refuse_lost("the transform that the model was trained with", checkpoint)


def _refuse_lost(what: str, checkpoint: Path) -> NoReturn:
    msg = (
        f"`checkpoint` must hold what the model does to an image, but {str(checkpoint)!r} lacks {what}: a prediction "
        "would see other images than the training. anomalib keeps Resize, CenterCrop, Normalize, Grayscale and "
        "SquarePad, alone or in Compose, and drops all of them beside any other. Train again with these alone, and do "
        "the rest (such as blurring) to the image files; a model that was trained without any transform needs its "
        "training configuration as `model`."
    )
    raise ValueError(msg)


def _from_config(path: Path) -> AnomalibModule:
    """Build the model of a training configuration, or of a file with its ``class_path`` alone."""
    content = read_config(path)
    section = content.get("model", content if "class_path" in content else None)
    if not isinstance(section, dict):  # a text would be read as the path of one more file
        msg = f"`model` must be a configuration with a `model`, as `anomalib train` takes it, got {str(path)!r}."
        raise ValueError(msg)
    _models()
    from anomalib.models import AnomalibModule

    return build_object(AnomalibModule, _without_fetching(section), "The configuration's `model`")


def _without_fetching(section: dict[str, Any]) -> dict[str, Any]:
    """Return a model's section with `pre_trained: false` if the class takes that: the checkpoint brings all weights."""
    try:
        takes = inspect.signature(_find_class(str(section.get("class_path"))).__init__).parameters
    except ValueError:  # no such class, which is for jsonargparse to say
        return section
    arguments = section.get("init_args") or {}
    if "pre_trained" not in takes or not isinstance(arguments, dict):
        return section
    return {**section, "init_args": {**arguments, "pre_trained": False}}


def _find_class(name: str) -> type[AnomalibModule]:
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else _models(), attribute, None)
    except ImportError:
        found = None
    if not (isinstance(found, type) and hasattr(found, "load_from_checkpoint")):
        msg = (
            f"`model` must be the class path of an anomalib model, such as anomalib.models.Patchcore, or a YAML "
            f"configuration, got {name!r}."
        )
        raise ValueError(msg)
    return found


def _from_class(cls: type[AnomalibModule], checkpoint: Path, loaded: dict[str, Any]) -> AnomalibModule:
    fetched = {"pre_trained": False} if "pre_trained" in loaded["hyper_parameters"] else {}  # all weights are in it
    try:
        return cls.load_from_checkpoint(checkpoint, map_location="cpu", **fetched)
    except (RuntimeError, TypeError, pickle.UnpicklingError) as error:
        msg = (
            f"`model` {cls.__name__} does not fit the checkpoint {str(checkpoint)!r}: "
            f"{' '.join(str(error).split())[:300]} Give the class it was trained with, or its training configuration."
        )
        raise ValueError(msg) from error


def _models() -> Any:
    """Return the module that names anomalib's models."""
    return importlib.import_module("anomalib.models")


def _settings_of_models() -> list[Any]:
    """Return the types that anomalib's own models keep in their hyper-parameters."""
    from anomalib.models import AnomalibModule

    _models()
    pending, allowed = [AnomalibModule], []
    while pending:
        cls = pending.pop()
        allowed += cls.checkpoint_safe_globals()
        pending += cls.__subclasses__()
    return allowed

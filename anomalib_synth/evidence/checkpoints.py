"""Reading an anomalib checkpoint: which model it belongs to, and which images that model was trained on.

A checkpoint of anomalib holds weights, hyper-parameters, the pre-processor's transform and the post-processor's
settings, but not the name of its class. `anomalib train` writes a ``config.yaml`` three folders above it, which does.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.evidence.found_config import check_found_config, check_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib.models import AnomalibModule

_CONFIG_SUFFIXES = {".yaml", ".yml", ".json"}
_CONFIG_LEVELS = 4  # <run>/weights/lightning/model.ckpt and <run>/config.yaml, with a folder to spare


def read_checkpoint(path: Path, *, allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """Read a checkpoint without unpickling anything but tensors, plain data and anomalib's own settings.

    Args:
        path: The file.
        allowed: Further types the model keeps in its hyper-parameters, as its ``checkpoint_safe_globals()`` names them.

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
    """Write a checkpoint whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        torch.save(loaded, name)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def find_config(checkpoint: Path) -> Path | None:
    """Return the configuration that `anomalib train` wrote next to a checkpoint, if it is there."""
    for folder in list(checkpoint.resolve().parents)[:_CONFIG_LEVELS]:
        path = folder / "config.yaml"
        section = _read_config(path).get("model") if path.is_file() else None
        if isinstance(section, dict) and "class_path" in section:
            return path
    return None


def load_model(model: str | None, checkpoint: Path, loaded: dict[str, Any]) -> tuple[AnomalibModule, Path | None]:
    """Build the model of a checkpoint.

    Args:
        model: A configuration file, a class path or the name of a model of anomalib; None looks for the configuration
            next to the checkpoint.
        checkpoint: The file.
        loaded: What it holds.

    Returns:
        The model, and the configuration it was trained with, if there is one.

    Raises:
        ValueError: If the class is not known, or the configuration or class does not fit; if one that was found next to
            the checkpoint, or the checkpoint's hyper-parameters, name code of other packages or a hub.
    """
    config = find_config(checkpoint)
    if model is not None and Path(model).suffix.lower() in _CONFIG_SUFFIXES:
        config = Path(model)
    else:
        check_names(loaded["hyper_parameters"], checkpoint)
        if config is not None:
            check_found_config(_read_config(config), config)
    if model is not None and config != Path(model):
        return _from_class(_find_class(model), checkpoint, loaded), config
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
    built.on_load_checkpoint(loaded)
    return built, config


def training_images(config: Path) -> list[str]:
    """Return the paths of the training images of a configuration's datamodule.

    For a datamodule that holds images out of another's training folder, all of that folder: never too few.

    Raises:
        ValueError: If they cannot be listed; the message says why.
    """
    from anomalib.data import AnomalibDataModule

    section = _read_config(config).get("data")
    if not isinstance(section, dict):
        msg = f"{config} has no `data`"
        raise ValueError(msg)
    datamodule = _instantiate(AnomalibDataModule, "data", section)
    datamodule = getattr(datamodule, "base", datamodule)
    try:
        datamodule.setup()
        return [str(path) for path in datamodule.train_data.samples.image_path]
    except Exception as error:
        msg = f"the images of {config} could not be listed ({error})"
        raise ValueError(msg) from error


def _read_config(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        msg = f"`model` must be a readable configuration, got {str(path)!r}: {error}"
        raise ValueError(msg) from error
    return content if isinstance(content, dict) else {}


def _from_config(path: Path) -> AnomalibModule:
    """Build the model of a training configuration, or of a file with its ``class_path`` alone."""
    content = _read_config(path)
    section = content.get("model", content if "class_path" in content else None)
    if not isinstance(section, dict):  # a text would be read as the path of one more file
        msg = f"`model` must be a configuration with a `model`, as `anomalib train` takes it, got {str(path)!r}."
        raise ValueError(msg)
    _models()
    from anomalib.models import AnomalibModule

    return _instantiate(AnomalibModule, "model", _without_fetching(section))


def _without_fetching(section: dict[str, Any]) -> dict[str, Any]:
    """Return a model's section with `pre_trained: false` where it has that: the checkpoint brings all weights."""
    try:
        takes = inspect.signature(_find_class(str(section.get("class_path"))).__init__).parameters
    except ValueError:  # no such class, which is for jsonargparse to say
        return section
    arguments = section.get("init_args") or {}
    if "pre_trained" not in takes or not isinstance(arguments, dict):
        return section
    return {**section, "init_args": {**arguments, "pre_trained": False}}


def _instantiate(base: type, key: str, section: Any) -> Any:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, key, fail_untyped=False, required=True)
    try:
        return parser.instantiate_classes(parser.parse_object({key: section}))[key]
    except (ArgumentError, AttributeError, ImportError, TypeError, ValueError, KeyError, OSError) as error:
        msg = f"The configuration's `{key}` cannot be built: {error}"
        raise ValueError(msg) from error


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

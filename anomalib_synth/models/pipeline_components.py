"""Components of a diffusers pipeline: only classes of diffusers and transformers, each loaded completely or refused."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.models.config_files import read_config, read_json_object
from anomalib_synth.models.pretrained import check_files, load_network

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType

INDEX = "model_index.json"
_LEFT_OUT = ("safety_checker",)  # see DiffusionEditor
_REMEDY = "Fetch the pipeline again from where it is published, or fit it again."


def read_index(folder: Path) -> dict[str, Any]:
    """Return the content of a pipeline's ``model_index.json``, checked before a library uses it.

    Raises:
        ValueError: If the file cannot be read, names code or a hub, or has a component whose name is not an identifier.
    """
    index = read_config(folder / INDEX, what="pipeline", remedy=_REMEDY)
    for name in index:
        if not name.isidentifier():  # the name becomes part of a path
            msg = f"{str(folder / INDEX)!r} of the pipeline must name its components by a word, got {name!r}. {_REMEDY}"
            raise ValueError(msg)
    return index


def read_card(path: Path) -> dict[str, Any]:
    """Return the card that ``anomalib-synth fit`` wrote for a pipeline it trained.

    Raises:
        ValueError: If the file cannot be read, or ``recommended`` or ``words`` has a wrong type or value.
    """
    card = read_json_object(path, what="pipeline", remedy=_REMEDY)
    recommended, words = card.get("recommended", {}), card.get("words", [])
    known = isinstance(recommended, dict) and set(recommended) <= {"guidance_scale", "image_guidance_scale"}
    if not known or not all(_is_guidance(value) for value in recommended.values()):
        msg = f"{str(path)!r} must hold guidance scales, numbers >= 1, as `recommended`, got {recommended!r}. {_REMEDY}"
        raise ValueError(msg)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        msg = f"{str(path)!r} must hold a list of words as `words`, got {type(words).__name__}. {_REMEDY}"
        raise ValueError(msg)
    return card


def _is_guidance(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 1


def find_pipeline_class(index: Mapping[str, Any], diffusers: ModuleType, *, pipeline: str) -> Any:
    """Return the class of a pipeline.

    Raises:
        ValueError: If the class is not one of diffusers', or its call does not take a prompt, an image and a generator.
    """
    kind = _find_class(diffusers, index.get("_class_name"), (diffusers.DiffusionPipeline,))
    if kind is None:
        msg = (
            f"`pipeline` {pipeline!r} must be a class of diffusers, got {index.get('_class_name')!r}; code that comes "
            "with weights is never run."
        )
        raise ValueError(msg)
    missing = {"prompt", "image", "generator"} - set(inspect.signature(kind.__call__).parameters)
    if missing:
        msg = (
            f"`pipeline` must be called with an image and a prompt, as StableDiffusionInstructPix2PixPipeline; "
            f"{kind.__name__} takes no {', '.join(sorted(missing))}."
        )
        raise ValueError(msg)
    if lacking := sorted(name for name in _needed_by(kind) if not _names_class(index.get(name))):
        msg = (
            f"The {INDEX} of `pipeline` {pipeline!r} must name library and class of each component, but has none for "
            f"{', '.join(lacking)}. {_REMEDY}"
        )
        raise ValueError(msg)
    return kind


def _needed_by(kind: Any) -> set[str]:
    """Return the components that a class of pipelines cannot do without."""
    takes = inspect.signature(kind.__init__).parameters
    needed = {name for name, parameter in takes.items() if name != "self" and parameter.default is parameter.empty}
    return needed - {*kind._optional_components, *_LEFT_OUT}


def _names_class(entry: Any) -> bool:
    """Return whether an entry of an index names library and class, or is a setting, such as a number."""
    is_pair = isinstance(entry, list) and len(entry) == 2 and all(isinstance(each, str) for each in entry)
    return is_pair or isinstance(entry, int | float)


def load_models(folder: Path, index: Mapping[str, Any], *, dtype: torch.dtype) -> dict[str, Any]:
    """Return the networks of a pipeline by component name; tokenizers and schedulers are only checked.

    ``from_pretrained`` of both libraries fills missing weights with random numbers and only logs that. Here, its list
    of missing keys (``output_loading_info``) is checked for every network.

    Args:
        folder: The pipeline's folder.
        index: Content of the index, from :func:`read_index`.
        dtype: Data type of the loaded weights.

    Raises:
        ValueError: If a component has a foreign class, is missing, or does not hold its whole network.
    """
    components = {
        name: _find_component(folder, name, entry) for name, entry in index.items() if _is_component(name, entry)
    }
    models = {}
    for name, cls in components.items():
        check_files(folder / name, what="pipeline", remedy=_REMEDY)
        if issubclass(cls, torch.nn.Module):
            models[name] = load_network(name, folder / name, cls, dtype, remedy=_REMEDY)
    return models


def check_tokenizers(components: Mapping[str, Any], folder: Path) -> None:
    """Refuse a tokenizer that has more tokens than its text encoder has embeddings.

    Raises:
        ValueError: If there is such a tokenizer.
    """
    for name, tokenizer in components.items():
        encoder = components.get(name.replace("tokenizer", "text_encoder"))
        if not name.startswith("tokenizer") or tokenizer is None or encoder is None:
            continue
        tokens, rows = len(tokenizer), getattr(encoder.config, "vocab_size", None)
        if rows is not None and tokens > rows:
            msg = (
                f"`{name}` in {str(folder)!r} must have no more tokens than its text encoder knows, {rows}, got "
                f"{tokens}: they are of different pipelines. {_REMEDY}"
            )
            raise ValueError(msg)


def _is_component(name: str, entry: Any) -> bool:
    return not name.startswith("_") and name not in _LEFT_OUT and isinstance(entry, list) and entry != [None, None]


def _find_component(folder: Path, name: str, entry: list[Any]) -> type:
    """Return the class of a component, which diffusers or transformers must export."""
    import diffusers
    import transformers

    libraries = {
        "diffusers": (diffusers, (diffusers.ModelMixin, diffusers.SchedulerMixin)),
        "transformers": (
            transformers,
            (
                transformers.PreTrainedModel,
                transformers.PreTrainedTokenizerBase,
                transformers.ProcessorMixin,
                transformers.ImageProcessingMixin,
                transformers.FeatureExtractionMixin,
            ),
        ),
    }
    library, kind = map(str, entry) if len(entry) == 2 else ("", "")
    module, bases = libraries.get(library, (None, ()))
    found = None if module is None else _find_class(module, kind, bases)
    if found is None:
        msg = (
            f"{str(folder / INDEX)!r} of the pipeline must name classes of diffusers and transformers alone, got "
            f"`{name}` {entry!r}; code that comes with weights is never run. {_REMEDY}"
        )
        raise ValueError(msg)
    if not (folder / name).is_dir():
        msg = f"The pipeline {str(folder)!r} must hold its component `{name}`, got no folder of that name. {_REMEDY}"
        raise ValueError(msg)
    return found


def _find_class(library: ModuleType, name: Any, bases: tuple[type, ...]) -> type | None:
    if not (isinstance(name, str) and name.isidentifier() and not name.startswith("_")):
        return None
    try:
        found = getattr(library, name, None)
    except (ImportError, RuntimeError):  # a class whose own requirements are not installed
        return None
    return found if isinstance(found, type) and issubclass(found, bases) else None

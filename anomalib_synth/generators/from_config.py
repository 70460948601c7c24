"""From a config to the object it describes."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args

from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.generators.parameters import list_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable


def build_generator(config: Mapping[str, Any], *, imports: bool = False) -> AnomalyGenerator:
    """Build the generator that a config describes, such as the ``config`` of a :class:`Provenance`.

    By default only modules of this package are imported, as a config may come from somebody else's store. Import the
    module of your own generator first. Nested generators and settings are built too; which settings, the annotation of
    their argument says.

    Args:
        config: ``{"class_path": ..., "init_args": {...}}``.
        imports: Import the modules that the config names. Only for a generator that the user built in another process.

    Raises:
        ValueError: If the class is not a generator, its module is not imported, or an argument is unknown or missing.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("init_args") or {}, Mapping):
        msg = f"`config` must be a mapping with `class_path` and `init_args`, got {config!r}."
        raise ValueError(msg)
    cls = _find_class(config.get("class_path"), imports=imports)
    parameters = list_parameters(cls)
    given = dict(config.get("init_args") or {})
    _check_names(cls, given, parameters, [n for n, p in parameters.items() if p.default is inspect.Parameter.empty])
    return cls(**{name: _build(value, parameters[name].annotation, cls, imports) for name, value in given.items()})


def _find_class(path: object, *, imports: bool) -> type[AnomalyGenerator]:
    module, _, name = str(path).rpartition(".")
    if imports or module.partition(".")[0] == "anomalib_synth":
        with suppress(ImportError):
            importlib.import_module(module)
    cls = getattr(sys.modules.get(module), name, None)
    if not (isinstance(cls, type) and issubclass(cls, AnomalyGenerator)) or inspect.isabstract(cls):
        msg = f"`class_path` must name a generator of a module that is imported, got {path!r}."
        raise ValueError(msg)
    return cls


def _check_names(cls: type, given: Mapping[str, Any], known: Iterable[str], required: Iterable[str]) -> None:
    """Refuse arguments that a class does not have, and missing arguments that it needs."""
    unknown = [name for name in given if name not in known]
    missing = [name for name in required if name not in given]
    if unknown or missing:
        wrong = (
            f"{', '.join(map(repr, unknown))} among them" if unknown else f"none for {', '.join(map(repr, missing))}"
        )
        msg = f"`init_args` of {cls.__name__} must be among {', '.join(known)}, got {wrong}."
        raise ValueError(msg)


def _build(value: Any, annotation: Any, owner: type, imports: bool) -> Any:
    """Return the object that a plain value stands for, given the annotation of its argument."""
    if isinstance(value, list):
        entries = [_build(entry, annotation, owner, imports) for entry in value]
        return tuple(entries) if re.match(r"(typing\.)?tuple\b", _as_text(annotation), re.IGNORECASE) else entries
    if not isinstance(value, Mapping):
        return value
    kind = _find_settings(annotation, owner)
    if kind is None:
        return build_generator(value, imports=imports) if "class_path" in value else value
    if "class_path" in value:  # jsonargparse writes settings like this
        value = value.get("init_args") or {}
    annotations = {field.name: field.type for field in fields(kind)}
    _check_names(kind, value, annotations, [])
    return kind(**{name: _build(entry, annotations[name], kind, imports) for name, entry in value.items()})


def _find_settings(annotation: Any, owner: type) -> Any:
    """Return the dataclass that an annotation names, looked up in the modules of a class and its bases; or None."""
    candidates = [annotation, *get_args(annotation)]
    if isinstance(annotation, str):
        modules = [sys.modules[base.__module__] for base in owner.__mro__]
        words = re.findall(r"[\w.]+", annotation)
        candidates = [_look_up(module, word) for word in words for module in modules]
    return next((each for each in candidates if isinstance(each, type) and is_dataclass(each)), None)


def _look_up(module: object, word: str) -> object:
    found = module
    for name in word.split("."):
        found = getattr(found, name, None)
    return found


def _as_text(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else str(annotation)

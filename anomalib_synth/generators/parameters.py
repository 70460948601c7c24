"""The arguments of constructors: their names, their values, and their values as plain data."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

_VARIABLE = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@cache
def list_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the arguments of a class's constructor by name; ``**options`` stands for those of its base class."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        _, *own = inspect.signature(vars(base)["__init__"]).parameters.values()
        found |= {each.name: each for each in own if each.kind not in _VARIABLE and each.name not in found}
        if all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in own):
            break
    return found


def read_arguments(owner: Any) -> dict[str, Any]:
    """Return the values of an object's constructor arguments, read from the attributes of the same names.

    Raises:
        TypeError: If an argument has no such attribute.
    """
    names = list_parameters(owner.__class__)
    missing = [name for name in names if not hasattr(owner, name)]
    if missing:
        msg = (
            f"`{missing[0]}` must be kept by {type(owner).__name__} as `self.{missing[0]}`, where `config` reads it, "
            "got no such attribute. Keep it, or override `init_args`."
        )
        raise TypeError(msg)
    return {name: getattr(owner, name) for name in names}


def to_plain(value: Any, name: str) -> Any:
    """Return the value of an argument as YAML can hold it: a generator as its config, a dataclass as a mapping.

    Args:
        value: The value.
        name: What an error calls it.

    Raises:
        TypeError: If YAML cannot hold it.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: to_plain(entry, name) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(entry, name) for entry in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name), name) for field in fields(value)}
    config = getattr(value, "config", None)
    if isinstance(config, Mapping) and "class_path" in config:
        return config
    msg = (
        f"{name} must be plain data, a dataclass of such, or a generator, so that a config can hold it, got "
        f"{type(value).__name__}. Take plain data from which the constructor can make it, or override `init_args`."
    )
    raise TypeError(msg)

"""Reads the JSON files beside weights within bounds, and refuses entries that would fetch files or run code."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_BYTES = 64 * 2**20
_LARGEST = 10**7
_MOST_LAYERS = 1024
_COUNTS = re.compile(r"(^|_)(num_)?(layers|blocks|depths?|heads|stages|experts)(_|$)")
# keys that transformers, diffusers, timm and open_clip follow to a repository or to code
_FOLLOWED = {"auto_map", "custom_generate", "custom_pipeline", "custom_pipelines", "hf_model_name", "trust_remote_code"}
_IMPLEMENTATION = re.compile(r"^_?(attn|experts)_implementation(_internal)?$")
_HUB = re.compile(r"^hf[-_]hub:", re.IGNORECASE)
_FETCHED_TYPES = {"timm_wrapper", "timm_backbone"}


def read_json_object(path: Path, *, what: str, remedy: str, finite: bool = True) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: The file.
        what: What the file belongs to, for the error, such as "bundle".
        remedy: What to do, for the error.
        finite: Whether to refuse NaN and Infinity, which are not valid JSON; diffusers writes the latter.

    Raises:
        ValueError: If the file cannot be read, is larger than 64 MiB, or does not hold an object.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            msg = f"it has {size} bytes, more than the {_MOST_BYTES} that are read"
            raise ValueError(msg)
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant if finite else float)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{str(path)!r} of the {what} must be JSON that can be read: {reason or type(error).__name__}. {remedy}"
        raise ValueError(msg) from error
    if not isinstance(found, dict):
        msg = f"{str(path)!r} of the {what} must hold a JSON object, got {type(found).__name__}. {remedy}"
        raise ValueError(msg)
    return found


def read_config(path: Path, *, what: str, remedy: str) -> dict[str, Any]:
    """Return the configuration of a model from an untrusted source, checked by :func:`check_config`.

    Raises:
        ValueError: If the file cannot be read, or :func:`check_config` refuses an entry.
    """
    config = read_json_object(path, what=what, remedy=remedy, finite=False)
    check_config(config, path=path, what=what, remedy=remedy)
    return config


def check_config(config: Any, *, path: Path, what: str, remedy: str, sizes: bool = True) -> None:
    """Refuse a configuration that names a hub or code, or contains an absurd size.

    The libraries would follow such a name: they would fetch a repository, or import and run code from beside the
    weights. Only a name that the user gives may cause that. Sizes must be at most 10^7, counts of layers, heads and the
    like at most 1024.

    Args:
        config: Plain data, as parsed from JSON.
        path: File of the configuration, for the error.
        what: What it belongs to, for the error.
        remedy: What to do, for the error.
        sizes: Whether to check numbers as sizes of a model; numbers of tokenizers are not such sizes.

    Raises:
        ValueError: If an entry breaks a rule; the message names it.
    """
    for place, key, value in _entries(config):
        rule = _broken_rule(key, value, sizes=sizes)
        if rule:
            shown = repr(value) if len(repr(value)) <= 100 else repr(value)[:100] + " ..."
            msg = f"{str(path)!r} of the {what} {rule}, got `{place}` {shown}. {remedy}"
            raise ValueError(msg)


def _broken_rule(key: str, value: Any, *, sizes: bool) -> str:
    """Return the rule that an entry breaks, ``""`` if it breaks none."""
    rules = {
        "must not name a repository or code of its own": key in _FOLLOWED and value not in (None, False, "", {}, []),
        "must not have weights fetched": key == "use_pretrained_backbone" and value is True,
        "must not name a repository of a hub": isinstance(value, str)
        and (bool(_HUB.match(value)) or (key == "model_type" and value in _FETCHED_TYPES)),
        "must not name a kernel of a hub": bool(_IMPLEMENTATION.match(key)) and "/" in str(value),
    }
    if sizes and isinstance(value, int | float) and not isinstance(value, bool):
        many = bool(_COUNTS.search(key)) and abs(value) > _MOST_LAYERS
        rules[f"must have at most {_MOST_LAYERS} layers of a kind"] = many
        rules[f"must have no size beyond {_LARGEST}"] = isinstance(value, int) and abs(value) > _LARGEST
    return next((rule for rule, broken in rules.items() if broken), "")


def _entries(config: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield place, key and value of every entry, at any depth; an entry of a list has the key of its list."""
    pending = [("", "", config)]
    while pending:
        place, key, value = pending.pop()
        if place:
            yield place, key, value
        if isinstance(value, dict):
            pending += [(f"{place}.{name}" if place else str(name), str(name), part) for name, part in value.items()]
        elif isinstance(value, list):
            pending += [(f"{place}[{index}]", key, part) for index, part in enumerate(value)]


def _refuse_constant(name: str) -> float:
    msg = f"{name} is not a number in JSON"
    raise ValueError(msg)

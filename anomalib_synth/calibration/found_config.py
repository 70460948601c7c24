"""Limits what a configuration found beside a checkpoint may import: nobody asked for it.

A configuration the user names (``--model my.yaml``) may name any class: that is what they asked for.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = (
    "anomalib", "anomalib_synth", "lightning.pytorch", "torch.nn", "torch.optim", "torchmetrics",
    "torchvision.transforms", "torchvision.tv_tensors",
)  # fmt: skip
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_HUB = re.compile(r"(hf[-_]hub|https?|s3|gs|ftp):", re.IGNORECASE)


def check_found_config(config: Any, path: Path) -> None:
    """Refuse a configuration whose built parts name a class of another package, before anything is imported.

    Any text can name a class where a parameter takes one, so every text that names something importable is checked, not
    only those under ``class_path``. Packages are looked up without importing them.

    Args:
        config: Its content.
        path: Where it was found, for the error.

    Raises:
        ValueError: If there is one; the message names the entry, and how to allow it.
    """
    built = {key: config[key] for key in ("model", "data", "class_path", "init_args") if key in config}
    trainer = config.get("trainer")
    if isinstance(trainer, dict) and "callbacks" in trainer:  # callbacks that act while predicting are built too
        built["trainer"] = {"callbacks": trainer["callbacks"]}
    for place, text in _texts(built):
        key = re.split(r"[.\[]", place)[-1] if not place.endswith("]") else ""
        if (key == "class_path" and "." in text and not _is_allowed(text)) or _would_import(text):
            msg = (
                f"{str(path)!r}, found beside the checkpoint, must name classes of {', '.join(PACKAGES)} alone, got "
                f"`{place}` {text!r}. If you trust it, ask for it: `--model {path}`."
            )
            raise ValueError(msg)
        _refuse_hub(place, text, path)


def check_names(hyper_parameters: Any, path: Path) -> None:
    """Refuse hyper-parameters of a checkpoint that name a hub or an address.

    Raises:
        ValueError: If they do; the message names the entry, and how to allow it.
    """
    for place, text in _texts(hyper_parameters):
        _refuse_hub(place, text, path)


def _refuse_hub(place: str, text: str, path: Path) -> None:
    if _HUB.match(text):
        msg = (
            f"{str(path)!r} must not name what would be fetched, got `{place}` {text!r}. If you trust it, give the "
            "model's training configuration by name: `--model CONFIG.yaml`."
        )
        raise ValueError(msg)


def _is_allowed(text: str) -> bool:
    return any(text == package or text.startswith(f"{package}.") for package in PACKAGES)


def _would_import(text: str) -> bool:
    """Return whether a text is the dotted name of something in an installed package that is not allowed."""
    if not _DOTTED.fullmatch(text) or _is_allowed(text):
        return False
    top, _, rest = text.partition(".")
    if top == "torch" and isinstance(getattr(torch, rest, None), torch.dtype):
        return False
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return True


def _texts(config: Any) -> Iterator[tuple[str, str]]:
    """Yield place and value of every text, also of those that jsonargparse would read out of another text or a file.

    Each object is looked at once: YAML may refer to itself.
    """
    pending: list[tuple[str, Any]] = [("", config)]
    seen: set[int] = set()
    kept = []  # keeps the objects alive: the id of one that is gone could be given to another
    while pending:
        place, value = pending.pop()
        if isinstance(value, str):
            yield place, value
            pending += [(place, inner) for inner in _read_inner(value)]
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            kept.append(value)
            named = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in named:
                inner = f"[{key}]" if not isinstance(value, dict) else f".{key}" if place else str(key)
                pending.append((place + inner, part))


def _read_inner(text: str) -> list[Any]:
    """Return what a text holds when read as YAML, and what the file that it names holds: jsonargparse takes both."""
    import yaml

    found = []
    for read in (lambda: text, lambda: Path(text).read_text(encoding="utf-8") if Path(text).is_file() else ""):
        try:
            inner = yaml.safe_load(read())
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue  # not a configuration for jsonargparse either
        if inner != text and isinstance(inner, str | dict | list):
            found.append(inner)
    return found

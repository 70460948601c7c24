"""Checks that a checkpoint holds its whole model: missing weights would silently stay random."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_SHOWN = 4
_ALLOWANCE = 10**8
# computed buffers, not weights: older files hold them, newer libraries do not expect them
_COMPUTED = re.compile(r"(^|\.)(position_ids|inv_freq|num_batches_tracked|relative_position_index)$")


def describe_misfit(
    *, missing: Iterable[str] = (), unexpected: Iterable[str] = (), misshapen: Iterable[Any] = ()
) -> str:
    """Describe what does not fit between a checkpoint and its model; ``""`` if everything fits.

    Args:
        missing: Names of tensors that the model has and the checkpoint lacks.
        unexpected: Names of tensors that the checkpoint has and the model lacks; computed buffers are ignored.
        misshapen: Names of tensors whose shapes differ, or tuples of name, shape in the checkpoint, shape in the model.

    Example:
        >>> describe_misfit(missing=["b", "a"], unexpected=["text.position_ids"])
        "2 tensors are missing ('a', 'b')"
    """
    unexpected = [name for name in unexpected if not _COMPUTED.search(name)]
    shapes = [each if isinstance(each, str) else _describe_shapes(*each) for each in misshapen]
    sentences = [
        _count(sorted(missing), "missing"),
        _count(sorted(unexpected), "unexpected"),
        _count(sorted(shapes), "of another shape"),
    ]
    return ", ".join(filter(None, sentences))


def check_complete(component: str, path: Path | str, info: Mapping[str, Any], *, remedy: str) -> None:
    """Refuse a model that diffusers or transformers loaded only in part.

    Args:
        component: Name of the component, for the error.
        path: Where its files are.
        info: The loading information of ``from_pretrained(..., output_loading_info=True)``.
        remedy: What to do, for the error.

    Raises:
        ValueError: If a weight is missing, unexpected or of another shape; the message names them.
    """
    misfit = describe_misfit(
        missing=info["missing_keys"], unexpected=info["unexpected_keys"], misshapen=info["mismatched_keys"]
    )
    if misfit:
        msg = (
            f"`{component}` in {str(path)!r} must hold the weights of its whole model and no others: {misfit}. {remedy}"
        )
        raise ValueError(msg)


def check_room(component: str, folder: Path, needed: int, *, remedy: str) -> None:
    """Refuse a configuration with far more weights than its files have bytes, before memory is allocated.

    Args:
        component: Name of the component, for the error.
        folder: Folder with its ``*.safetensors``.
        needed: Number of weights of the configured model.
        remedy: What to do, for the error.

    Raises:
        ValueError: If ``needed`` exceeds the bytes of the files by more than 10^8, also where there are no files.
    """
    held = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if needed > held + _ALLOWANCE:  # `check_complete` names single missing tensors
        msg = (
            f"`{component}` in {str(folder)!r} must hold the {needed} weights its config.json asks for, in "
            f"*.safetensors; got {held} bytes of them. {remedy}"
        )
        raise ValueError(msg)


def shorten_state_error(error: Exception) -> str:
    """Return torch's message about a state dict that does not fit, with only a few names of each kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    short = []
    for line in lines[: 2 * _SHOWN]:
        names = line.split(", ")
        is_list = "key(s) in state_dict" in line and len(names) > _SHOWN
        short.append(line if not is_list else ", ".join(names[:_SHOWN]) + f" and {len(names) - _SHOWN} more.")
    if len(lines) > len(short):
        short.append(f"and {len(lines) - len(short)} more lines.")
    return " ".join(short)


def _count(names: list[str], state: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    many = "tensors are" if len(names) > 1 else "tensor is"
    return f"{len(names)} {many} {state} ({', '.join(map(repr, names[:_SHOWN]))}{more})"


def _describe_shapes(name: str, found: Any, wanted: Any) -> str:
    return f"{name}: {tuple(found)} for {tuple(wanted)}"

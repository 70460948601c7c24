"""Edits of checkpoints that tests wrote: tensors taken out, put in and cut to another shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from pathlib import Path


def edit_weights(folder: Path, kind: str, *, about: str = "") -> str:
    """Edit the one weight file of a folder, and return the name of the tensor that is wrong then.

    Args:
        folder: The folder.
        kind: "missing", "unexpected" or "misshapen".
        about: Part of the name of the tensors to take.
    """
    (file,) = folder.glob("*.safetensors")
    state = load_file(file)
    name = next(key for key, value in sorted(state.items()) if about in key and value.ndim > 1)
    if kind == "missing":
        del state[name]
    elif kind == "unexpected":
        name = "foreign.weight"
        state[name] = torch.zeros(2)
    else:
        state[name] = torch.zeros(3, 5)
    save_file(state, file, metadata={"format": "pt"})
    return name


def edit_json(file: Path, changes: dict[str, Any]) -> None:
    """Put entries into the object in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))

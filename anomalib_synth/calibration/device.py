"""The device a detector runs on."""

from __future__ import annotations

import torch


def choose_device(accelerator: str) -> str:
    """Return torch's name of a device.

    Args:
        accelerator: ``"auto"``, ``"cpu"`` or ``"gpu"``.

    Raises:
        ValueError: If it is another name, or ``"gpu"`` and there is none.
    """
    if accelerator not in {"auto", "cpu", "gpu"}:
        msg = f"`accelerator` must be auto, cpu or gpu, got {accelerator!r}."
        raise ValueError(msg)
    if accelerator == "gpu" and not torch.cuda.is_available():
        msg = "`accelerator` is gpu, but there is none. Give cpu or auto."
        raise ValueError(msg)
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"

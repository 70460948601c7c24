"""Windows and parameters that kernels of physical defects are called with."""

from __future__ import annotations

import torch

from anomalib_synth.functional.layers import Window


def make_window(side: int, *, batch: int = 1, channels: int = 3, level: float = 0.5) -> Window:
    places = torch.arange(side) + 0.5 - side / 2
    return Window(
        image=torch.full((batch, channels, side, side), level),
        x=places.view(1, 1, 1, -1).expand(batch, -1, -1, -1),
        y=places.view(1, 1, -1, 1).expand(batch, -1, -1, -1),
        foreground=torch.ones(batch, 1, side, side),
        background=torch.full((1, channels, 1, 1), 0.5),
    )


def as_params(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.full((1, 1, 1, 1), float(value)) for name, value in values.items()}

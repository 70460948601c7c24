"""Coordinates of a window along and across a direction."""

from __future__ import annotations

import math

import torch

from anomalib_synth.functional.layers import Window


def test_coordinates_turn_with_the_direction() -> None:
    x, y = torch.arange(-1.0, 3).view(1, 1, 1, 4), torch.arange(-2.0, 1).view(1, 1, 3, 1)
    blank = torch.zeros(1, 1, 3, 4)
    window = Window(image=blank, x=x, y=y, foreground=blank, background=blank[..., :1, :1])
    cos, sin = (torch.tensor(function(0.7)).view(1, 1, 1, 1) for function in (math.cos, math.sin))
    along, across = window.rotated(cos, sin)
    turned = (x + 1j * y) * complex(math.cos(0.7), -math.sin(0.7))
    torch.testing.assert_close(along, turned.real)
    torch.testing.assert_close(across, turned.imag)

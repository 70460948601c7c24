"""Kernels of missing material: the edge of a hole, and what is seen through it and through a bite."""

from __future__ import annotations

from dataclasses import replace

import torch

from anomalib_synth.functional.physical_object import chip, hole
from tests.unit.functional.kernel_windows import as_params, make_window

SIDE = 64
HOLE = {
    "cos": 1, "sin": 0, "radius_u": 14, "radius_v": 14, "light_u": 0.0, "light_v": -1.0, "rough": 0, "depth": 0.4,
    "dark": 0.7, "through": 0, "soft": 0.6, "lip": 0, "noise": 5,
}  # fmt: skip
CHIP = {
    "cos": 1, "sin": 0, "radius_u": 16, "radius_v": 16, "rough": 0.2, "bite": 0.8, "tone": 0.2, "noise": 5,
}  # fmt: skip


def test_edge_of_a_hole_is_as_wide_as_asked() -> None:
    width = []
    for soft in (0.6, 2.0):
        alpha = hole(make_window(SIDE), as_params(**HOLE | {"soft": soft})).alpha[0, 0, SIDE // 2]
        width.append(float(((alpha > 0.02) & (alpha < 0.98)).sum()) / 2)
    assert width[0] <= 2
    assert 3 <= width[1] <= 4


def test_only_a_burr_is_brighter_than_the_surface() -> None:
    window = make_window(SIDE)
    for lip, brighter in ((0.0, False), (0.5, True)):
        layer = hole(window, as_params(**HOLE | {"lip": lip}))
        drawn = window.image + layer.alpha * (layer.target - window.image)
        assert bool((drawn > 0.51).any()) == brighter


def test_a_hole_and_a_bite_show_the_background() -> None:
    window = replace(make_window(SIDE), background=torch.full((1, 3, 1, 1), 0.9))
    middle = SIDE // 2
    through = hole(window, as_params(**HOLE | {"through": 1, "depth": 0}))
    assert float(through.target[0, :, middle - 8 : middle + 8, middle + 2 : middle + 10].amax()) > 0.85  # else shaded
    bite = chip(window, as_params(**CHIP))
    torch.testing.assert_close(bite.target[0, :, middle, middle], torch.full((3,), 0.9), atol=0.01, rtol=0)

"""Kernels of missing material: the edge of a hole, and what is seen through it and through a bite."""

from __future__ import annotations

from dataclasses import replace

import torch

from anomalib_synth.functional.layers import Window
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


def part_on_the_right(*, beside: float, background: float) -> Window:
    """A grey part (.5) in the right half, in front of something of one brightness that is usually another."""
    window = make_window(SIDE)
    on_part = (window.x > 0).expand(-1, 1, SIDE, -1)
    return replace(
        window,
        image=torch.where(on_part, window.image, torch.tensor(beside)),
        foreground=on_part.float(),
        background=torch.full((1, 3, 1, 1), background),
    )


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


def test_a_hole_and_a_bite_show_the_background_as_it_is_beside_the_part() -> None:
    window = part_on_the_right(beside=0.9, background=0.7)
    through = hole(window, as_params(**HOLE | {"through": 1, "depth": 0}))
    bite = chip(window, as_params(**CHIP))
    middle = SIDE // 2
    lit = through.target[0, :, middle - 8 : middle + 8, middle + 2 : middle + 10]
    assert float(lit.amax()) > 0.85  # shaded at the near wall
    torch.testing.assert_close(bite.target[0, :, middle, middle + 2], torch.full((3,), 0.9), atol=0.01, rtol=0)


def test_background_is_that_of_the_product_when_the_window_shows_none() -> None:
    window = replace(make_window(SIDE), background=torch.full((1, 3, 1, 1), 0.9))
    bite = chip(window, as_params(**CHIP))
    middle = SIDE // 2
    torch.testing.assert_close(bite.target[0, :, middle, middle], torch.full((3,), 0.9), atol=0.01, rtol=0)


def test_what_is_cut_by_the_part_s_coarse_cells_does_not_tint_the_background() -> None:
    window = part_on_the_right(beside=0.9, background=0.7)
    cells = (window.x > 4).expand(-1, 1, SIDE, -1).float()  # four columns of the part count as background
    bite = chip(replace(window, foreground=cells), as_params(**CHIP))
    torch.testing.assert_close(bite.target[0, :, SIDE // 2, SIDE // 2 + 2], torch.full((3,), 0.9), atol=0.01, rtol=0)

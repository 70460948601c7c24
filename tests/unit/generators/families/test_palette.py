"""The colours that a product allows."""

from __future__ import annotations

import math

import pytest
import torch

from anomalib_synth.generators.families.palette import MARGIN, Palette, measure_palette


def test_palette_keeps_luminance_and_bounds_the_distance() -> None:
    palette = Palette(red=0.0, blue=0.0, reach=0.06)
    (red, green, blue), kept = palette.limit((0.30, 0.50, 0.80))
    grey = 0.299 * 0.30 + 0.587 * 0.50 + 0.114 * 0.80
    assert 0.299 * red + 0.587 * green + 0.114 * blue == pytest.approx(grey)
    assert math.hypot(red - grey, blue - grey) == pytest.approx(0.06)
    assert 0 < kept < 0.25
    assert palette.limit((0.5, 0.5, 0.52)) == ((0.5, 0.5, 0.52), 1.0)


def test_palette_follows_the_colour_of_a_coloured_product() -> None:
    orange = torch.tensor([0.8, 0.5, 0.2]).view(1, 3, 1, 1).expand(2, 3, 16, 16)
    palette = measure_palette(orange)
    assert palette.reach == pytest.approx(MARGIN, abs=1e-6)
    assert palette.limit((0.4, 0.25, 0.1))[1] == 1.0  # its own hue, darker
    assert palette.limit((0.2, 0.4, 0.9))[1] < 0.5
    assert measure_palette(torch.rand(2, 1, 8, 8)) is None

"""Kernels of the surface against an analytic height field."""

from __future__ import annotations

import numpy as np

from anomalib_synth.functional.physical_surface import dent
from tests.unit.functional.kernel_windows import as_params, make_window


def hollow(u: np.ndarray, v: np.ndarray, radius_u: float, radius_v: float) -> np.ndarray:
    """Height of a dent of unit depth: the analytic field, written independently."""
    return -(np.maximum(0.0, 1 - (u / radius_u) ** 2 - (v / radius_v) ** 2) ** 3)


def test_dent_is_dark_towards_the_light_and_bright_beyond_when_matte() -> None:
    params = as_params(
        cos=1, sin=0, radius_u=14, radius_v=10, offset_u=0, offset_v=0, second=0, light_u=0.0, light_v=-1.0,
        contrast=0.5, gloss=0,
    )  # fmt: skip
    window = make_window(48)
    change = (dent(window, params).target - window.image)[0, 0].numpy()
    y, x = np.mgrid[:48, :48] + 0.5 - 24
    shading = -(hollow(x, y - 1e-3, 14, 10) - hollow(x, y + 1e-3, 14, 10)) / 2e-3  # minus the slope towards the light
    occlusion = hollow(x, y, 14, 10)
    expected = 0.5 * (0.58 * 10 * shading + 0.15 * occlusion) * 0.5
    np.testing.assert_allclose(change, expected, atol=2e-3)
    assert change[:20].sum() < 0 < change[28:].sum()

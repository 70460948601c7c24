"""Kernels of lines: how much they cover."""

from __future__ import annotations

import pytest

from anomalib_synth.functional.physical_lines import crack, scratch
from tests.unit.functional.kernel_windows import as_params, make_window


@pytest.mark.parametrize("width", [1.5, 3.0, 5.0])
def test_scratch_area_is_at_most_length_times_width_when_single(width: float) -> None:
    params = as_params(
        cos=0.8, sin=0.6, length=80, width=width, lines=1, bend=0.05, wobble=2, skip=0, depth=-0.5, burr=0, light_x=0,
        light_y=-1, noise=5,
    )  # fmt: skip
    area = float(scratch(make_window(128), params).alpha.sum())
    assert 0.3 * 80 * width < area < 1.6 * 80 * width


def test_crack_is_thin_and_longer_with_branches() -> None:
    branches = {f"{name}_{b}": value for b in range(5) for name, value in (("from", 0.5), ("cos", 0.6), ("sin", 0.8))}
    bare = as_params(cos=1, sin=0, length=90, width=2, jag=0.15, tone=-0.8, noise=3, middle_x=0, middle_y=0, **branches)
    none = as_params(**{f"length_{b}": 0 for b in range(5)})
    one = none | as_params(length_1=30)
    window = make_window(128)
    area, longer = (float((crack(window, bare | extra).alpha > 0.5).sum()) for extra in (none, one))
    assert 0.3 * 90 * 2 < area < 2.0 * 90 * 2
    assert area + 5 < longer < area + 2 * 30 * 2

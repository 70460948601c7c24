"""Outlines: what they enclose is the mask."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anomalib_synth.report.pictures import draw_outline, trace_border


def fill(path: str, shape: tuple[int, int]) -> np.ndarray:
    """Return what a border encloses: whoever crosses its vertical lines an odd number of times is inside."""
    crossings = np.zeros((shape[0], shape[1] + 1), dtype=int)
    for x, y, length in re.findall(r"M(\d+) (\d+)v(\d+)", path):
        crossings[int(y) : int(y) + int(length), int(x)] += 1
    return crossings.cumsum(1)[:, :-1] % 2 == 1


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_the_border_encloses_the_mask(mask) -> None:
    path = trace_border(mask)
    assert np.array_equal(fill(path, mask.shape), mask)
    turned = re.sub(r"M(\d+) (\d+)h(\d+)", r"M\2 \1v\3", re.sub(r"M\d+ \d+v\d+", "", path))
    assert np.array_equal(fill(turned, mask.shape[::-1]), mask.T)


def test_a_thin_line_survives_a_coarse_outline() -> None:
    mask = np.zeros((900, 600), dtype=np.uint8)
    mask[451, 100:500] = 255
    text = draw_outline(mask, size=100).decode()
    assert 'viewBox="0 0 600 900"' in text
    step = int(re.search(r"scale\((\d+)\)", text)[1])
    cells = fill(re.search(r' d="([^"]+)"', text)[1], (-(-900 // step), -(-600 // step)))
    assert cells[451 // step, 100 // step : 499 // step].all()
    assert cells.sum() == 499 // step - 100 // step + 1

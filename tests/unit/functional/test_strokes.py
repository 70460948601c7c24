"""Strokes against brute force."""

from __future__ import annotations

import numpy as np
import torch

from anomalib_synth.functional.strokes import jagged, links, stroke_distance
from tests.unit.functional.kernel_windows import make_window


def test_stroke_distance_equals_brute_force_when_widths_vary() -> None:
    rng = np.random.default_rng(1)
    curve = rng.uniform(-12, 12, (2, 6)).astype(np.float32)
    half = rng.uniform(0.2, 3, 6).astype(np.float32)
    x, y, width = (links(torch.from_numpy(values)[None]) for values in (curve[0], curve[1], half))
    field = stroke_distance(make_window(32), x, y, width, torch.full((1, 1, 1, 1), 2.0))[0, 0].numpy()
    row, column = np.mgrid[:32, :32] + 0.5 - 16
    best = np.full((32, 32), 2.0)
    for k in range(5):
        a, b = curve[:, k].astype(float), curve[:, k + 1].astype(float)
        d = b - a
        t = np.clip(((column - a[0]) * d[0] + (row - a[1]) * d[1]) / (d @ d), 0, 1)
        reach = np.hypot(column - a[0] - t * d[0], row - a[1] - t * d[1])
        best = np.minimum(best, reach - (half[k] + t * (half[k + 1] - half[k])))
    np.testing.assert_allclose(field, best, atol=1e-4)


def test_stroke_distance_is_the_reach_when_no_stroke_is_used() -> None:
    ends = torch.zeros(2, 3, 2)
    field = stroke_distance(make_window(8, batch=2), ends, ends, ends - 1, torch.full((2, 1, 1, 1), 1.5))
    assert torch.equal(field, torch.full((2, 1, 8, 8), 1.5))


def test_jagged_is_the_same_for_a_seed_in_any_batch() -> None:
    seeds = torch.tensor([3.0, 9.0, 11.0])
    together = jagged(seeds, 33)
    assert torch.equal(together[1:2], jagged(seeds[1:2], 33))
    assert together.abs().max() < 1.5
    assert not torch.equal(together[0], together[1])

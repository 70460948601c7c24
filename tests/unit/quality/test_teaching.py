"""How much a detector can learn from a sample: a hump over its visibility, on the part, where it was meant."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.quality.teaching import BEST_VISIBILITY, rate_teaching

ONE = torch.ones(1)


def rate(visibility: float, agreement: float = 1.0, on_part: float = 1.0) -> float:
    return float(rate_teaching(visibility * ONE, agreement * ONE, on_part * ONE))


def test_score_is_a_hump_when_visibility_grows() -> None:
    grid = torch.linspace(0, 100, 2001)
    scores = rate_teaching(grid, torch.ones(2001), torch.ones(2001))
    best = int(scores.argmax())
    assert abs(float(grid[best]) - BEST_VISIBILITY) <= 0.05
    assert bool((scores[: best + 1].diff() > -1e-6).all())
    assert bool((scores[best:].diff() < 1e-6).all())
    assert float(scores.min()) == 0
    assert 1 - 1e-6 <= float(scores.max()) <= 1
    assert [rate(BEST_VISIBILITY * each) for each in (0.25, 4)] == pytest.approx([0.64**2] * 2)


def test_score_falls_when_a_sample_misses_the_part_or_what_it_was_meant_to_cover() -> None:
    assert rate(3, on_part=0.5) == 0.5 * rate(3)
    assert rate(3, agreement=0.25) == 0.25 * rate(3)
    assert rate(3, agreement=1.5) == rate(3)


def test_score_has_the_same_bits_when_the_batch_differs() -> None:
    visibility = torch.rand(37, generator=torch.Generator().manual_seed(0)) * 20
    whole = rate_teaching(visibility, torch.ones(37), torch.ones(37))
    assert whole.tolist() == [rate(float(value)) for value in visibility]

"""Scores: scales measured and added up, against hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from anomalib_synth.detectors.discriminative_padim.score import deviation_bound, measure_scale, trust_in_heads


def test_maps_are_standardised_twice_and_so_are_their_maxima() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(6, 3, 8, 8, generator=generator) * torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1) + 2
    reference[:, 1] += reference[:, 0]  # maps that go together
    tested = torch.randn(2, 3, 8, 8, generator=generator)
    scale = measure_scale([reference[:1], reference[1:]])
    found = (tested * scale.weights.view(1, 3, 1, 1)).sum(1) + scale.offset

    values, new = reference.double().numpy(), tested.double().numpy()
    mean, deviation = values.mean((0, 2, 3)), values.std((0, 2, 3))
    ours, theirs = (((x - mean[:, None, None]) / deviation[:, None, None]).mean(1) for x in (new, values))
    np.testing.assert_allclose(found, (ours - theirs.mean()) / theirs.std(), rtol=1e-4, atol=1e-4)
    largest = ((theirs - theirs.mean()) / theirs.std()).max((1, 2))
    assert scale.maximum_mean == pytest.approx(largest.mean())
    assert scale.bound == pytest.approx(np.sqrt(5 / chi2.ppf(0.05, 5)))
    assert scale.maximum_deviation == pytest.approx(largest.std(ddof=1) * scale.bound)


def test_heads_count_more_in_the_map_when_they_learned_real_masks() -> None:
    distances, heads = (measure_scale([torch.randn(n, 2, 8, 8)]) for n in (40, 10))
    plain = trust_in_heads(distances, heads, 0)
    assert plain == pytest.approx(deviation_bound(40) / deviation_bound(10))
    assert trust_in_heads(distances, heads, 5) == pytest.approx(2 * plain)

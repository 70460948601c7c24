"""The invariants of the design, once, for every generator.

A generator is tested through ``make``: a function that returns a fresh, unprepared generator of one configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from anomalib_synth.generators import AnomalyGenerator, build_generator

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.sample import AnomalySample

    Make = Callable[[], AnomalyGenerator]

FIELDS = ("source", "image", "mask", "quality", "accepted")


def render_normals(count: int, channels: int, height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    """Normals with texture, an edge and noise: something for every family to change."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.linspace(0, 1, height).view(1, 1, -1, 1)
    x = torch.linspace(0, 1, width).view(1, 1, 1, -1)
    shift = torch.rand(count, 1, 1, 1, generator=rng)
    stripes = 0.15 * ((12 * x + 3 * y + shift) % 1 > 0.5)
    shade = 0.35 + 0.25 * y + 0.1 * x
    noise = 0.02 * torch.rand(count, channels, height, width, generator=rng)
    return (shade + stripes + noise).expand(count, channels, height, width).clamp(0, 1).contiguous()


def assert_same(first: AnomalySample, second: AnomalySample) -> None:
    """Two samples are the same, bit for bit."""
    for name in FIELDS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.caption == second.caption
    assert first.reason == second.reason
    assert [p.to_dict() for p in first.provenance] == [p.to_dict() for p in second.provenance]


def pick(sample: AnomalySample, row: int) -> list:
    """One row of a sample, for comparison."""
    fields = [getattr(sample, name)[row] for name in FIELDS]
    return [*fields, sample.caption[row], sample.reason[row], sample.provenance[row].to_dict()]


def assert_row_equal(first: list, second: list) -> None:
    """Two rows are the same, bit for bit."""
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def check_shapes_and_types(sample: AnomalySample, images: torch.Tensor) -> None:
    """The sample has the shapes, types and ranges that are documented."""
    count, _, height, width = images.shape
    assert sample.image.shape == images.shape
    assert sample.image.dtype == images.dtype
    assert sample.image.device == images.device
    assert sample.mask.shape == (count, 1, height, width)
    assert sample.mask.dtype == torch.float32
    assert set(sample.mask.unique().tolist()) <= {0.0, 1.0}
    assert sample.quality.shape == (count,)
    assert bool(((sample.quality >= 0) & (sample.quality <= 1)).all())
    assert bool(((sample.image >= 0) & (sample.image <= 1)).all())
    assert len(sample.caption) == len(sample.reason) == len(sample.provenance) == count


def check_locality(sample: AnomalySample) -> None:
    """Where the mask is 0 the image is the source, exactly."""
    outside = (sample.mask == 0).expand_as(sample.image)
    assert torch.equal(sample.image[outside], sample.source[outside])


def check_honest_mask(sample: AnomalySample) -> None:
    """Accepted rows changed inside the mask; the others are unchanged, with a reason and no caption."""
    for row in range(len(sample)):
        if bool(sample.accepted[row]):
            inside = (sample.mask[row] > 0).expand_as(sample.image[row])
            change = (sample.image[row].float() - sample.source[row].float()).abs()[inside]
            assert float(change.mean()) >= 1 / 255
            assert sample.reason[row] == ""
            assert sample.caption[row]
            measured = sample.provenance[row].measured
            assert measured["area"] == pytest.approx(float(sample.mask[row].mean()), rel=1e-5)
            assert measured["visibility"] > 0
            assert 0 < measured["agreement"] <= 1
            assert 0 <= measured["foreground"] <= 1
        else:
            assert torch.equal(sample.image[row], sample.source[row])
            assert not sample.mask[row].any()
            assert float(sample.quality[row]) == 1.0
            assert sample.reason[row]
            assert sample.provenance[row].measured == {}


def check_labels_follow_masks(sample: AnomalySample) -> None:
    """``label``, mask and ``accepted`` agree."""
    assert torch.equal(sample.label, sample.mask.flatten(1).any(1))
    assert torch.equal(sample.label, sample.accepted)


def check_replay(make: Make, images: torch.Tensor, seeds: list[int], prepare_with: torch.Tensor | None = None) -> None:
    """Batch, order, chunking and process leave a sample as it is; provenance is enough to redraw it."""

    def fresh() -> AnomalyGenerator:
        generator = make()
        return generator if prepare_with is None else generator.prepare(prepare_with)

    whole = fresh()(images, seeds=seeds)
    order = list(reversed(range(len(images))))
    backwards = fresh()(images[order], seeds=[seeds[row] for row in order])
    redrawn = None
    for position, row in enumerate(order):
        assert_row_equal(pick(whole, row), pick(backwards, position))
        single = fresh()(images[row : row + 1], seeds=[seeds[row]])
        assert_row_equal(pick(whole, row), pick(single, 0))
        if bool(whole.accepted[row]):
            provenance = whole.provenance[row]
            redrawn = build_generator(provenance.config)
            if prepare_with is not None:
                redrawn.prepare(prepare_with)
                assert redrawn.prepare_digest == provenance.prepare_digest
            again = redrawn(images[row : row + 1], seeds=[provenance.seed])
            assert torch.equal(again.image[0], whole.image[row])


def check_purity(make: Make, images: torch.Tensor, seeds: list[int]) -> None:
    """Inputs are not modified, and neither torch's, NumPy's nor Python's global random state moves."""
    import random

    import numpy as np

    before = images.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    generator = make().prepare(images)
    sample = generator(images, seeds=seeds)
    sample.image.zero_()
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def check_all(make: Make, images: torch.Tensor, seeds: list[int], *, prepare_with: torch.Tensor | None = None) -> None:
    """Every invariant on one input."""
    generator = make()
    if prepare_with is not None:
        generator.prepare(prepare_with)
    sample = generator(images, seeds=seeds)
    check_shapes_and_types(sample, images)
    check_locality(sample)
    check_honest_mask(sample)
    check_labels_follow_masks(sample)

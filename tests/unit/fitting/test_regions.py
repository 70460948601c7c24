"""Regions that defects are learned in."""

from __future__ import annotations

import torch

from anomalib_synth.fitting.regions import vary_regions
from anomalib_synth.fitting.token_model import prepare_batch
from anomalib_synth.fitting.windows import WindowBatch, WindowSampler
from anomalib_synth.generators import RuleBasedGenerator
from tests.contract import render_normals
from tests.unit.models.small_bundle import make_models, vocabulary

GENERATOR = RuleBasedGenerator(["scratch", "stain"], size=(0.1, 0.6), foreground=None)


def draw(count: int = 24) -> WindowBatch:
    return WindowSampler(list(render_normals(3, 3, 80, 96)), GENERATOR, size=64, seed=5).draw(0, count)


def test_some_regions_are_other_shapes_with_the_defect_inside_alone_when_they_are_varied() -> None:
    batch = draw()
    before = batch.image.clone()
    varied = vary_regions(batch, 1)
    assert torch.equal(batch.image, before)
    assert torch.equal(varied.source, batch.source)
    other = (varied.mask != batch.mask).flatten(1).any(1)
    assert 0.2 < float(other.float().mean()) < 0.8
    for row in range(len(batch.mask)):
        inside = (varied.mask[row] > 0).expand(3, -1, -1)
        assert inside.any()
        assert torch.equal(varied.image[row][inside], batch.image[row][inside])
        assert torch.equal(varied.image[row][~inside], batch.source[row][~inside])
        assert (varied.mask[row] * batch.mask[row]).any()
    again = vary_regions(batch, 1)
    assert torch.equal(again.mask, varied.mask)
    assert not torch.equal(vary_regions(batch, 2).mask, varied.mask)
    assert torch.equal(vary_regions(batch, 1, share=0.0).mask, batch.mask)


def test_a_batch_shows_nothing_of_the_source_in_the_mask_when_it_is_prepared() -> None:
    batch, tokenizer = draw(6), make_models()["tokenizer"]
    inside = (batch.mask > 0).expand_as(batch.source)
    other = WindowBatch(**{**vars(batch), "source": torch.where(inside, torch.rand(batch.source.shape), batch.source)})
    first, second = (prepare_batch(tokenizer, each, vocabulary(), 2, 16) for each in (batch, other))
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.targets, second.targets)
    assert all(torch.equal(a, b) for a, b in zip(first.latents, second.latents, strict=True))

"""Locality holds to the last bit of the input, not of what the generator works with."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator
from tests import contract

MAKERS = {name: lambda name=name: RuleBasedGenerator([name]) for name in RuleBasedGenerator.available_families()} | {
    "mixture": lambda: MixtureGenerator([RuleBasedGenerator(["scratch"]), RuleBasedGenerator(["stain"])])
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("prepared", [True, False])
def test_pixels_are_kept_when_float32_cannot_hold_them(name, prepared) -> None:
    plain = contract.render_normals(6, 3, 64, 72, seed=1).double()
    noise = torch.rand(plain.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    images = (plain + 1e-9 * (noise - 0.5)).clamp(0, 1)
    assert (images.float().double() != images).float().mean() > 0.9
    generator = MAKERS[name]()
    sample = (generator.prepare(plain) if prepared else generator)(images, seeds=range(6))
    assert bool(sample.accepted.any()), sample.reason
    assert torch.equal(sample.source, images)
    assert sample.image.dtype == torch.float64
    contract.check_locality(sample)
    contract.check_honest_mask(sample)

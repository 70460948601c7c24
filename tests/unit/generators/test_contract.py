"""Every generator and every family keeps the invariants."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator, SampleChecks
from tests import contract

FAMILIES = RuleBasedGenerator.available_families()
NAMED = {name: functools.partial(RuleBasedGenerator, families=[name]) for name in FAMILIES} | {
    "every family": RuleBasedGenerator,
    "mixture": lambda: MixtureGenerator(
        [RuleBasedGenerator(["scratch"]), RuleBasedGenerator(["nsa", "noise"])], [2, 1]
    ),
}
EVERY = pytest.mark.parametrize("make", NAMED.values(), ids=NAMED.keys())
NORMALS = contract.render_normals(6, 3, 64, 72, seed=1)


def test_every_family_of_the_design_is_there() -> None:
    assert set(FAMILIES) == {
        *[
            "noise",
            "cutpaste",
            "cutpaste_scar",
            "cutout",
            "fpi",
            "nsa",
            "perlin_texture",
            "fractal",
            "destseg",
            "memseg",
            "realnet",
        ],
        *[
            "scratch",
            "crack",
            "dent",
            "stain",
            "hole",
            "chip",
            "fibre",
            "corrosion",
            "burn",
            "bubble",
            "misprint",
            "thread_pull",
            "deformation",
        ],
        *["uneven", "wear", "streaks", "fray"],
    }


@EVERY
def test_most_draws_are_accepted_when_normals_have_structure(make) -> None:
    sample = make().prepare(NORMALS)(contract.render_normals(16, 3, 96, 96), seeds=range(16))
    assert sample.accepted.float().mean() >= 0.75, sample.reason


@EVERY
def test_replay_when_prepared(make) -> None:
    contract.check_replay(make, contract.render_normals(5, 3, 65, 70), [3, 1, 4, 1, 5], NORMALS)


@EVERY
def test_replay_when_unprepared(make) -> None:
    contract.check_replay(make, contract.render_normals(4, 3, 48, 56), [9, 2, 6, 5])


@EVERY
def test_purity(make) -> None:
    contract.check_purity(make, contract.render_normals(4, 3, 40, 40), [1, 2, 3, 4])


@EVERY
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    channels=st.sampled_from([1, 3]),
    count=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    prepared=st.booleans(),
)
def test_invariants_whatever_the_input(make, size, channels, count, seed, dtype, prepared) -> None:
    images = contract.render_normals(count, channels, *size, seed=seed % 1000).to(dtype)
    normals = contract.render_normals(3, channels, *size, seed=7) if prepared else None
    contract.check_all(make, images, [seed] * count, prepare_with=normals)


@EVERY
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_invariants_when_the_image_is_constant(make, level) -> None:
    images = torch.full((3, 3, 40, 40), level)
    contract.check_all(make, images, [1, 2, 3], prepare_with=images)


@EVERY
def test_batch_of_none_is_returned_empty(make) -> None:
    part = torch.full((4, 3, 32, 32), 0.9)
    part[..., 8:24, 8:24] = 0.3
    for generator in (make(), make().prepare(part)):
        sample = generator(torch.zeros(0, 3, 32, 32), seeds=[])
        assert sample.image.shape == (0, 3, 32, 32)


@EVERY
def test_replay_when_the_part_is_an_object_and_a_mask_is_given(make) -> None:
    images = torch.full((4, 3, 64, 64), 0.9)
    images[..., 12:52, 12:52] = contract.render_normals(4, 3, 40, 40)
    contract.check_replay(make, images, [1, 2, 3, 4], images)
    region = torch.zeros(4, 1, 64, 64)
    region[..., 20:40, 20:40] = 1
    whole = make().prepare(images)(images, seeds=[1, 2, 3, 4], masks=region)
    for row in range(4):
        single = make().prepare(images)(images[row : row + 1], seeds=[row + 1], masks=region[row : row + 1])
        contract.assert_row_equal(contract.pick(whole, row), contract.pick(single, 0))


@EVERY
def test_other_channels_than_prepared_are_refused(make) -> None:
    with pytest.raises(ValueError, match="1 channels, but the generator was prepared with 3"):
        make().prepare(NORMALS)(torch.rand(2, 1, 32, 32), seeds=[1, 2])


@pytest.mark.parametrize("family", FAMILIES)
def test_visibility_grows_with_strength(family) -> None:
    images = contract.render_normals(8, 3, 96, 96)
    changes = []
    for strength in (0.25, 0.5, 0.75, 1.0):
        free = SampleChecks(min_visibility=0, min_agreement=0, min_foreground=0, area=(0, 1))
        generator = RuleBasedGenerator([family], strength=(strength, strength), checks=free, max_attempts=1)
        sample = generator.prepare(NORMALS)(images, seeds=range(8))
        changes.append((sample.image - sample.source).abs().flatten(1).sum(1))
    for weaker, stronger in itertools.pairwise(changes):
        assert bool((stronger >= weaker - 1e-4).all())
    assert bool((changes[-1] > changes[0]).any())


def test_seeds_are_derived_and_move_on_when_none_are_given() -> None:
    images = contract.render_normals(2, 3, 64, 64)
    generator, twin = RuleBasedGenerator(["noise"]), RuleBasedGenerator(["noise"])
    first, second = generator(images), generator(images)
    assert not torch.equal(first.image, second.image)
    contract.assert_same(first, twin(images))
    assert not torch.equal(first.image, RuleBasedGenerator(["noise"], seed=1)(images).image)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EVERY
def test_invariants_on_cuda(make) -> None:
    images = contract.render_normals(6, 3, 96, 96).cuda()
    contract.check_all(make, images, [1, 2, 3, 4, 5, 6], prepare_with=NORMALS)
    contract.check_replay(make, images, [1, 2, 3, 4, 5, 6], NORMALS)

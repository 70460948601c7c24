"""What every generator is: called, prepared and described in one place; what a generator of one's own needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from anomalib_synth.generators import (
    AnomalyGenerator,
    FilteredGenerator,
    MixtureGenerator,
    Proposal,
    ProposingGenerator,
    RuleBasedGenerator,
    SampleChecks,
    ScoredGenerator,
    WrappingGenerator,
    build_generator,
)
from anomalib_synth.generators.seeding import RandomStream
from tests import contract

NORMALS = contract.render_normals(4, 3, 64, 64, seed=1)
IMAGES = contract.render_normals(2, 3, 64, 64)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Settings of a generator of one's own."""

    level: float = 0.9
    sides: tuple[int, int] = (8, 12)


class SpotGenerator(ProposingGenerator):
    """A generator of one's own: a square spot."""

    def __init__(
        self, folder: Path | str = "x", *, look: Look | None = None, spread: tuple[float, float] = (0, 1), **o
    ):
        super().__init__(**o)
        self.folder, self.look, self.spread = Path(folder), look or Look(), spread

    def propose(self, images, rows, seeds, part, condition):
        for row, seed in zip(rows, seeds, strict=True):
            rng, side = RandomStream(seed), min(self.look.sides[0], *images.shape[-2:])
            yield Proposal(
                rows=[row],
                top=[rng.integer(0, images.shape[2] - side)],
                left=[rng.integer(0, images.shape[3] - side)],
                target=images.new_full((1, images.shape[1], side, side), self.look.level),
                alpha=images.new_full((1, 1, side, side), 0.7),
                support=torch.ones(1, 1, side, side, dtype=torch.bool),
                families=["spot"],
                captions=["a spot"],
                params=[{}],
            )


class TwiceGenerator(WrappingGenerator):
    """A generator of one's own around two others: the first, and the second where that gives up."""

    def __init__(self, generators, *, seed=0):
        super().__init__(seed=seed)
        self.generators = generators

    @property
    def wrapped(self):
        return self.generators

    def draw(self, images, seeds, condition):
        sample = self.generators[0](images, seeds=seeds, **condition.to_arguments())
        rows = (~sample.accepted).nonzero().flatten().tolist()
        if rows:
            asked = condition.take(rows).to_arguments()
            sample.place(rows, self.generators[1](images[rows], seeds=[seeds[row] for row in rows], **asked))
        return sample


def test_contract_is_kept_when_the_generator_is_of_ones_own() -> None:
    contract.check_contract(SpotGenerator)
    contract.check_contract(lambda: TwiceGenerator([RuleBasedGenerator(["scratch"], max_attempts=1), SpotGenerator()]))


def test_config_builds_an_equal_generator_when_arguments_are_settings_paths_and_ranges() -> None:
    original = SpotGenerator("a/b", look=Look(sides=(3, 5)), spread=(0.2, 0.4), max_attempts=2, checks=SampleChecks())
    config = json.loads(json.dumps(original.config))
    assert list(config["init_args"]) == ["folder", "look", "spread", "checks", "foreground", "max_attempts", "seed"]
    twin = build_generator(config)
    assert (twin.look, twin.spread, twin.folder, twin.checks) == (
        Look(sides=(3, 5)), (0.2, 0.4), Path("a/b"), SampleChecks(),
    )  # fmt: skip
    assert twin.config == original.config
    nested = TwiceGenerator([RuleBasedGenerator(["scratch"]), MixtureGenerator([original])])
    assert build_generator(json.loads(json.dumps(nested.config))).config == nested.config


def test_later_argument_is_left_out_when_it_has_its_default() -> None:
    class Later(SpotGenerator):
        later_arguments = frozenset({"spread"})

    assert "spread" not in Later().config["init_args"]
    assert Later(spread=(0, 0.5)).config["init_args"]["spread"] == [0, 0.5]


def test_copy_is_prepared_and_differs_in_one_argument_when_it_is_replaced() -> None:
    original = SpotGenerator(look=Look(level=0.1), max_attempts=3).prepare(NORMALS)
    twin = original.replace(spread=(0.5, 0.6))
    assert twin.config["init_args"] == original.config["init_args"] | {"spread": [0.5, 0.6]}
    assert twin.prepared is original.prepared
    assert twin.look is original.look


def test_class_is_refused_when_it_proposes_without_the_base_that_checks() -> None:
    with pytest.raises(TypeError, match=r"Old proposes defects, so it must derive from .*ProposingGenerator"):

        class Old(AnomalyGenerator):
            @property
            def init_args(self):
                return {}

            def propose(self, images, rows, seeds, part):
                yield


def test_argument_is_named_when_it_is_not_kept() -> None:
    class Forgetful(SpotGenerator):
        def __init__(self, colour: str = "red") -> None:
            super().__init__()

    with pytest.raises(TypeError, match=r"`colour` must be kept by Forgetful as `self.colour`, where"):
        Forgetful()(IMAGES, seeds=[1, 2])


def test_argument_is_named_when_it_is_no_plain_data() -> None:
    class Odd(SpotGenerator):
        def __init__(self, bank: torch.Tensor) -> None:
            super().__init__()
            self.bank = bank

    with pytest.raises(
        TypeError, match=r"`bank` of Odd must be plain data, a dataclass of such, or a generator.*Tensor"
    ):
        _ = Odd(torch.zeros(2)).config


def wrap_filter(inner):
    return FilteredGenerator(inner)


@pytest.mark.parametrize("wrap", [ScoredGenerator, wrap_filter, lambda inner: MixtureGenerator([inner])])
def test_wrapper_is_prepared_when_its_generator_is_prepared_later(wrap) -> None:
    inner = RuleBasedGenerator(["scratch"])
    outer = wrap(inner)
    assert outer.prepared is None
    assert outer.prepare_digest == ""
    inner.prepare(NORMALS)
    assert outer.prepared is inner.prepared
    inner.prepare(NORMALS.flip(-1))
    assert outer.prepared is inner.prepared
    assert outer.prepare_digest not in {"", wrap(RuleBasedGenerator().prepare(NORMALS)).prepare_digest}
    with pytest.raises(AttributeError):
        outer.prepared = None


def test_mixture_is_unprepared_when_one_of_its_generators_is() -> None:
    first, second = RuleBasedGenerator(["scratch"]).prepare(NORMALS), RuleBasedGenerator(["nsa"])
    mixture = MixtureGenerator([first, second])
    assert mixture.prepared is None
    second.use_prepared(first.prepared)
    assert mixture.prepared is first.prepared


def test_filter_follows_the_normals_when_its_generator_is_prepared_with_others() -> None:
    generator = FilteredGenerator(RuleBasedGenerator(["scratch"])).prepare(NORMALS)
    before = generator.filter
    assert generator.filter is before
    generator.generator.prepare(contract.render_normals(5, 3, 64, 64, seed=9))
    assert generator.filter is not before
    fresh = FilteredGenerator(RuleBasedGenerator(["scratch"])).prepare(contract.render_normals(5, 3, 64, 64, seed=9))
    contract.assert_same(generator(IMAGES, seeds=[1, 2]), fresh(IMAGES, seeds=[1, 2]))

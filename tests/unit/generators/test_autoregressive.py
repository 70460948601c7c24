"""The autoregressive generator, with tiny random models: everything but what was learned."""

from __future__ import annotations

import warnings

import pytest
import torch

from anomalib_synth.generators import (
    AutoregressiveGenerator,
    MixtureGenerator,
    RuleBasedGenerator,
    SampleChecks,
    local_edits,
)
from anomalib_synth.generators.from_config import build_generator
from anomalib_synth.generators.local_edits import draw_into
from anomalib_synth.generators.windows import find_inside, find_shape
from anomalib_synth.models.editing import Sampling, Template
from tests import contract
from tests.round_parts import BESIDE, parts
from tests.unit.models.small_bundle import make_bundle

LOOSE = SampleChecks(min_visibility=0.05, min_agreement=0.01)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(make_bundle(tmp_path_factory.mktemp("bundle")).path)


@pytest.fixture
def make(bundle):
    return lambda **options: AutoregressiveGenerator(bundle=bundle, **{"checks": LOOSE, **options})


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 96, 80), (1, 64, 72), (3, 33, 47), (3, 16, 150)])
@pytest.mark.parametrize("prepared", [False, True])
def test_contract_is_kept(make, channels, height, width, prepared) -> None:
    images = contract.render_normals(3, channels, height, width)
    normals = contract.render_normals(3, channels, height, width, seed=1) if prepared else None
    contract.check_all(make, images, [5, 6, 7], prepare_with=normals)


def test_replay_holds(make) -> None:
    images = contract.render_normals(4, 3, 72, 72)
    contract.check_replay(make, images, [1, 2, 3, 4], prepare_with=images)


def test_purity_holds(make) -> None:
    contract.check_purity(make, contract.render_normals(2, 3, 64, 64), [1, 2])


def test_threads_change_nothing_and_are_given_back(make) -> None:
    images = contract.render_normals(2, 3, 96, 96)
    before = torch.get_num_threads()
    one = make()(images, seeds=[1, 2])
    torch.set_num_threads(2)
    try:
        two = make()(images, seeds=[1, 2])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    contract.assert_same(one, two)


def test_an_edit_stays_on_the_part(make) -> None:
    generator = make(size=(0.2, 0.5), strength=(1.0, 1.0)).prepare(parts(8, seed=1))
    assert generator.prepared.foreground.threshold is not None
    ask = {"seeds": range(8), "prompts": ["a large dark stain"] * 8}
    sample = generator(parts(8), **ask)
    assert sample.accepted.sum() >= 4, sample.reason
    assert not ((sample.image != sample.source).any(1, keepdim=True) & BESIDE).any()
    spilt = generator.replace(foreground=None)(parts(8), **ask)
    assert ((spilt.mask > 0) & BESIDE).any()


def test_colour_of_an_edit_varies_less_than_its_brightness(make) -> None:
    sample = make(size=(0.3, 0.5), strength=(1.0, 1.0))(contract.render_normals(6, 3, 96, 96), seeds=range(6))
    assert sample.accepted.all(), sample.reason
    grey = sample.image.mean(1, keepdim=True)
    inner = sample.mask[..., 2:-2] * sample.mask[..., :-4] * sample.mask[..., 4:]  # the border mixes in the source
    steps = [each.diff(dim=-1)[..., 1:-2].abs().amax(1, keepdim=True) for each in (sample.image - grey, grey)]
    colour, brightness = (each[inner > 0].mean() for each in steps)
    assert colour < 0.2 * brightness


def test_colour_of_the_source_stays_as_far_as_it_is_not_drawn_anew(make) -> None:
    generator = make()
    stripes = torch.zeros(3, 64, 64)
    stripes[0, :, ::16], stripes[2] = 0.8, 0.3
    shape = find_shape(generator.shapes, "a large stain", 3, 64, 64)
    outline = generator.shapes.propose_one(stripes[None], 0, *shape, None)
    place = find_inside(outline, 0, 0)
    moved = []
    for strength in (0.0, 0.02, 1.0):
        drawn, _ = draw_into(
            generator.backend, stripes, outline, "a stain", seed=1, sampling=Sampling(), strength=strength
        )
        moved.append(float((drawn[0] - stripes[:, *place]).abs().max()))
    assert moved[0] < 1e-5
    assert moved[1] < 0.1 < moved[2]


@pytest.mark.parametrize("variation", [0.0, 1.0])
def test_colour_of_a_template_stays_as_far_as_it_is_not_drawn_anew(make, monkeypatch, variation) -> None:
    generator, image = make(), contract.render_normals(1, 3, 64, 64)
    outline = generator.shapes.propose_one(image, 0, *find_shape(generator.shapes, "a large stain", 3, 64, 64), None)
    monkeypatch.setattr(local_edits, "smooth_tint", lambda images, *_, **__: torch.zeros_like(images))
    template = Template(image=image.flip(3), variation=variation)
    drawn, _ = draw_into(
        generator.backend, image[0], outline, "a stain", seed=1, sampling=Sampling(), template=template
    )
    assert bool((drawn > 0).any()) == (variation == 0)


def test_empty_region_returns_the_input(make) -> None:
    images = contract.render_normals(2, 3, 64, 64)
    sample = make()(images, seeds=[1, 2], masks=torch.zeros(2, 1, 64, 64))
    assert torch.equal(sample.image, images)
    assert not sample.accepted.any()


def test_region_holds_the_defect(make) -> None:
    images = contract.render_normals(4, 3, 128, 128)
    masks = torch.zeros(4, 1, 128, 128)
    masks[..., 60:, 60:] = 1
    sample = make(size=(0.05, 0.1))(images, seeds=[1, 2, 3, 4], masks=masks)
    assert sample.accepted.any()
    for row in sample.accepted.nonzero().flatten():
        assert (sample.mask[row] * masks[row]).sum() >= 0.6 * sample.mask[row].sum()


def test_prompt_is_caption_family_and_provenance(make) -> None:
    images = contract.render_normals(3, 3, 96, 96)
    prompts = ["a dark scratch", "a stain", "a round dent"]
    sample = make()(images, seeds=[1, 2, 3], prompts=prompts)
    for row in sample.accepted.nonzero().flatten().tolist():
        assert sample.caption[row] == sample.provenance[row].prompt == prompts[row]
        assert sample.provenance[row].family == ["scratch", "stain", "dent"][row]
        assert sample.provenance[row].params["leakage"] > 0
    assert sample.accepted.any()


def test_prompts_of_the_constructor_are_drawn_from(make) -> None:
    images = contract.render_normals(12, 3, 64, 64)
    sample = make(prompts=["a dark scratch", "a stain"])(images, seeds=list(range(12)))
    assert {caption for caption in sample.caption if caption} == {"a dark scratch", "a stain"}


def test_rows_keep_their_own_prompt_when_only_some_are_redrawn(make) -> None:
    images = contract.render_normals(2, 3, 96, 96)
    both = make()(images, seeds=[1, 2], prompts=["a dark scratch", "a stain"])
    second = make()(images[1:], seeds=[2], prompts=["a stain"])
    assert torch.equal(both.image[1], second.image[0])


def test_mix_moves_from_one_prompt_to_the_other(make) -> None:
    images = contract.render_normals(1, 3, 96, 96)
    ends = [make()(images, seeds=[3], prompts=["a stain"], prompts_to=["a dark scratch"], mix=mix) for mix in (0, 1)]
    plain = make()(images, seeds=[3], prompts=["a stain"])
    assert torch.equal(ends[0].image, plain.image)
    assert not torch.equal(ends[1].image, plain.image)


def test_unknown_words_are_reported_once_and_place_words_never(make) -> None:
    images, generator = contract.render_normals(1, 3, 64, 64), make()
    with pytest.warns(UserWarning, match="never saw 'flabbergasting'"):
        generator(images, seeds=[1], prompts=["a flabbergasting stain at the top left"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator(images, seeds=[1], prompts=["a flabbergasting stain at the bottom right"])


def test_position_words_place_the_defect(make) -> None:
    images = contract.render_normals(6, 3, 160, 160)
    sample = make(size=(0.05, 0.1), foreground=None)(images, seeds=list(range(6)), prompts=["a stain top left"] * 6)
    for row in sample.accepted.nonzero().flatten().tolist():
        params = sample.provenance[row].params
        assert max(params["centre_y"], params["centre_x"]) <= 160 / 3
    assert sample.accepted.any()


@pytest.mark.parametrize(("noun", "small", "large"), [("stain", "small", "large"), ("scratch", "short", "long")])
def test_a_defect_has_the_size_when_a_prompt_names_one(make, noun, small, large) -> None:
    shapes = make(size=(0.04, 0.4)).shapes
    for seed in range(20):
        less, more = (
            max(params["extent_y"], params["extent_x"])
            for _, params in (find_shape(shapes, f"a {word} dark {noun}", seed, 256, 256) for word in (small, large))
        )
        assert less < more
    assert find_shape(shapes, f"a {small} {noun}", 3, 256, 256)[0].name == noun


def test_a_large_image_costs_no_larger_window(make) -> None:
    generator, sides = make(foreground=None, size=(0.2, 0.25)), []
    backend = generator.backend
    encode = backend.encode
    backend.encode = lambda image: sides.append(image.shape[-1]) or encode(image)
    generator(contract.render_normals(3, 3, 1200, 1400), seeds=[1, 2, 3])
    assert max(sides) <= 256


def test_colour_stays_out_of_grey_images(make) -> None:
    images = contract.render_normals(3, 1, 80, 80).expand(-1, 3, -1, -1).contiguous()
    sample = make()(images, seeds=[1, 2, 3])
    assert sample.accepted.any()
    assert torch.equal(sample.image[:, 0], sample.image[:, 1])


def test_it_mixes_with_others_and_rebuilds_from_its_config(make) -> None:
    images = contract.render_normals(4, 3, 64, 64)
    contract.check_replay(
        lambda: MixtureGenerator([make(sampling=Sampling(temperature=0.8)), RuleBasedGenerator(["nsa"])]),
        images,
        [1, 2, 3, 4],
    )


def test_nothing_is_loaded_by_the_constructor() -> None:
    generator = AutoregressiveGenerator(bundle="no/such/folder")
    with pytest.raises(ValueError, match="is no bundle"):
        generator(contract.render_normals(1, 3, 64, 64), seeds=[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": ["a stain"]}, "`prompts` must be 2 texts"),
        ({"prompts": "a stain"}, "`prompts` must be 2 texts"),
        ({"prompts": ["a stain"] * 2, "prompts_to": ["a dent"]}, "`prompts_to` must be 2 texts"),
        ({"prompts": ["a stain"] * 2, "mix": 2.0}, "`mix` must be in"),
        ({"prompts_to": ["a stain"] * 2}, "needs `prompts`"),
    ],
)
def test_bad_calls_are_refused(make, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()(contract.render_normals(2, 3, 64, 64), seeds=[1, 2], **options)


@pytest.mark.parametrize(("name", "value"), [("strength", (0, 1)), ("size", (0.5, 0.2)), ("prompts", [])])
def test_bad_arguments_are_refused(name, value) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must"):
        AutoregressiveGenerator(**{name: value})


def test_a_vocabulary_of_prompts_survives_a_config(make) -> None:
    words = {"types": ["scratch", "stain"], "positions": ["top left", ""]}
    generator = make(prompts=words)
    assert generator.config["init_args"]["prompts"] == words
    again = build_generator(generator.config)
    images = contract.render_normals(2, 3, 96, 96)
    assert torch.equal(generator(images, seeds=[1, 2]).image, again(images, seeds=[1, 2]).image)
    assert set(again.texts) == {"a scratch", "a scratch top left", "a stain", "a stain top left"}

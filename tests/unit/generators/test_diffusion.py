"""The diffusion generator, with a tiny random pipeline: everything but what was learned."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anomalib_synth.commands.generate import generate
from anomalib_synth.functional.changes import fade_border, find_change
from anomalib_synth.functional.masks import box_blur
from anomalib_synth.generators import (
    DiffusionGenerator,
    DiffusionRetrievalGenerator,
    MixtureGenerator,
    RuleBasedGenerator,
    SampleChecks,
    diffusion,
)
from anomalib_synth.generators.from_config import build_generator
from anomalib_synth.models.diffusion import DiffusionSettings
from anomalib_synth.retrieval.settings import FilterSettings
from anomalib_synth.store import SampleStore
from tests import contract
from tests.round_parts import BESIDE, parts
from tests.unit.models.small_diffusion import make_pipeline

LOOSE = SampleChecks(min_visibility=0.02, min_agreement=0.01, min_foreground=0.1)
FAST = DiffusionSettings(num_inference_steps=1, batch_size=2)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> str:
    return str(make_pipeline(tmp_path_factory.mktemp("diffusion") / "pipeline"))


@pytest.fixture(scope="module")
def loaded(pipeline):
    return DiffusionGenerator(pipeline=pipeline, editing=FAST).editor.pipe


@pytest.fixture
def make(pipeline, loaded):
    def build(**options: object) -> DiffusionGenerator:
        generator = DiffusionGenerator(pipeline=pipeline, **{"editing": FAST, "checks": LOOSE, **options})
        generator.editor.__dict__["pipe"] = loaded
        return generator

    return build


def darken(windows, prompts, *, seeds, masks):
    """An editor that does as it is told: darker a little beyond the region, with the noise of the seed; no text, no
    change.
    """
    changes = []
    for window, prompt, seed, mask in zip(windows, prompts, seeds, masks, strict=True):
        noise = 0.01 * torch.randn(window.shape, generator=torch.Generator().manual_seed(seed))
        changes.append(noise - (0.3 * (box_blur(mask[None], 4)[0] > 0) if prompt else 0.0))
    return changes


@pytest.fixture
def obedient(make):
    def build(**options: object) -> DiffusionGenerator:
        generator = make(**{"foreground": None, "max_attempts": 1, **options})
        generator.editor.edit = darken
        return generator

    return build


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 96, 80), (1, 64, 72), (3, 33, 47), (3, 16, 150)])
@pytest.mark.parametrize("mask_mode", ["change", "region"])
def test_contract_is_kept(make, channels, height, width, mask_mode) -> None:
    images = contract.render_normals(3, channels, height, width)
    prepare = images if height == 96 else None
    contract.check_all(lambda: make(mask_mode=mask_mode), images, [5, 6, 7], prepare_with=prepare)


@pytest.mark.parametrize("mask_mode", ["change", "region"])
def test_replay_holds(make, mask_mode) -> None:
    images = contract.render_normals(3, 3, 112, 112)
    # of a random pipeline's edits, only those that follow the text much stand out of its edit without one
    options = {"mask_mode": mask_mode, "max_attempts": 2, "editing": replace(FAST, guidance_scale=50.0)}
    contract.check_replay(lambda: make(**options), images, [1, 2, 3], prepare_with=images)


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


@pytest.mark.parametrize("mask_mode", ["change", "region"])
def test_most_draws_are_accepted_and_the_mask_is_of_its_mode(obedient, mask_mode) -> None:
    images = contract.render_normals(6, 3, 128, 128)
    generator = obedient(mask_mode=mask_mode)
    regions, draw = [], generator._draw_task
    generator._draw_task = lambda *args: regions.append(draw(*args)) or regions[-1]
    sample = generator(images, seeds=list(range(6)))
    assert int(sample.accepted.sum()) >= 5, sample.reason
    contract.check_locality(sample)
    contract.check_honest_mask(sample)
    for row in sample.accepted.nonzero().flatten().tolist():
        task = regions[row]
        region = torch.zeros(1, 128, 128)
        side = task.window.shape[-1]
        region[:, task.top : task.top + side, task.left : task.left + side] = task.mask
        beyond = (sample.mask[row] * (1 - region)).sum()
        assert (beyond == 0) == (mask_mode == "region")
        assert (sample.mask[row] * region).sum() > 0.5 * region.sum()


@pytest.mark.parametrize("mask_mode", ["change", "region"])
def test_an_edit_stays_on_the_part(obedient, mask_mode) -> None:
    options = {"mask_mode": mask_mode, "size": (0.2, 0.5), "strength": (1.0, 1.0), "max_attempts": 4}
    ask = {"seeds": range(8), "prompts": ["a large dark stain"] * 8}
    generator = obedient(**options, foreground="auto").prepare(parts(8, seed=1))
    assert generator.prepared.foreground.threshold is not None
    sample = generator(parts(8), **ask)
    assert sample.accepted.sum() >= 4, sample.reason
    assert not ((sample.image != sample.source).any(1, keepdim=True) & BESIDE).any()
    spilt = obedient(**options).prepare(parts(8, seed=1))(parts(8), **ask)
    assert ((spilt.mask > 0) & BESIDE).any()


def test_nothing_is_edited_where_an_outline_is_off_the_part(obedient, monkeypatch) -> None:
    def lose_first(shape):
        return replace(shape, support=shape.support & (shape.rows[0] > 0))

    generator, edited = obedient(), []
    monkeypatch.setattr(diffusion, "keep_on_part", lose_first)
    generator.editor.edit = lambda windows, *args, **rest: edited.append(len(windows)) or darken(windows, *args, **rest)
    sample = generator(contract.render_normals(3, 3, 96, 96), seeds=[1, 2, 3])
    assert edited == [4]  # two windows, each with its null edit
    assert sample.accepted.tolist() == [False, True, True]
    edited.clear()
    assert not generator(contract.render_normals(1, 3, 96, 96), seeds=[1]).accepted.any()
    assert not edited


def test_what_the_null_edit_changes_too_is_left_out(obedient) -> None:
    images = contract.render_normals(2, 3, 96, 96)
    generator, calls = obedient(strength=(1.0, 1.0)), []
    darken_too = generator.editor.edit

    def edit(windows, prompts, **rest):
        calls.append(rest["seeds"])
        return [change + 0.1 for change in darken_too(windows, prompts, **rest)]

    generator.editor.edit = edit
    shifted, plain = generator(images, seeds=[1, 2]), obedient(strength=(1.0, 1.0))(images, seeds=[1, 2])
    assert calls[0][:2] == calls[0][2:]
    both = (shifted.mask * plain.mask).expand_as(images) > 0
    assert both.any()
    assert (shifted.image - plain.image).abs()[both].median() < 1e-6  # it may differ at the border


def test_change_grows_with_strength(obedient) -> None:
    images = contract.render_normals(3, 3, 96, 96)
    free = SampleChecks(min_visibility=0, min_agreement=0, min_foreground=0, area=(0, 1))
    changes = []
    for strength in (0.25, 0.5, 1.0):
        sample = obedient(strength=(strength, strength), checks=free)(images, seeds=[1, 2, 3])
        changes.append((sample.image - sample.source).abs().flatten(1).sum(1))
    for weaker, stronger in itertools.pairwise(changes):
        assert bool((stronger > weaker).all())


def test_prompt_is_caption_family_instruction_and_provenance(obedient) -> None:
    images, generator, told = contract.render_normals(3, 3, 96, 96), obedient(), []
    prompts = ["a dark scratch", "a stain", "a round dent"]
    edit = generator.editor.edit
    generator.editor.edit = lambda windows, texts, **rest: told.append(texts) or edit(windows, texts, **rest)
    sample = generator(images, seeds=[1, 2, 3], prompts=prompts)
    assert told[0] == [*prompts, "", "", ""]
    assert sample.accepted.any()
    for row in sample.accepted.nonzero().flatten().tolist():
        assert sample.caption[row] == sample.provenance[row].prompt == prompts[row]
        assert sample.provenance[row].family == ["scratch", "stain", "dent"][row]
        assert sample.provenance[row].params["null_noise"] >= 2 / 255


def test_prompts_of_the_constructor_are_drawn_from(obedient) -> None:
    images = contract.render_normals(8, 3, 64, 64)
    sample = obedient(prompts=["a dark scratch", "a stain"])(images, seeds=list(range(8)))
    assert {caption for caption in sample.caption if caption} == {"a dark scratch", "a stain"}


def test_position_words_place_the_region(obedient) -> None:
    images = contract.render_normals(4, 3, 160, 160)
    sample = obedient()(images, seeds=list(range(4)), prompts=["a stain top left"] * 4)
    for row in sample.accepted.nonzero().flatten().tolist():
        params = sample.provenance[row].params
        assert max(params["centre_y"], params["centre_x"]) <= 160 / 3
    assert sample.accepted.any()


def test_a_large_image_costs_no_larger_window(make) -> None:
    generator, sides = make(foreground=None, size=(0.2, 0.25), max_attempts=1), []
    edit = generator.editor.edit
    generator.editor.edit = lambda windows, *rest, **options: (
        sides.extend(window.shape[-1] for window in windows) or edit(windows, *rest, **options)
    )
    generator(contract.render_normals(1, 3, 1200, 1400), seeds=[1])
    assert max(sides) <= 256


def test_colour_stays_out_of_grey_images(obedient) -> None:
    images = contract.render_normals(3, 1, 80, 80).expand(-1, 3, -1, -1).contiguous()
    sample = obedient()(images, seeds=[1, 2, 3])
    assert sample.accepted.any()
    assert torch.equal(sample.image[:, 0], sample.image[:, 1])


def test_empty_region_returns_the_input(make) -> None:
    images = contract.render_normals(2, 3, 64, 64)
    sample = make(max_attempts=1)(images, seeds=[1, 2], masks=torch.zeros(2, 1, 64, 64))
    assert torch.equal(sample.image, images)
    assert not sample.accepted.any()


def test_it_mixes_with_others_and_rebuilds_from_its_config(make) -> None:
    images = contract.render_normals(3, 3, 64, 64)
    contract.check_replay(lambda: MixtureGenerator([make(), RuleBasedGenerator(["nsa"])]), images, [1, 2, 3])
    generator = make(prompts={"types": ["scratch"], "positions": ["", "left"]}, mask_mode="region")
    again = build_generator(generator.config)
    assert again.config == generator.config
    assert again.editing == FAST


def test_a_store_keeps_its_samples_with_the_digest_of_the_weights(make, parts_root, tmp_path) -> None:
    generator = make(max_attempts=2)
    generate(parts_root / "train" / "good", out=tmp_path, generator=generator, num_samples=3, image_size=64, workers=1)
    records = SampleStore.open(tmp_path).records
    assert len(records) == 3
    assert {record.weights_hash for record in records} == {generator.weights_hash}


def test_unknown_words_are_reported_once_when_the_card_lists_words(obedient) -> None:
    images, generator = contract.render_normals(1, 3, 64, 64), obedient()
    generator.editor.__dict__["card"] = {"words": ["a", "stain"]}
    with pytest.warns(UserWarning, match="never saw 'flabbergasting'"):
        generator(images, seeds=[1], prompts=["a flabbergasting stain at the top left"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator(images, seeds=[1], prompts=["a flabbergasting stain at the bottom right"])


def test_nothing_is_loaded_by_the_constructor(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    generator = DiffusionGenerator()
    assert generator.init_args["pipeline"] == "timbrooks/instruct-pix2pix"
    with pytest.raises(ValueError, match="fit --diffusion"):
        generator(contract.render_normals(1, 3, 64, 64), seeds=[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [("strength", (0, 1)), ("size", (0.5, 0.2)), ("prompts", []), ("mask_mode", "both")],
)
def test_bad_arguments_are_refused(name, value) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must"):
        DiffusionGenerator(**{name: value})


def test_bad_calls_are_refused(make) -> None:
    with pytest.raises(ValueError, match="`prompts` must be 2 texts"):
        make()(contract.render_normals(2, 3, 64, 64), seeds=[1, 2], prompts=["a stain"])


def test_a_change_is_found_above_the_noise_of_the_null_edit_and_cleaned() -> None:
    rng = torch.Generator().manual_seed(0)
    null = 0.02 * torch.randn(3, 64, 64, generator=rng)
    change = 0.01 * torch.randn(3, 64, 64, generator=rng)
    change[:, 20:40, 20:40] += 0.3
    change[:, 28:32, 28:32] = 0  # a hole
    change[:, 5, 5] += 0.6  # a speck
    change[:, 50:60, 50:60] += 0.03  # no more than the null edit's own
    mask, level = find_change(change, null)
    assert mask[0, 0, 18:42, 18:42].sum() == mask.sum()
    assert mask[0, 0, 21:39, 21:39].all()
    assert 0.02 < level < 0.05
    assert not find_change(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))[0].any()
    assert not find_change(null, null)[0].any()


def test_a_window_fades_where_the_image_goes_on() -> None:
    weight = fade_border(16, (True, False, False, False), width=4)
    assert weight[0, :, 0].tolist() == [0.125, 0.375, 0.625, 0.875, *[1.0] * 12]
    assert weight[0, -1].tolist() == [1.0] * 16


def test_files_of_the_pipeline_are_in_the_hash(make, pipeline) -> None:
    assert make().weights_hash == DiffusionGenerator(pipeline=str(Path(pipeline))).weights_hash


def test_edits_are_filtered_by_retrieval(pipeline) -> None:
    assert DiffusionRetrievalGenerator().init_args["generator"]["init_args"]["pipeline"] == "timbrooks/instruct-pix2pix"
    edits = DiffusionGenerator(pipeline=pipeline, editing=FAST, checks=LOOSE, foreground=None, mask_mode="region")
    settings = FilterSettings(embedder="bundle", min_visibility=0.0)
    images = contract.render_normals(4, 3, 96, 96)
    with pytest.raises(ValueError, match="compares samples with real normals and has none"):
        DiffusionRetrievalGenerator(edits, retrieval=settings)(images, seeds=[1, 2, 3, 4])
    generator = DiffusionRetrievalGenerator(edits, retrieval=settings, budget=1).prepare(images)
    sample = generator(images, seeds=[1, 2, 3, 4])
    kept = [record.measured for record in sample.provenance if record.family]
    assert all({"similarity", "loss_of_similarity"} <= set(measured) for measured in kept)
    assert generator.config["class_path"] == "anomalib_synth.generators.DiffusionRetrievalGenerator"
    again = build_generator(generator.config).prepare(images)
    assert torch.equal(again(images, seeds=[1, 2, 3, 4]).image, sample.image)

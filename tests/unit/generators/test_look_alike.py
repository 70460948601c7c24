"""Look-alikes of a real defect: pasted, and drawn anew from its tokens, with tiny random models."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from anomalib_synth.generators import (
    AutoregressiveGenerator,
    LookAlikeGenerator,
    MixtureGenerator,
    RealDefectGenerator,
    RuleBasedGenerator,
    SampleChecks,
    build_generator,
    local_edits,
)
from anomalib_synth.models.editing import edit_window
from tests import contract
from tests.unit.models.small_bundle import make_bundle

LOOSE = SampleChecks(min_visibility=0.05, min_agreement=0.01, area=(0, 1))
NORMALS = contract.render_normals(6, 3, 64, 72, seed=1)
BOX = (slice(40, 56), slice(20, 50))


def save(file: Path, levels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(file)


def write_defect(folder: Path, *, size: int = 96, box: tuple[slice, slice] = BOX) -> Path:
    """A folder of one coloured stain, with its mask beside it."""
    image = (contract.render_normals(1, 3, size, size, seed=5)[0] * 255).byte().permute(1, 2, 0).numpy().copy()
    rng = np.random.default_rng(0)
    image[box] = rng.integers(20, 120, image[box].shape) * np.array([1, 1, 0.2])
    mask = np.zeros((size, size), np.uint8)
    mask[box] = 255
    save(folder / "oil_stain" / "0.png", image)
    save(folder / "oil_stain" / "0_mask.png", mask)
    return folder


@pytest.fixture(scope="module")
def defects(tmp_path_factory) -> Path:
    return write_defect(tmp_path_factory.mktemp("defects"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle")).path


@pytest.fixture(params=["pasted", "half", "edited", "mixture"])
def make(request, defects, bundle):
    def build() -> LookAlikeGenerator | MixtureGenerator:
        weights = None if request.param == "pasted" else bundle
        edited = 0.5 if request.param == "half" else 1.0
        generator = LookAlikeGenerator(defects, weights=weights, edited=edited, checks=LOOSE)
        is_mixed = request.param == "mixture"
        return MixtureGenerator([generator, RuleBasedGenerator(["scratch"])]) if is_mixed else generator

    return build


@pytest.fixture
def edit(defects, bundle):
    """Every sample drawn anew, with one variation, the defect as it was."""

    def build(variation: float, **options: object) -> LookAlikeGenerator:
        as_it_was = {"strength": (1, 1), "scale": (1, 1), "turn": False, "mirror": False, "checks": LOOSE}
        return LookAlikeGenerator(
            defects, weights=bundle, edited=1.0, variation=(variation, variation), **{**as_it_was, **options}
        )

    return build


@pytest.mark.filterwarnings("ignore:The models never saw")
class TestContract:
    """The invariants of all generators."""

    def test_replay_holds_when_prepared_and_when_not(self, make) -> None:
        contract.check_replay(make, contract.render_normals(4, 3, 65, 70), [3, 1, 4, 1], NORMALS)
        contract.check_replay(make, contract.render_normals(3, 3, 48, 56), [9, 2, 6])

    def test_nothing_else_changes_when_it_draws(self, make) -> None:
        contract.check_purity(make, contract.render_normals(4, 3, 40, 40), [1, 2, 3, 4])

    def test_samples_are_the_same_when_sent_to_a_worker(self, make) -> None:
        images = contract.render_normals(4, 3, 40, 40)
        used = make()
        sample = used(images, seeds=[1, 2, 3, 4])
        contract.assert_same(pickle.loads(pickle.dumps(used))(images, seeds=[1, 2, 3, 4]), sample)

    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
        channels=st.sampled_from([1, 3]),
        count=st.integers(1, 3),
        seed=st.integers(0, 2**63 - 1),
        dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
        prepared=st.booleans(),
    )
    def test_invariants_hold_whatever_the_input(self, make, size, channels, count, seed, dtype, prepared) -> None:
        images = contract.render_normals(count, channels, *size, seed=seed % 1000).to(dtype)
        normals = contract.render_normals(3, channels, *size, seed=7) if prepared else None
        contract.check_all(make, images, [seed] * count, prepare_with=normals)

    @pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
    def test_invariants_hold_when_the_image_is_constant(self, make, level) -> None:
        images = torch.full((3, 3, 40, 40), level)
        contract.check_all(make, images, [1, 2, 3], prepare_with=images)
        assert make()(images[:0], seeds=[]).image.shape == (0, 3, 40, 40)

    def test_threads_change_nothing_when_there_are_two(self, make) -> None:
        images = contract.render_normals(2, 3, 96, 96)
        before = torch.get_num_threads()
        one = make()(images, seeds=[1, 2])
        torch.set_num_threads(2)
        try:
            contract.assert_same(make()(images, seeds=[1, 2]), one)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)


def test_samples_are_pasted_ones_when_there_are_no_weights(defects) -> None:
    images = contract.render_normals(4, 3, 96, 96)
    sample = LookAlikeGenerator(defects)(images, seeds=[1, 2, 3, 4])
    pasted = RealDefectGenerator(defects)(images, seeds=[1, 2, 3, 4])
    assert torch.equal(sample.image, pasted.image)
    assert sample.caption == pasted.caption
    assert sample.accepted.any()


def test_samples_are_pasted_ones_when_none_is_edited(defects, bundle) -> None:
    images = contract.render_normals(4, 3, 96, 96)
    sample = LookAlikeGenerator(defects, weights=bundle, edited=0)(images, seeds=[1, 2, 3, 4])
    assert torch.equal(sample.image, RealDefectGenerator(defects)(images, seeds=[1, 2, 3, 4]).image)


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_a_share_is_edited_when_it_is_asked_for(defects, bundle) -> None:
    images = contract.render_normals(1, 3, 64, 64).expand(40, -1, -1, -1)
    sample = LookAlikeGenerator(defects, weights=bundle, edited=0.5, checks=LOOSE)(images, seeds=range(40))
    edited = ["variation" in record.params for record in sample.provenance]
    assert 10 < sum(edited) < 30
    variations = {record.params["variation"] for record in sample.provenance if "variation" in record.params}
    assert len(variations) > 5
    assert all(0.2 <= variation <= 0.6 for variation in variations)


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_the_outline_is_the_pasted_ones_when_a_defect_is_edited(edit, defects) -> None:
    images = contract.render_normals(3, 3, 128, 128)
    pasted = LookAlikeGenerator(defects, strength=(1, 1), scale=(1, 1), turn=False, mirror=False, checks=LOOSE)(
        images, seeds=[1, 2, 3]
    )
    for variation in (0.0, 0.5, 1.0):
        sample = edit(variation)(images, seeds=[1, 2, 3])
        assert sample.accepted.all()
        for row in range(3):
            near = torch.nn.functional.max_pool2d(pasted.mask[row], 5, 1, 2)
            assert not bool((sample.mask[row] > near).any())
            assert sample.provenance[row].params["centre_y"] == pasted.provenance[row].params["centre_y"]


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_the_tokens_inside_are_the_real_defects_when_nothing_varies(edit, monkeypatch) -> None:
    """On another part: those of the window with the defect pasted there; outside they stay the part's."""
    edits = []

    def record(backend, image, mask, prompt, *, template, **options):
        before = [each.clone() for each in (image, mask, template.image)]  # what is a view is drawn over
        edits.append((*before, edit_window(backend, image, mask, prompt, template=template, **options)))
        return edits[-1][-1]

    monkeypatch.setattr(local_edits, "edit_window", record)
    generator = edit(0.0)
    images = contract.render_normals(2, 3, 96, 96, seed=3)
    generator(images, seeds=[1, 2])
    assert len(edits) == 2
    backend = generator.editor.backend
    for image, mask, template, found in edits:
        assert not torch.equal(template * mask, image * mask)
        (z, f), (_, own) = (backend.encode(template)[0], 0), backend.encode(image)
        for scale, tokens in enumerate(found.tokens):
            gate = backend.tokenizer.gate(mask, scale) & (scale >= backend.frozen_scales)
            assert torch.equal(tokens[gate], backend.quantize(z - f, scale)[gate])
            assert torch.equal(tokens[~gate], own[scale][~gate])
            f = f + backend.embed(tokens, scale)


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_defects_are_drawn_anew_when_the_packaged_models_are_named(defects) -> None:
    images = contract.render_normals(2, 3, 96, 96)
    generator = LookAlikeGenerator(defects, weights="packaged", edited=1.0, checks=LOOSE)
    sample = generator(images, seeds=[1, 2])
    assert generator.weights_hash == AutoregressiveGenerator().weights_hash
    assert all("variation" in record.params for record in sample.provenance)
    assert sample.accepted.any()
    assert torch.equal(sample.image[sample.mask.expand_as(images) == 0], images[sample.mask.expand_as(images) == 0])
    contract.assert_same(build_generator(json.loads(json.dumps(generator.config)))(images, seeds=[1, 2]), sample)


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_more_changes_when_the_variation_is_larger(edit) -> None:
    images = contract.render_normals(3, 3, 96, 96)
    start, *others = (edit(v)(images, seeds=[1, 2, 3]).image for v in (0.0, 0.2, 0.6, 1.0))
    changes = [float((other - start).abs().sum()) for other in others]
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_all_of_a_defect_is_drawn_anew_when_it_is_larger_than_a_window(tmp_path, bundle) -> None:
    wide = write_defect(tmp_path, size=600, box=(slice(200, 500), slice(20, 540)))
    options = {"strength": (1, 1), "scale": (1, 1), "turn": False, "mirror": False, "checks": LOOSE}
    generator = LookAlikeGenerator(wide, weights=bundle, edited=1.0, variation=(1, 1), **options)
    sides = []
    encode = generator.editor.backend.encode
    generator.editor.backend.encode = lambda image: sides.append(image.shape[-1]) or encode(image)
    images = contract.render_normals(1, 3, 600, 600)
    sample = generator(images, seeds=[1])
    pasted = LookAlikeGenerator(wide, **options)(images, seeds=[1])
    assert sample.accepted.all()
    assert max(sides) <= 256
    assert len(sides) == 2 * 15  # pieces of at most 112 pixels, as the defect is large, each with its template
    both = (sample.mask * pasted.mask)[0, 0] > 0
    differs = (sample.image != pasted.image)[0].any(0) & both
    for half in (slice(0, 300), slice(300, 600)):
        assert differs[:, half].sum() > 0.9 * both[:, half].sum() > 0


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_no_colour_comes_in_when_the_image_is_grey(edit) -> None:
    images = contract.render_normals(2, 1, 80, 80).expand(-1, 3, -1, -1).contiguous()
    sample = edit(0.8)(images, seeds=[1, 2])
    assert sample.accepted.any()
    assert torch.equal(sample.image[:, 0], sample.image[:, 1])


def test_words_are_named_when_the_models_never_saw_them(edit) -> None:
    images, generator = contract.render_normals(1, 3, 64, 64), edit(0.5)
    with pytest.warns(UserWarning, match="never saw 'real', 'oil'"):
        generator(images, seeds=[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator(images, seeds=[2])


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_a_config_rebuilds_it_when_it_went_through_json(edit) -> None:
    images = contract.render_normals(2, 3, 64, 64)
    generator = edit(0.7, blend="feather")
    again = build_generator(json.loads(json.dumps(generator.config)))
    assert again.config == generator.config
    contract.assert_same(again(images, seeds=[1, 2]), generator(images, seeds=[1, 2]))


def test_files_and_weights_are_known_when_asked(defects, bundle) -> None:
    generator = LookAlikeGenerator(defects, weights=bundle)
    assert generator.defect_images == [defects / "oil_stain" / "0.png"]
    assert generator.files_digest == RealDefectGenerator(defects).files_digest
    assert len(generator.weights_hash) == 32
    assert LookAlikeGenerator(defects).weights_hash == ""


def test_one_image_will_do_when_it_is_named_itself(defects) -> None:
    images = contract.render_normals(2, 3, 64, 64)
    one = LookAlikeGenerator(defects / "oil_stain" / "0.png", defects / "oil_stain")
    assert torch.equal(one(images, seeds=[1, 2]).image, LookAlikeGenerator(defects)(images, seeds=[1, 2]).image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edited": 1.5}, r"`edited` must be in \[0, 1\], got 1.5"),
        ({"variation": (-0.1, 0.5)}, r"`variation` must satisfy 0 <= min <= max <= 1, got \(-0.1"),
        ({"variation": (0.8, 0.5)}, "`variation` must satisfy"),
        ({"variation": 0.5}, "`variation` must satisfy"),
        ({"strength": (0.0, 1.0)}, "`strength` must satisfy 0 < min"),
        ({"blend": "paste"}, "`blend` must be one of"),
        ({"text_encoder": "open_clip:a:b"}, "`text_encoder` needs `weights`"),
        ({"max_attempts": 0}, "`max_attempts` must be >= 1"),
    ],
)
def test_an_error_names_the_argument_when_it_is_bad(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        LookAlikeGenerator("nowhere", **arguments)


def test_an_error_names_marks_when_a_defect_is_not_outlined(tmp_path) -> None:
    save(tmp_path / "stain" / "0.png", np.full((40, 40, 3), 90, np.uint8))
    images = contract.render_normals(1, 3, 64, 64)
    for marks in (None, tmp_path / "nowhere"):
        generator = LookAlikeGenerator(tmp_path, marks)
        with pytest.raises(ValueError, match="`marks` must be"):
            generator(images, seeds=[1])
        with pytest.raises(ValueError, match="`marks` must be"):
            generator.check()


def test_the_bundle_is_refused_before_any_work_when_it_is_none(defects) -> None:
    with pytest.raises(ValueError, match="is no bundle"):
        LookAlikeGenerator(defects, weights="no/such/folder").check()

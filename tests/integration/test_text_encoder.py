"""A token model that reads its texts by open_clip's text tower."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.encoders.text import OpenClipTextEncoder
from anomalib_synth.fitting.bundle import fit_bundle
from anomalib_synth.fitting.settings import FitSettings
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from tests.contract import render_normals
from tests.unit.fitting.small_settings import SMALL
from tests.unit.models.small_clip import make_clip

pytest.importorskip("open_clip", reason="the extra `clip` is not installed")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    name = make_clip(folder / "clip")
    normals = [(image * 255).round().to(torch.uint8) for image in render_normals(4, 3, 96, 96)]
    settings = FitSettings(**{**vars(SMALL), "text_encoder": name, "token_steps": 30})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anomalib_synth.fitting.bundle._VOCABULARY_WINDOWS", 64)
        patch.setattr("anomalib_synth.fitting.bundle._CODEBOOK_WINDOWS", 128)
        patch.setattr("anomalib_synth.fitting.bundle._SCORED_BATCHES", 1)
        bundle = fit_bundle(
            normals, RuleBasedGenerator(["scratch", "stain"], foreground=None), folder / "bundle",
            settings=settings, inputs={"rendered": "Apache-2.0"},
        )  # fmt: skip
    return bundle, folder


def test_texts_become_unit_vectors_and_no_text_zeros(tmp_path) -> None:
    tower = OpenClipTextEncoder(make_clip(tmp_path))
    vectors = tower.encode(["a dark scratch", "", "a wombat"], length=16)
    assert vectors.shape == (3, tower.channels)
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))
    assert not torch.allclose(vectors[0], vectors[2])
    assert tower.find_unknown("a wombat") == []


def test_a_bundle_reads_by_the_tower_it_was_fitted_with(fitted) -> None:
    bundle, _ = fitted
    assert bundle.token_model().text_channels == 12
    images = render_normals(2, 3, 96, 96)
    generator = AutoregressiveGenerator(["a wombat"], bundle=bundle.path, foreground=None)
    samples = [generator(images, seeds=[1, 2], prompts=[text] * 2) for text in ("a wombat", "a wombat", "dark rust")]
    assert torch.equal(samples[0].image, samples[1].image)
    backend = generator.backend
    z, _ = backend.encode(images[:1, :, :64, :64])
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:40, 20:40] = 1
    begun = backend.begin(z, mask, ["", "a wombat", "dark rust"])
    logits = backend.logits(begun, torch.zeros_like(z), None, backend.gate(mask, 2), 2)
    assert not torch.allclose(logits[0], logits[1])
    assert not torch.allclose(logits[1], logits[2])


def test_other_weights_of_the_tower_are_refused(fitted) -> None:
    bundle, folder = fitted
    before = bundle.weights_hash
    make_clip(folder / "clip", seed=1)
    try:
        with pytest.raises(ValueError, match="are others than those that bundle"):
            _ = AutoregressiveGenerator(bundle=bundle.path).backend
    finally:
        make_clip(folder / "clip")
    assert AutoregressiveGenerator(bundle=bundle.path).backend.reader.channels == 12
    assert before == AutoregressiveGenerator(bundle=bundle.path).weights_hash


def test_a_text_encoder_must_name_open_clip() -> None:
    with pytest.raises(ValueError, match="`text_encoder` must be"):
        OpenClipTextEncoder("t5-small")

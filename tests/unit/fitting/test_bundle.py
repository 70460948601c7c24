"""Fitting a whole bundle, as small as it can be."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from anomalib_synth.fitting import bundle as fitting
from anomalib_synth.fitting.bundle import fit_bundle
from anomalib_synth.fitting.normals import split_normals
from anomalib_synth.fitting.settings import FitSettings
from anomalib_synth.fitting.warm_start import warm_start
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.dual_encoder import DualEncoder
from anomalib_synth.models.token_transformer import TokenTransformer
from tests.contract import render_normals
from tests.unit.fitting.small_settings import SMALL


@pytest.fixture
def normals() -> list[torch.Tensor]:
    return [(image * 255).round().to(torch.uint8) for image in render_normals(6, 3, 96, 96)]


@pytest.fixture(autouse=True)
def _short(monkeypatch) -> None:
    monkeypatch.setattr(fitting, "_VOCABULARY_WINDOWS", 64)
    monkeypatch.setattr(fitting, "_CODEBOOK_WINDOWS", 128)
    monkeypatch.setattr(fitting, "_SCORED_BATCHES", 2)


def fit(normals, out, **options):
    generator = RuleBasedGenerator(["scratch", "stain"], size=(0.1, 0.6), foreground=None)
    return fit_bundle(normals, generator, out, settings=SMALL, inputs={"rendered": "Apache-2.0"}, **options)


def test_a_bundle_serves_the_generator_and_has_a_card(normals, tmp_path) -> None:
    state = torch.get_rng_state()
    stages = []
    bundle = fit(
        normals, tmp_path / "bundle", advance=lambda stage, step, steps, text: stages.append((stage, step, steps))
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert [name for name, _ in itertools.groupby(stages, key=lambda each: each[0])] == [
        "autoencoder", "codebooks", "captions", "token model", "dual encoder",
    ]  # fmt: skip
    assert all(step <= steps for _, step, steps in stages)
    card = bundle.card
    assert card["normals"] == 6
    assert card["inputs"] == {"rendered": "Apache-2.0"}
    assert card["settings"]["token_steps"] == 8
    assert 5 < card["reconstruction_psnr_db"]["tokens"] < 60
    assert card["token_model"]["history"]
    assert {"scratch", "stain"} <= set(bundle.vocabulary.words)
    sample = AutoregressiveGenerator(bundle=bundle.path)(render_normals(2, 3, 96, 96), seeds=[1, 2])
    assert sample.image.shape == (2, 3, 96, 96)


def test_a_stopped_fit_ends_with_the_same_weights(normals, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.fitting.training._SAVE_SECONDS", 0.0)
    whole = fit(normals, tmp_path / "whole")

    def stop_at(stage: str, at: int):
        def advance(name: str, step: int, steps: int, text: str) -> None:
            if (name, step) == (stage, at):
                raise KeyboardInterrupt

        return advance

    for stage, at in (("autoencoder", 5), ("token model", 4), ("dual encoder", 3)):
        with pytest.raises(KeyboardInterrupt):
            fit(normals, tmp_path / "stopped", advance=stop_at(stage, at))
    assert fit(normals, tmp_path / "stopped").weights_hash == whole.weights_hash


def test_a_fit_goes_on_from_a_bundle_when_one_is_given(normals, tmp_path) -> None:
    first = fit(normals, tmp_path / "first")
    assert first.token_model().context_only
    stages = []
    second = fit(
        normals, tmp_path / "second", start=first, advance=lambda stage, *_: stages.append(stage) if stage else None
    )
    assert not {"autoencoder", "codebooks"} & set(stages)
    assert second.card["started_from"] == first.weights_hash
    assert second.card["autoencoder"] == first.card["autoencoder"]
    for name, value in first.tokenizer().state_dict().items():
        assert torch.equal(value, second.tokenizer().state_dict()[name])
    moved = (first.token_model().norm.weight - second.token_model().norm.weight).abs().max()
    assert 0 < moved < 0.1


def test_words_keep_their_weights_when_others_come_in(normals, tmp_path) -> None:
    first = fit(normals, tmp_path / "first")
    words = CaptionVocabulary([*first.vocabulary.words, "aaa", "zzz"])
    dual = DualEncoder(vocabulary_size=len(words))
    warm_start(first, {"dual_encoder": dual}, words)
    old, new = first.dual_encoder().text_tower.words.weight, dual.text_tower.words.weight
    for word in first.vocabulary.words:
        before, after = (each.encode([word], length=1)[0, 0] for each in (first.vocabulary, words))
        assert torch.equal(old[before], new[after])
    assert torch.equal(new[words.encode(["zzz"], length=1)[0, 0]], old[1])


def test_a_region_counts_as_before_when_its_mask_gets_cells(normals, tmp_path) -> None:
    first = fit(normals, tmp_path / "first")
    config = first.token_model().config
    coarse, fine = (TokenTransformer(**{**config, "mask_cells": cells}) for cells in (2, 4))
    warm_start(first, {"token_model": coarse}, first.vocabulary)
    warm_start(first, {"token_model": fine}, first.vocabulary)
    z, mask = torch.rand(1, 16, 16, 16), torch.zeros(1, 1, 64, 64)
    mask[..., 16:32, 8:40] = 1
    pooled = torch.nn.functional.max_pool2d(mask, 2)
    torch.testing.assert_close(coarse.look(z, pooled), fine.look(z, mask), atol=1e-3, rtol=1e-2)
    assert not torch.equal(coarse.look(z, pooled), coarse.look(z, 0 * pooled))


def test_a_bundle_is_refused_as_a_start_when_it_is_of_another_size(normals, tmp_path) -> None:
    first = fit(normals, tmp_path / "first")
    settings = replace(SMALL, dim=16)
    generator = RuleBasedGenerator(["scratch"], size=(0.1, 0.6), foreground=None)
    with pytest.raises(ValueError, match="`start` must be a bundle whose token_model is as large"):
        fit_bundle(normals, generator, tmp_path / "second", settings=settings, inputs={}, start=first)


def test_held_out_normals_are_chosen_by_the_seed_and_never_all(normals) -> None:
    kept, held = split_normals(normals, held_out=SMALL.held_out, seed=SMALL.seed)
    assert len(kept) == 5
    assert len(held) == 1
    assert len(split_normals(normals[:2], held_out=0.9, seed=0)[0]) == 1


def test_too_few_or_too_small_normals_are_refused(normals, tmp_path) -> None:
    with pytest.raises(ValueError, match="at least two images"):
        fit(normals[:1], tmp_path / "bundle")
    with pytest.raises(ValueError, match="H and W >= 64"):
        fit([image[:, :40] for image in normals], tmp_path / "bundle")


@pytest.mark.parametrize(("name", "value"), [("window", 100), ("frame", 32), ("held_out", 1.0), ("token_steps", 0)])
def test_bad_settings_are_refused(name, value) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        FitSettings(**{name: value})

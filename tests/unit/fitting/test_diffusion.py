"""A pipeline trained for a few steps: what is written, that it is read like any other, and that it resumes."""

from __future__ import annotations

import json

import pytest
import torch

from anomalib_synth.fitting import denoiser as denoising
from anomalib_synth.fitting import training
from anomalib_synth.fitting.denoiser import DenoiserData, make_denoiser, make_optimizer, make_scheduler, train_denoiser
from anomalib_synth.fitting.diffusion import estimate_minutes, fit_pipeline
from anomalib_synth.fitting.pairs import draw_pairs
from anomalib_synth.fitting.settings import DiffusionFitSettings
from anomalib_synth.fitting.training import Schedule
from anomalib_synth.fitting.windows import WindowSampler
from anomalib_synth.generators import DiffusionGenerator, RuleBasedGenerator
from anomalib_synth.models.diffusion import CARD, DiffusionEditor, DiffusionSettings
from tests.contract import render_normals

TEACHER = RuleBasedGenerator(["scratch", "stain"], size=(0.08, 0.4), foreground=None)
TINY = DiffusionFitSettings(
    pairs=64, autoencoder_steps=3, diffusion_steps=3, autoencoder_width=8, width=8, text_width=8, held_out=0.3
)


@pytest.fixture(scope="module")
def normals() -> list[torch.Tensor]:
    return list((render_normals(4, 3, 130, 150) * 255).to(torch.uint8))


@pytest.fixture(scope="module")
def fitted(normals, tmp_path_factory):
    out, before = tmp_path_factory.mktemp("fitted"), torch.get_rng_state()
    fit_pipeline(normals, TEACHER, out, settings=TINY, inputs={"normals": "our own"})
    assert torch.equal(torch.get_rng_state(), before)
    return out


def test_it_is_an_ordinary_pipeline_that_the_generator_reads(fitted) -> None:
    from diffusers import StableDiffusionInstructPix2PixPipeline

    assert list(fitted.glob("*/*.safetensors"))
    assert not list(fitted.glob("*/*.bin"))
    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(fitted, safety_checker=None)
    assert pipe.unet.config.in_channels == 8
    assert pipe.vae.config.scaling_factor != 0.18215
    generator = DiffusionGenerator(
        pipeline=str(fitted), editing=DiffusionSettings(num_inference_steps=2, batch_size=1), foreground=None
    )
    assert generator.editor.resolution == 64
    sample = generator(render_normals(2, 3, 96, 96), seeds=[1, 2], prompts=["a dark scratch", "a stain"])
    assert sample.image.isfinite().all()


def test_the_card_says_what_was_learned_from_and_what_is_recommended(fitted) -> None:
    card = json.loads((fitted / CARD).read_text(encoding="utf-8"))
    assert card["inputs"] == {"normals": "our own"}
    assert card["normals"] == 4
    assert len(card["normals_hash"]) == 32
    assert card["settings"]["pairs"] == 64
    assert card["denoiser"]["steps"] == 3
    assert {"scratch", "stain", "a"} <= set(card["words"])
    editor = DiffusionEditor(fitted)
    assert editor.guidance == card["recommended"]
    assert editor.find_unknown("a purple scratch") == ["purple"]


@pytest.mark.parametrize("stop", [("autoencoder", 2), ("denoiser", 2)])
def test_a_run_that_was_stopped_ends_with_the_same_weights(normals, fitted, tmp_path, monkeypatch, stop) -> None:
    monkeypatch.setattr(training, "_SAVE_SECONDS", 0.0)
    steps = []

    def interrupt(stage: str, step: int, *_: object) -> None:
        steps.append((stage, step))
        if (stage, step) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_pipeline(normals, TEACHER, tmp_path, settings=TINY, inputs={}, advance=interrupt)
    assert not (tmp_path / CARD).exists()
    del steps[:]
    record = lambda stage, step, *_: steps.append((stage, step))  # noqa: E731
    fit_pipeline(normals, TEACHER, tmp_path, settings=TINY, inputs={}, advance=record)
    assert (stop[0], 1) not in steps
    assert DiffusionEditor(tmp_path).weights_hash == DiffusionEditor(fitted).weights_hash


def test_the_estimate_grows_with_the_steps(normals) -> None:
    few = estimate_minutes(normals, TEACHER, TINY)
    many = estimate_minutes(normals, TEACHER, DiffusionFitSettings(autoencoder_width=8, width=8, text_width=8))
    assert 0 < few < 1
    assert many > 5 * few


def test_pairs_have_their_defect_in_the_middle_and_are_the_same_again(normals) -> None:
    sampler = WindowSampler(normals, TEACHER, size=128, seed=1)
    pairs, again = (draw_pairs(sampler, 40, size=64) for _ in range(2))
    assert torch.equal(pairs.image, again.image)
    assert pairs.captions == again.captions
    assert pairs.mask.flatten(1).any(1).all()
    outside = (~pairs.mask).expand_as(pairs.image)
    assert torch.equal(pairs.image[outside], pairs.source[outside])
    place = torch.arange(64.0)
    centres = [(mask[0].any(0) * place).sum() / mask[0].any(0).sum() for mask in pairs.mask]
    assert torch.stack(centres).sub(31.5).abs().median() < 6


def test_what_withheld_captions_teach_is_the_source(monkeypatch) -> None:
    """With all captions withheld, a denoiser that is told the source exactly has nothing left to learn of defects."""
    monkeypatch.setattr(denoising, "make_optimizer", training.make_adamw)
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, noisy: torch.Tensor, source: torch.Tensor, words: torch.Tensor, t: torch.Tensor):
            seen.append(words)
            alpha = scheduler.alphas_cumprod[t].sqrt().view(-1, 1, 1, 1)
            return (alpha * noisy - 2.0 * source) / (1 - alpha**2).sqrt() + self.weight

    scheduler = make_scheduler()
    source, image = torch.randn(2, 8, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    data = DenoiserData(
        source=source, image=image, weight=torch.ones(8, 1, 4, 4), words=torch.ones(8, 3, dtype=torch.int64),
        no_words=torch.zeros(1, 3, dtype=torch.int64),
    )  # fmt: skip
    run = lambda **shares: train_denoiser(  # noqa: E731
        Spy(), scheduler, data, data, Schedule(steps=1, learning_rate=0.0), scale=2.0, **shares
    )
    assert run(no_text=1.0, no_image=0.0).best < 1e-4
    assert all(not words.any() for words in seen)
    assert run(no_text=0.0, no_image=0.0).best > 0.1
    assert all(words.all() for words in seen[-1:])


def test_the_denoiser_reads_the_image_and_the_words() -> None:
    denoiser = make_denoiser(40, scale=2.0, width=16, text_width=8).eval()
    rng = torch.Generator().manual_seed(0)
    noisy, source, other = torch.randn(3, 1, 4, 16, 16, generator=rng) / 2
    words, t = torch.arange(24)[None], torch.tensor([500])
    with torch.no_grad():
        assert (denoiser(noisy, source, words, t) + 2 * source).abs().max() < 0.1  # it begins as a copy
        denoiser.unet.conv_out.weight.normal_(generator=rng)
        shown = denoiser(noisy, source, words, t)
        assert shown.shape == noisy.shape
        assert not torch.equal(shown, denoiser(noisy, other, words, t))
        assert not torch.equal(shown, denoiser(noisy, source, words.flip(1), t))


def test_every_weight_is_moved_by_one_optimizer() -> None:
    denoiser = make_denoiser(40, width=8, text_width=8)
    moved = [id(p) for group in make_optimizer(denoiser).param_groups for p in group["params"]]
    assert sorted(moved) == sorted(id(p) for p in denoiser.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 10}, "`pairs` must be >= 64"),
        ({"diffusion_steps": 0}, "`diffusion_steps` must be >= 1"),
        ({"width": 20}, "`width` must be a multiple of 8"),
        ({"no_text": 0.6, "no_image": 0.5}, "together < 1"),
        ({"held_out": 1.0}, "`held_out` must be in"),
    ],
)
def test_bad_settings_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionFitSettings(**options)


def test_one_normal_is_refused(normals, tmp_path) -> None:
    with pytest.raises(ValueError, match="at least two images"):
        fit_pipeline(normals[:1], TEACHER, tmp_path, inputs={})

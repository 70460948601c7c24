"""Trains a small text-guided image-to-image pipeline of latent diffusion from normals and captioned defects."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth._version import __version__
from anomalib_synth.fitting.byte_pairs import make_clip_tokenizer
from anomalib_synth.fitting.denoiser import (
    TEXT_LENGTH,
    DenoiserData,
    make_denoiser,
    make_scheduler,
    prepare_data,
    train_denoiser,
)
from anomalib_synth.fitting.image_autoencoder import (
    encode,
    make_autoencoder,
    measure_reconstruction,
    train_autoencoder,
)
from anomalib_synth.fitting.normals import hash_images, split_normals
from anomalib_synth.fitting.pairs import draw_pairs
from anomalib_synth.fitting.settings import DiffusionFitSettings
from anomalib_synth.fitting.tokenizer import HELD_OUT_STEP
from anomalib_synth.fitting.training import Schedule, mark_time
from anomalib_synth.fitting.windows import WindowSampler
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.diffusion import CARD, INSTRUCTION, import_diffusers, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anomalib_synth.fitting.denoiser import Denoiser
    from anomalib_synth.generators.base import AnomalyGenerator

    Advance = Callable[[str, int, int, str], None]

WINDOW = 64
SAMPLED_WINDOW = 128  # a defect is drawn in this one, and the window is cut around the defect
DEFECT_SIZE = (0.08, 0.4)  # as shares of it, so that the defect fits into the cut window
_BATCH = 16
_HELD_OUT_PAIRS = 128
_TIMED_STEPS = 4
_GUIDANCE = {"guidance_scale": 1.5, "image_guidance_scale": 1.0}


def fit_pipeline(
    normals: Sequence[torch.Tensor],
    generator: AnomalyGenerator,
    out: Path,
    *,
    settings: DiffusionFitSettings | None = None,
    inputs: dict[str, str],
    advance: Advance = lambda stage, step, steps, text: None,
) -> dict[str, Any]:
    """Train an image-to-image pipeline that follows instructions, like InstructPix2Pix (arXiv 2211.09800).

    A denoiser learns p(window after | window before, instruction) in the latents of a small autoencoder, from
    rule-based defects. We differ from the paper in size (about 5 million weights, windows of 64 pixels) and in the
    target of pairs whose caption is withheld: it is the window before the defect. So an edit without an instruction
    changes nothing, and the guidance of the text scales what an instruction changes. The text encoder has the format of
    CLIP's and is trained with the denoiser.

    The folder is an ordinary ``StableDiffusionInstructPix2PixPipeline``, written by ``save_pretrained``, with a card in
    ``anomalib_synth.json``. An interrupted run resumes from ``out/.fit`` and ends with the same weights.

    Args:
        normals: Images (3, H, W) uint8, each at least 128 pixels high and wide; at least two.
        generator: Draws the captioned defects.
        out: Folder of the pipeline.
        settings: Length of the training and sizes of the models. Defaults to ``DiffusionFitSettings()``.
        inputs: Name and licence of everything trained on, for the card.
        advance: Called with the stage, the steps done, the steps in total, and the state in words.

    Returns:
        The card.

    Raises:
        ValueError: If there are fewer than two normals, one is too small, or a loss is not finite.
        ImportError: If diffusers or transformers is not installed.
    """
    settings = settings or DiffusionFitSettings()
    if len(normals) < 2:
        msg = f"`normals` must hold at least two images, one of them to be held out, got {len(normals)}."
        raise ValueError(msg)
    diffusers = import_diffusers()
    started = time.monotonic()
    digest = hash_images(normals)
    kept, held = split_normals(normals, held_out=settings.held_out, seed=settings.seed)
    work = out / ".fit" / blake2b(repr((digest, settings, generator.config)).encode(), digest_size=8).hexdigest()
    work.mkdir(parents=True, exist_ok=True)

    def report(stage: str, steps: int) -> Callable[[int, str], None]:
        return lambda step, text: advance(stage, step, steps, text)

    def sample(images: Sequence[torch.Tensor], name: str) -> WindowSampler:
        return WindowSampler(images, generator, size=SAMPLED_WINDOW, seed=hash64(settings.seed, name))

    pairs = draw_pairs(sample(kept, "train"), settings.pairs, size=WINDOW, advance=report("pairs", settings.pairs))
    held_pairs = draw_pairs(sample(held, "held out"), _HELD_OUT_PAIRS, size=WINDOW, first_step=HELD_OUT_STEP)
    autoencoder = make_autoencoder(settings.autoencoder_width, seed=settings.seed)
    coding = train_autoencoder(
        autoencoder,
        pairs,
        held_pairs,
        Schedule(steps=settings.autoencoder_steps, learning_rate=2e-3),
        seed=settings.seed,
        checkpoint=work / "autoencoder.pt",
        advance=report("autoencoder", settings.autoencoder_steps),
    )
    instructions = [INSTRUCTION.format(caption) for caption in pairs.captions]
    tokenizer = make_clip_tokenizer(instructions, work / "tokenizer", length=TEXT_LENGTH)
    data = prepare_data(autoencoder, tokenizer, pairs)
    scale = 1 / float(data.source.std())
    autoencoder.register_to_config(scaling_factor=scale)
    denoiser = _make_denoiser(settings, len(tokenizer), scale)
    scheduler = make_scheduler()
    drawing = train_denoiser(
        denoiser,
        scheduler,
        data,
        prepare_data(autoencoder, tokenizer, held_pairs),
        Schedule(steps=settings.diffusion_steps, learning_rate=1e-3, patience=10),
        scale=scale,
        no_text=settings.no_text,
        no_image=settings.no_image,
        seed=settings.seed,
        checkpoint=work / "denoiser.pt",
        advance=report("denoiser", settings.diffusion_steps),
    )
    pipeline = diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=autoencoder,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with quiet(diffusers):
        pipeline.save_pretrained(out, safe_serialization=True)
    card = {
        "package": __version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "machine": platform.machine(),
        "inputs": inputs,
        "normals": len(normals),
        "normals_hash": digest,
        "generator": generator.config,
        "settings": asdict(settings),
        "recommended": _GUIDANCE,
        "minutes_of_last_start": round((time.monotonic() - started) / 60, 1),
        "reconstruction_psnr_db": measure_reconstruction(autoencoder, held_pairs),
        "autoencoder": asdict(coding),
        "denoiser": asdict(drawing),
        "words": CaptionVocabulary.from_captions(pairs.captions).words,
    }
    (out / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return card


def estimate_minutes(
    normals: Sequence[torch.Tensor], generator: AnomalyGenerator, settings: DiffusionFitSettings
) -> float:
    """Estimate how many minutes :func:`fit_pipeline` takes, from a few timed steps of each training."""
    import_diffusers()
    sampler = WindowSampler(normals, generator, size=SAMPLED_WINDOW, seed=settings.seed)
    draw_pairs(sampler, 1, size=WINDOW)
    started = time.monotonic()
    pairs = draw_pairs(sampler, _BATCH, size=WINDOW)
    seconds = (time.monotonic() - started) / 32 * (settings.pairs + _HELD_OUT_PAIRS)
    autoencoder = make_autoencoder(settings.autoencoder_width, seed=settings.seed)
    words = torch.ones(_BATCH, TEXT_LENGTH, dtype=torch.int64)
    started = time.monotonic()
    latents = encode(autoencoder, pairs.source)
    seconds += (time.monotonic() - started) / _BATCH * 2 * (settings.pairs + _HELD_OUT_PAIRS)
    data = DenoiserData(
        source=latents, image=latents, weight=torch.ones_like(latents[:, :1]), words=words, no_words=words[:1]
    )
    few = Schedule(steps=_TIMED_STEPS, learning_rate=1e-3, check_every=10**9)
    for steps, run in (
        (settings.autoencoder_steps, partial(train_autoencoder, autoencoder, pairs, pairs, few)),
        (
            settings.diffusion_steps,
            partial(train_denoiser, _make_denoiser(settings, 1024, 1.0), make_scheduler(), data, data, few, scale=1.0),
        ),
    ):
        marks: list[float] = []
        run(advance=partial(mark_time, marks))
        seconds += 1.1 * steps * (marks[-2] - marks[0]) / (len(marks) - 2)  # 10 % more for the held-out loss
    return seconds / 60


def _make_denoiser(settings: DiffusionFitSettings, vocabulary_size: int, scale: float) -> Denoiser:
    return make_denoiser(
        vocabulary_size, scale=scale, width=settings.width, text_width=settings.text_width, seed=settings.seed
    )

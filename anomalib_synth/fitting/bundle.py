"""Trains a bundle of local models from normals and captioned defects."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth._version import __version__
from anomalib_synth.encoders.text import OpenClipTextEncoder
from anomalib_synth.fitting.dual_encoder import GOOD_CAPTIONS, score_retrieval, train_dual_encoder
from anomalib_synth.fitting.normals import hash_images, split_normals
from anomalib_synth.fitting.settings import FitSettings
from anomalib_synth.fitting.token_model import train_token_model
from anomalib_synth.fitting.tokenizer import HELD_OUT_STEP, fit_codebooks, measure_reconstruction, train_autoencoder
from anomalib_synth.fitting.training import Schedule, mark_time
from anomalib_synth.fitting.vocabulary import find_vocabulary
from anomalib_synth.fitting.warm_start import warm_start
from anomalib_synth.fitting.windows import WindowSampler
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.models.bundle import Bundle, save_bundle
from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.dual_encoder import DualEncoder
from anomalib_synth.models.token_transformer import TokenTransformer
from anomalib_synth.models.tokenizer import WindowTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anomalib_synth.generators.base import AnomalyGenerator

    Advance = Callable[[str, int, int, str], None]

_VOCABULARY_WINDOWS = 4096
_CODEBOOK_WINDOWS = 2048
_SCORED_BATCHES = 8  # of 64 held-out windows, on which retrieval by the dual encoder is scored
_GOOD = GOOD_CAPTIONS[0]
_TIMED_STEPS = 5  # the first is a warm-up, the last includes the held-out loss


def fit_bundle(
    normals: Sequence[torch.Tensor],
    generator: AnomalyGenerator,
    out: Path,
    *,
    settings: FitSettings | None = None,
    inputs: dict[str, str],
    start: Bundle | None = None,
    advance: Advance = lambda stage, step, steps, text: None,
) -> Bundle:
    """Train tokenizer, token transformer and dual encoder, and write them as a bundle.

    An interrupted run resumes from ``out/.fit`` and ends with the same weights.

    Args:
        normals: Images (3, H, W) uint8; at least two, none smaller than a window.
        generator: Draws the captioned defects, of the physical families and of real defects.
        out: Folder of the bundle.
        settings: Length of the training and sizes of the models. Defaults to ``FitSettings()``.
        inputs: Name and licence of everything trained on, for the card.
        start: Bundle to start from: its tokenizer is kept, its other models are trained further. Its sizes must equal
            those of the settings. The card records its digest.
        advance: Called with the stage, the steps done, the steps in total, and the state in words.

    Raises:
        ValueError: If there are fewer than two normals, one is smaller than a window, ``start`` has other sizes, faiss
            is not installed, or a loss is not finite.
    """
    settings = settings or FitSettings()
    if len(normals) < 2:
        msg = f"`normals` must hold at least two images, one of them to be held out, got {len(normals)}."
        raise ValueError(msg)
    started = time.monotonic()
    tower = None if settings.text_encoder is None else OpenClipTextEncoder(settings.text_encoder)
    read_by = None if tower is None else {"name": tower.name, "weights_hash": tower.encoder.weights_hash}
    digest = hash_images(normals)
    kept, held = split_normals(normals, held_out=settings.held_out, seed=settings.seed)
    sizes = {"size": settings.window, "frame": settings.frame}
    sampler = WindowSampler(kept, generator, **sizes, seed=hash64(settings.seed, "train"))
    held_sampler = WindowSampler(held, generator, **sizes, seed=hash64(settings.seed, "held out"))
    began = None if start is None else start.weights_hash
    key = repr((digest, settings, read_by, generator.config, began)).encode()
    work = out / ".fit" / blake2b(key, digest_size=8).hexdigest()
    work.mkdir(parents=True, exist_ok=True)

    def report(stage: str, steps: int) -> Callable[[int, str], None]:
        return lambda step, text: advance(stage, step, steps, text)

    coding, rate = None, 1e-3 if start is None else 5e-4
    if start is None:
        with _seeded(settings.seed):
            tokenizer = WindowTokenizer(width=settings.width, codebook_size=settings.codebook_size)
        coding = train_autoencoder(
            tokenizer,
            sampler,
            held_sampler,
            Schedule(steps=settings.autoencoder_steps, learning_rate=2e-3),
            checkpoint=work / "autoencoder.pt",
            advance=report("autoencoder", settings.autoencoder_steps),
        )
        fit_codebooks(
            tokenizer, sampler, windows=_CODEBOOK_WINDOWS, seed=settings.seed,
            advance=report("codebooks", len(tokenizer.strides)),
        )  # fmt: skip
    else:
        tokenizer = start.tokenizer()
    vocabulary = find_vocabulary(sampler, windows=_VOCABULARY_WINDOWS, advance=report("captions", _VOCABULARY_WINDOWS))
    with _seeded(settings.seed):
        model = _make_token_model(tokenizer, vocabulary, tower, settings)
        dual = DualEncoder(vocabulary_size=len(vocabulary))
    if start is not None:
        warm_start(start, {"token_model": model, "dual_encoder": dual}, vocabulary)
    tokens = train_token_model(
        model,
        tokenizer,
        tower or vocabulary,
        sampler,
        held_sampler,
        Schedule(steps=settings.token_steps, learning_rate=rate),
        checkpoint=work / "token_model.pt",
        advance=report("token model", settings.token_steps),
    )
    train_dual_encoder(
        dual,
        vocabulary,
        sampler,
        steps=settings.dual_steps,
        learning_rate=rate,
        seed=settings.seed,
        held_out=held_sampler,
        checkpoint=work / "dual_encoder.pt",
        advance=report("dual encoder", settings.dual_steps),
    )
    batches = [held_sampler.draw(HELD_OUT_STEP + n, 64) for n in range(_SCORED_BATCHES)]
    card = {
        "package": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "inputs": inputs,
        "normals": len(normals),
        "normals_hash": digest,
        "generator": generator.config,
        "settings": asdict(settings),
        "minutes_of_last_start": round((time.monotonic() - started) / 60, 1),
        "reconstruction_psnr_db": measure_reconstruction(tokenizer, held_sampler),
        **({"started_from": began, "autoencoder": start.card.get("autoencoder")} if start else {}),
        **({"autoencoder": asdict(coding)} if coding else {}),
        "token_model": asdict(tokens),
        "dual_encoder": score_retrieval(dual, vocabulary, batches),
    }
    models = {"tokenizer": tokenizer, "token_model": model, "dual_encoder": dual}
    return save_bundle(out, models, vocabulary, card, text_encoder=read_by)


def estimate_minutes(normals: Sequence[torch.Tensor], generator: AnomalyGenerator, settings: FitSettings) -> float:
    """Estimate how many minutes :func:`fit_bundle` takes, from three timed steps of each training."""
    sampler = WindowSampler(normals, generator, size=settings.window, frame=settings.frame, seed=settings.seed)
    vocabulary = CaptionVocabulary.from_captions([_GOOD, *sampler.draw(0, 64).captions])
    tower = None if settings.text_encoder is None else OpenClipTextEncoder(settings.text_encoder)
    with _seeded(settings.seed):
        tokenizer = WindowTokenizer(width=settings.width, codebook_size=settings.codebook_size)
        tokenizer.codebooks.normal_()
        model = _make_token_model(tokenizer, vocabulary, tower, settings)
        dual = DualEncoder(vocabulary_size=len(vocabulary))
    reader = tower or vocabulary
    few = Schedule(steps=_TIMED_STEPS, learning_rate=1e-3, check_every=10**9)
    seconds = 20.0  # codebooks and captions
    for steps, run in (
        (settings.autoencoder_steps, partial(train_autoencoder, tokenizer, sampler, sampler, few)),
        (settings.token_steps, partial(train_token_model, model, tokenizer, reader, sampler, sampler, few)),
        (settings.dual_steps, partial(train_dual_encoder, dual, vocabulary, sampler, steps=_TIMED_STEPS)),
    ):
        marks: list[float] = []
        run(advance=partial(mark_time, marks))
        seconds += steps * (marks[-2] - marks[0]) / (len(marks) - 2)
    return seconds / 60


def _make_token_model(
    tokenizer: WindowTokenizer, vocabulary: CaptionVocabulary, tower: OpenClipTextEncoder | None, settings: FitSettings
) -> TokenTransformer:
    return TokenTransformer(
        channels=tokenizer.channels,
        codebook_size=settings.codebook_size,
        num_scales=len(tokenizer.strides),
        vocabulary_size=len(vocabulary),
        dim=settings.dim,
        depth=settings.depth,
        text_channels=None if tower is None else tower.channels,
        mask_cells=tokenizer.patch,
        context_only=True,
    )


class _seeded:  # noqa: N801
    """Context in which weights are initialised from a seed; restores torch's global random state."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.state = torch.random.get_rng_state()
        torch.manual_seed(self.seed)

    def __exit__(self, *_: Any) -> None:
        torch.random.set_rng_state(self.state)

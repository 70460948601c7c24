"""Trains the token transformer on captioned defects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from anomalib_synth.fitting.regions import vary_regions
from anomalib_synth.fitting.tokenizer import HELD_OUT_STEP
from anomalib_synth.fitting.training import Schedule, TrainingResult, train
from anomalib_synth.generators.seeding import RandomStream, hash64
from anomalib_synth.models.captions import PADDING
from anomalib_synth.models.filling import fill_from_around
from anomalib_synth.models.token_transformer import Queries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anomalib_synth.fitting.windows import WindowBatch, WindowSampler
    from anomalib_synth.models.captions import CaptionReader
    from anomalib_synth.models.token_transformer import TokenTransformer
    from anomalib_synth.models.tokenizer import WindowTokenizer


@dataclass(frozen=True)
class TokenBatch:
    """What to predict, and from what: queries of all scales with the tokens that were there.

    Shape:
        - ``z``: (B, C, g, g), of the source with the mask's inside hidden; ``mask``: (B, 1, S, S)
        - ``words``: (B, L), or (B, E) by a pretrained encoder
        - ``gates``, ``latents``: one entry a predicted scale, (B, h, h) bool and (B, C, g, g)
        - ``targets``: (N,) int64, in the order of the joined queries
    """

    z: torch.Tensor
    mask: torch.Tensor
    words: torch.Tensor
    gates: list[torch.Tensor]
    latents: list[torch.Tensor]
    targets: torch.Tensor


def train_token_model(
    model: TokenTransformer,
    tokenizer: WindowTokenizer,
    reader: CaptionReader,
    sampler: WindowSampler,
    held_out: WindowSampler,
    schedule: Schedule,
    *,
    batch_size: int = 10,
    no_text: float = 0.1,
    checkpoint: Path | None = None,
    advance: Callable[[int, str], None] = lambda step, text: None,
) -> TrainingResult:
    """Train a token transformer with the tokens of real (rendered) defects as what comes before.

    Args:
        model: The transformer.
        tokenizer: A fitted tokenizer; it stays as it is.
        reader: Of the captions.
        sampler: Draws the captioned defects.
        held_out: Draws them on normals that are not trained on.
        schedule: How long and how fast.
        batch_size: Windows a step.
        no_text: Share of windows whose caption is withheld, for guidance (arXiv 2207.12598).
        checkpoint: See :func:`anomalib_synth.fitting.training.train`, as for ``advance``.
        advance: Told of the progress.
    """
    tokenizer.requires_grad_(False).eval()
    length = model.caption_length
    batches = [vary_regions(held_out.draw(HELD_OUT_STEP + n, 32), hash64(held_out.seed, "region", n)) for n in range(4)]
    fixed = [prepare_batch(tokenizer, batch, reader, model.frozen_scales, length) for batch in batches]

    def loss_at(step: int) -> torch.Tensor:
        windows = vary_regions(sampler.draw(step, batch_size), hash64(sampler.seed, "region", step))
        batch = prepare_batch(tokenizer, windows, reader, model.frozen_scales, length)
        rng = RandomStream(hash64(sampler.seed, "no text", step))
        for row in range(len(batch.words)):
            if rng.unit() < no_text:
                batch.words[row] = PADDING
        return measure(model, tokenizer, batch)

    return train(
        model,
        schedule,
        loss_at=loss_at,
        held_out_loss=lambda: sum(float(measure(model, tokenizer, batch)) for batch in fixed) / len(fixed),
        checkpoint=checkpoint,
        advance=advance,
    )


@torch.no_grad()
def prepare_batch(
    tokenizer: WindowTokenizer, batch: WindowBatch, reader: CaptionReader, frozen: int, length: int
) -> TokenBatch:
    """Write a batch in tokens as an edit would: the source's, its inside hidden, but the defect's in the mask."""
    z = tokenizer.encode(fill_from_around(batch.source, batch.mask))
    wanted = tokenizer.encode(batch.image)
    source, _ = tokenizer.tokenize(z)
    f, gates, latents, targets = torch.zeros_like(z), [], [], []
    for scale, kept in enumerate(source):
        tokens = kept
        if scale >= frozen:
            gate = tokenizer.gate(batch.mask, scale)
            drawn = tokenizer.quantize(wanted - f, scale)
            gates.append(gate)
            latents.append(f)
            targets.append(drawn[gate])
            tokens = torch.where(gate, drawn, kept)
        f = f + tokenizer.embed(tokens, scale)
    return TokenBatch(
        z=z,
        mask=batch.mask,
        words=reader.encode(batch.captions, length=length),
        gates=gates,
        latents=latents,
        targets=torch.cat(targets),
    )


def measure(model: TokenTransformer, tokenizer: WindowTokenizer, batch: TokenBatch) -> torch.Tensor:
    """Return the mean cross-entropy of a batch's tokens, in nats: the mean of the scales' means.

    The coarse tokens are few, and the ones that tell what a defect is.
    """
    context = model.look(batch.z, F.max_pool2d(batch.mask, tokenizer.patch // model.mask_cells))
    parts = [
        Queries.at(gate, f, context, scale=scale, stride=tokenizer.strides[scale])
        for scale, (gate, f) in enumerate(zip(batch.gates, batch.latents, strict=True), start=model.frozen_scales)
    ]
    queries = Queries.join(parts)
    losses = F.cross_entropy(model(queries, model.read(batch.words)), batch.targets, reduction="none")
    scales = range(model.frozen_scales, len(tokenizer.strides))
    return sum(losses[queries.scale == scale].mean() for scale in scales) / len(scales)

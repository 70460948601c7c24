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
    """Inputs and targets of a step: the queries of all scales, with the true tokens of the coarser ones.

    Shape:
        - ``z``: (B, C, g, g), of the source with the mask's inside hidden; ``mask``: (B, 1, S, S)
        - ``words``: (B, L) int64, or (B, E) float from a pretrained encoder
        - ``gates``, ``latents``: one entry per predicted scale, (B, h, h) bool and (B, C, g, g)
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
    """Train a token transformer with teacher forcing: its inputs are the tokens of rendered defects.

    Args:
        model: The transformer.
        tokenizer: A fitted tokenizer; its weights are not changed.
        reader: Reader of the captions.
        sampler: Draws the captioned defects.
        held_out: Draws captioned defects on held-out normals.
        schedule: Number of steps and learning rate.
        batch_size: Windows per step.
        no_text: Share of windows trained without their caption, for guidance (arXiv 2207.12598).
        checkpoint: See :func:`anomalib_synth.fitting.training.train`.
        advance: See :func:`anomalib_synth.fitting.training.train`.
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
    """Encode a batch as in an edit.

    Inside the mask, the tokens are the defect's; elsewhere they are those of the source with the mask filled from
    around.
    """
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
    """Return the mean cross-entropy of a batch's tokens, in nats, averaged over the means of the scales.

    The mean of means gives the few coarse tokens more weight: they say most about the kind of defect.
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

"""Trains the autoencoder of a tokenizer, and fits its codebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from anomalib_synth.fitting.training import Schedule, TrainingResult, train
from anomalib_synth.installation import install_extras
from anomalib_synth.models.threads import one_faiss_thread
from anomalib_synth.models.tokenizer import pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anomalib_synth.fitting.windows import WindowSampler
    from anomalib_synth.models.tokenizer import WindowTokenizer

HELD_OUT_STEP = 2**40  # beyond the steps of any training, so that no step draws these windows


def train_autoencoder(
    tokenizer: WindowTokenizer,
    sampler: WindowSampler,
    held_out: WindowSampler,
    schedule: Schedule,
    *,
    batch_size: int = 16,
    checkpoint: Path | None = None,
    advance: Callable[[int, str], None] = lambda step, text: None,
) -> TrainingResult:
    """Train encoder and decoder to reconstruct windows: mean absolute error of values and slopes."""
    fixed = _draw(held_out, HELD_OUT_STEP, 64)

    def measure(images: torch.Tensor) -> torch.Tensor:
        shown = tokenizer.decode(tokenizer.encode(images))
        return F.l1_loss(shown, images) + F.l1_loss(slopes(shown), slopes(images))

    return train(
        tokenizer,
        schedule,
        loss_at=lambda step: measure(_draw(sampler, step, batch_size)),
        held_out_loss=lambda: float(measure(fixed)),
        checkpoint=checkpoint,
        advance=advance,
    )


@torch.no_grad()
def fit_codebooks(
    tokenizer: WindowTokenizer,
    sampler: WindowSampler,
    *,
    windows: int = 2048,
    iterations: int = 20,
    seed: int = 0,
    advance: Callable[[int, str], None] = lambda step, text: None,
) -> None:
    """Fit the codebooks by k-means (faiss), scale by scale, each on the residual of the scales before it.

    Raises:
        ValueError: If faiss is not installed, or ``windows`` gives too few points for ``codebook_size`` clusters.
    """
    try:
        import faiss
    except ImportError as error:
        msg = f"Fitting codebooks needs faiss, which is not installed: {install_extras('fit')}"
        raise ValueError(msg) from error
    tokenizer.eval()
    batches = [tokenizer.encode(_draw(sampler, HELD_OUT_STEP + 1 + n, 64)) for n in range(-(-windows // 64))]
    z = torch.cat(batches)
    f = torch.zeros_like(z)
    _, size, channels = tokenizer.codebooks.shape
    with one_faiss_thread():
        for scale, stride in enumerate(tokenizer.strides):
            points = pool(z - f, stride).permute(0, 2, 3, 1).reshape(-1, channels)
            if len(points) < size:
                msg = f"`windows` must give at least {size} points per scale, got {len(points)}. Draw more windows."
                raise ValueError(msg)
            kmeans = faiss.Kmeans(
                channels, size, niter=iterations, seed=seed, max_points_per_centroid=128, min_points_per_centroid=1
            )
            kmeans.train(points.contiguous().numpy())
            tokenizer.codebooks[scale] = torch.from_numpy(kmeans.centroids)
            for start in range(0, len(z), 64):
                rows = slice(start, start + 64)
                f[rows] += tokenizer.embed(tokenizer.quantize(z[rows] - f[rows], scale), scale)
            advance(scale + 1, f"scale {scale + 1} of {len(tokenizer.strides)}")


@torch.no_grad()
def measure_reconstruction(
    tokenizer: WindowTokenizer, sampler: WindowSampler, *, windows: int = 256
) -> dict[str, float]:
    """Return the PSNR in dB of windows not trained on, reconstructed from the latents and from the tokens."""
    images = _draw(sampler, HELD_OUT_STEP, windows)
    z = tokenizer.encode(images)
    _, f = tokenizer.tokenize(z)
    return {"latents": psnr(tokenizer.decode(z), images), "tokens": psnr(tokenizer.decode(f), images)}


def psnr(shown: torch.Tensor, images: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of images in [0, 1]."""
    return float(-10 * torch.log10(F.mse_loss(shown.clamp(0, 1), images).clamp_min(1e-12)))


def slopes(images: torch.Tensor) -> torch.Tensor:
    """Return the differences of horizontal and of vertical neighbours, as one vector."""
    return torch.cat([images.diff(dim=-1).flatten(), images.diff(dim=-2).flatten()])


def _draw(sampler: WindowSampler, step: int, count: int) -> torch.Tensor:
    """Draw windows, about half of them with a defect."""
    batch = sampler.draw(step, count // 2)
    return torch.cat([batch.image, sampler.draw_sources(step, count - len(batch.image))])

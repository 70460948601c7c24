"""Trains the autoencoder of a latent diffusion pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from anomalib_synth.fitting.tokenizer import psnr, slopes
from anomalib_synth.fitting.training import Schedule, TrainingResult, train
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.models.diffusion import import_diffusers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from anomalib_synth.fitting.pairs import EditPairs

_CROP = 32


def make_autoencoder(width: int, *, seed: int = 0) -> nn.Module:
    """Return an ``AutoencoderKL`` with random weights, ``width`` channels at full size and 4 x 4 pixels per latent."""
    diffusers = import_diffusers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=tuple(width * n for n in (1, 2, 4)),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=64,
            mid_block_add_attention=False,
        )


def train_autoencoder(
    autoencoder: nn.Module,
    pairs: EditPairs,
    held_out: EditPairs,
    schedule: Schedule,
    *,
    batch_size: int = 16,
    seed: int = 0,
    checkpoint: Path | None = None,
    advance: Callable[[int, str], None] = lambda step, text: None,
) -> TrainingResult:
    """Train encoder and decoder on crops: mean absolute error of values and slopes, and a small KL term."""
    side = pairs.source.shape[-1]

    def measure(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        images = images * 2 - 1
        found = autoencoder.encode(images).latent_dist
        shown = autoencoder.decode(found.sample(rng)).sample
        size = found.mean[0].numel()
        return F.l1_loss(shown, images) + F.l1_loss(slopes(shown), slopes(images)) + 1e-4 * found.kl().mean() / size

    def loss_at(step: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(hash64(seed, "autoencoder", step))
        rows = torch.randint(len(pairs), (batch_size,), generator=rng).tolist()
        corners = torch.randint(side - _CROP + 1, (batch_size, 2), generator=rng).tolist()
        after = torch.rand(batch_size, generator=rng) < 0.5
        crops = [
            (pairs.image if changed else pairs.source)[row, :, y : y + _CROP, x : x + _CROP]
            for row, (y, x), changed in zip(rows, corners, after.tolist(), strict=True)
        ]
        return measure(_to_unit(torch.stack(crops)), rng)

    fixed = _to_unit(torch.cat([held_out.source[:32], held_out.image[:32]]))
    return train(
        autoencoder,
        schedule,
        loss_at=loss_at,
        held_out_loss=lambda: float(measure(fixed, torch.Generator().manual_seed(seed))),
        checkpoint=checkpoint,
        advance=advance,
    )


@torch.no_grad()
def encode(autoencoder: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Return the unscaled latents of uint8 windows: (N, 3, S, S) -> (N, C, h, h)."""
    return torch.cat([autoencoder.encode(_to_unit(part) * 2 - 1).latent_dist.mode() for part in windows.split(32)])


@torch.no_grad()
def measure_reconstruction(autoencoder: nn.Module, pairs: EditPairs) -> float:
    """Return the reconstruction PSNR in dB on windows with defects; pass pairs that were not trained on."""
    latents = encode(autoencoder, pairs.image)
    shown = torch.cat([autoencoder.decode(part).sample for part in latents.split(32)])
    return psnr(shown * 0.5 + 0.5, _to_unit(pairs.image))


def _to_unit(windows: torch.Tensor) -> torch.Tensor:
    return windows.float() / 255

"""Turns image windows into discrete tokens: a small autoencoder with residual codebooks, from coarse to fine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

WINDOW_STEP = 64


class TokenizerBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions without normalisation, so that its output is local."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w) -> the same shape."""
        return x + self.second(F.relu(self.first(F.relu(x))))


class WindowTokenizer(nn.Module):
    """Turns windows into tokens at several scales, and back.

    A latent map z at 1/``patch`` of the resolution is written as a sum of residuals. At scale k, the remaining residual
    is averaged over cells of ``strides[k]`` x ``strides[k]`` latents, replaced by the nearest vector of codebook k,
    enlarged, and subtracted, as in VAR (arXiv 2404.02905, algorithms 1 and 2). We differ from VAR: scales are given by
    strides, not sizes, so a token covers the same number of pixels in windows of any size; the finest scale is
    repeated, which is residual quantisation (arXiv 2107.03312); codebooks come from k-means on the latents of the
    trained autoencoder, without a commitment loss; there is no convolution after enlarging.

    Args:
        channels: Channels C of the latent map.
        width: Channels inside the autoencoder.
        depth: Residual blocks in the encoder; the decoder has one more.
        patch: Side in pixels of the square that one latent covers.
        strides: Side of a token in latents for each scale, coarse to fine.
        codebook_size: Number V of codebook vectors per scale.

    Shape:
        - images: (B, 3, S, S) in [0, 1], S a multiple of 64
        - latents ``z``, ``f``: (B, C, S / patch, S / patch)
        - tokens of scale k, ``r``: (B, h, h) int64 in [0, V), h = S / patch / strides[k]
    """

    def __init__(
        self,
        *,
        channels: int = 16,
        width: int = 64,
        depth: int = 2,
        patch: int = 4,
        strides: Sequence[int] = (16, 8, 4, 2, 1, 1, 1),
        codebook_size: int = 512,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels, "width": width, "depth": depth, "patch": patch, "strides": list(strides),
            "codebook_size": codebook_size,
        }  # fmt: skip
        self.channels, self.patch, self.strides = channels, patch, tuple(strides)
        pixels = 3 * patch**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(patch),
            nn.Conv2d(pixels, width, 3, padding=1),
            *[TokenizerBlock(width) for _ in range(depth)],
            nn.Conv2d(width, channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            *[TokenizerBlock(width) for _ in range(depth + 1)],
            nn.Conv2d(width, pixels, 3, padding=1),
            nn.PixelShuffle(patch),
        )
        self.register_buffer("codebooks", torch.zeros(len(strides), codebook_size, channels))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the latents z of windows."""
        return self.encoder(images * 2 - 1)

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        """Decode latents to windows; values are not clipped to [0, 1]."""
        return self.decoder(f) * 0.5 + 0.5

    def quantize(self, residual: torch.Tensor, scale: int) -> torch.Tensor:
        """Return the tokens of one scale nearest to a residual: (B, C, g, g) -> (B, h, h)."""
        book = self.codebooks[scale]
        pooled = pool(residual, self.strides[scale]).permute(0, 2, 3, 1)
        # |a - b|^2 without |a|^2, which is equal for all b
        return (book.square().sum(1) - 2 * pooled @ book.T).argmin(-1)

    def embed(self, r: torch.Tensor, scale: int) -> torch.Tensor:
        """Return what the tokens of one scale add to the latents: (B, h, h) -> (B, C, g, g)."""
        return enlarge(self.codebooks[scale][r].permute(0, 3, 1, 2), self.strides[scale])

    def tokenize(self, z: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the tokens of all scales, and the latents f that they encode."""
        f, tokens = torch.zeros_like(z), []
        for scale in range(len(self.strides)):
            tokens.append(self.quantize(z - f, scale))
            f = f + self.embed(tokens[-1], scale)
        return tokens, f

    def gate(self, mask: torch.Tensor, scale: int) -> torch.Tensor:
        """Return which tokens of a scale touch the mask, by any overlap: (B, 1, S, S) -> (B, h, h) bool."""
        side = self.patch * self.strides[scale]
        return F.max_pool2d(mask.float(), side)[:, 0] > 0


def pool(latents: torch.Tensor, stride: int) -> torch.Tensor:
    """Average latents over the cells of a scale."""
    return latents if stride == 1 else F.avg_pool2d(latents, stride)


def enlarge(values: torch.Tensor, stride: int) -> torch.Tensor:
    """Enlarge the values of a scale to all latents, bilinearly."""
    return values if stride == 1 else F.interpolate(values, scale_factor=stride, mode="bilinear", align_corners=False)

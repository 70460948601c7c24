"""Reconstruction of normal features: one small U-Net for each feature map."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

_MULTIPLES = (1, 2, 4)  # relative width of each level; each level halves the resolution
_MAX_GROUPS = 32
_MIN_GROUP_CHANNELS = 8  # smaller groups would normalise away the strength of single channels
_HEAD_CHANNELS = 64


def _normalise(channels: int) -> nn.GroupNorm:
    groups = math.gcd(_MAX_GROUPS, channels)
    while groups > 1 and channels // groups < _MIN_GROUP_CHANNELS:
        groups //= 2
    return nn.GroupNorm(groups, channels)


class ResidualBlock(nn.Module):
    """(B, c, h, w) → (B, d, h, w): norm, SiLU, 3 x 3 convolution, and a skip."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = _normalise(channels)
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        return self.skip(x) + self.conv(F.silu(self.norm(x)))


class SelfAttention(nn.Module):
    """(B, c, h, w) → (B, c, h, w): multi-head self-attention over positions, with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _HEAD_CHANNELS)
        self.norm = _normalise(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        _, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(-1, 3, self.heads, channels // self.heads, height * width)
        query, key, value = qkv.transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed.transpose(2, 3).reshape(-1, channels, height, width))


class ReconstructionUNet(nn.Module):
    """Rebuilds a map of normal features from the features of an image with a defect.

    A lighter version of the authors' U-Net (residual blocks of a single convolution, three levels with relative widths
    1, 2 and 4). Differences: self-attention only once, in the middle (theirs: after every block of the two coarser
    levels); pooling and interpolation between the levels, so that any input size works (theirs: strided residual
    blocks); the same number of blocks per level up as down (theirs: one more up), with skips from those blocks only.
    The last convolution starts at zero, so the initial reconstruction is the mean of normal images.

    Args:
        channels: Channels of the features.
        width: Channels of the finest level.
        blocks: Residual blocks per level, in each direction.

    Shape:
        Input and output: (B, ``channels``, h, w)
    """

    def __init__(self, channels: int, *, width: int, blocks: int) -> None:
        super().__init__()
        widths = [width * multiple for multiple in _MULTIPLES]
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        current, skips = width, []
        for out in widths:
            level = nn.ModuleList()
            for _ in range(blocks):
                level.append(ResidualBlock(current, out))
                skips.append(out)
                current = out
            self.encoder.append(level)
        self.middle = nn.Sequential(
            ResidualBlock(current, current), SelfAttention(current), ResidualBlock(current, current)
        )
        for out in reversed(widths):
            level = nn.ModuleList()
            for _ in range(blocks):
                level.append(ResidualBlock(current + skips.pop(), out))
                current = out
            self.decoder.append(level)
        self.head = nn.Sequential(_normalise(current), nn.SiLU(), nn.Conv2d(current, channels, 3, padding=1))
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reconstructed features."""
        h, skips = self.stem(x), []
        for depth, level in enumerate(self.encoder):
            h = F.avg_pool2d(h, 2, ceil_mode=True) if depth else h
            for block in level:
                h = block(h)
                skips.append(h)
        h = self.middle(h)
        for level in self.decoder:
            for block in level:
                skip = skips.pop()
                if h.shape[-2:] != skip.shape[-2:]:
                    h = F.interpolate(h, skip.shape[-2:], mode="nearest")
                h = block(torch.cat([h, skip], 1))
        return self.head(h)

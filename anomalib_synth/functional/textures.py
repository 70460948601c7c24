"""Procedural textures, for those who have no folder of textures."""

from __future__ import annotations

import torch

from anomalib_synth.functional.masks import soft_wave
from anomalib_synth.functional.noise import fractal_noise, hash_uniform, white_noise


def procedural_texture(seed: torch.Tensor, size: tuple[int, int], channels: int) -> torch.Tensor:
    """Render textures of stripes, clouds and grain between two random colours.

    Args:
        seed: (N,) seeds.
        size: Height and width in pixels.
        channels: 1 or 3.

    Returns:
        (N, channels, h, w) float32 in [0, 1].
    """
    h, w = size
    x = torch.arange(w, device=seed.device, dtype=torch.float32).view(1, 1, 1, -1).expand(len(seed), -1, -1, -1)
    y = torch.arange(h, device=seed.device, dtype=torch.float32).view(1, 1, -1, 1).expand(len(seed), -1, -1, -1)
    knobs = hash_uniform(seed.view(-1, 1), torch.zeros_like(seed).view(-1, 1), torch.arange(6, device=seed.device))
    period, cell, mix, grain, tilt, contrast = (knob.view(-1, 1, 1, 1) for knob in knobs.unbind(1))
    side = max(8, min(h, w))
    clouds = fractal_noise(seed, x, y, (cell.flatten() * cell.flatten() * 0.3 + 0.03) * side, octaves=2)
    warp = 6 * (clouds - 0.5)
    stripes = 0.5 + 0.5 * soft_wave((x + y * (4 * tilt - 2)) / (4 + period * 0.2 * side) + warp)
    speckle = white_noise(seed + 1, x, y) - 0.5
    level = (mix * stripes + (1 - mix) * clouds + 0.5 * grain * speckle).clamp(0, 1)
    colours = hash_uniform(
        seed.view(-1, 1), torch.ones_like(seed).view(-1, 1), torch.arange(2 * channels, device=seed.device)
    ).view(-1, 2, channels, 1, 1)
    low, high = colours.unbind(1)
    high = torch.where((high - low).abs() < 0.15, 1 - low, high)
    return low + (0.4 + 0.6 * contrast) * level * (high - low)

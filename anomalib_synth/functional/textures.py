"""Procedural textures, for use without a folder of textures."""

from __future__ import annotations

import torch
from kornia.filters import gaussian_blur2d, motion_blur

from anomalib_synth.functional.masks import soft_wave
from anomalib_synth.functional.noise import fractal_noise, hash_uniform, white_noise


def procedural_texture(seed: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Render a texture of stripes, clouds and grain, as levels and a palette that fades from one colour to another.

    Some textures stay sharp, others are blurred: by a Gaussian, like lacquer, or along a direction, like brushed metal.

    Args:
        seed: Seed of the texture.
        side: Side in pixels.

    Returns:
        Levels (side, side) uint8, and the colour of each level, (3, 256) float32 in [0, 1].
    """
    seeds = torch.tensor([seed])
    place = torch.arange(side, dtype=torch.float32).view(1, 1, 1, -1)
    x, y = place, place.transpose(2, 3)
    period, cell, mix, grain, tilt, contrast = hash_uniform(seeds, torch.tensor(0), torch.arange(6)).tolist()
    clouds = fractal_noise(seeds, x, y, torch.tensor([(cell * cell * 0.3 + 0.03) * side]), octaves=2)
    stripes = 0.5 + 0.5 * soft_wave((x + y * (4 * tilt - 2)) / (4 + period * 0.2 * side) + 6 * (clouds - 0.5))
    speckle = white_noise(seeds + 1, x, y) - 0.5
    level = (mix * stripes + (1 - mix) * clouds + 0.5 * grain * speckle).clamp(0, 1)
    low, high = hash_uniform(seeds, torch.tensor(1), torch.arange(6)).view(2, 3, 1)
    high = torch.where((high - low).abs() < 0.15, 1 - low, high)
    ramp = torch.arange(256, dtype=torch.float32) / 255
    palette = low + (0.4 + 0.6 * contrast) * ramp * (high - low)
    return (_soften(level, seed)[0, 0] * 255).round().to(torch.uint8), palette


def _soften(level: torch.Tensor, seed: int) -> torch.Tensor:
    """Blur the levels (1, 1, h, w) of a texture, or not; one by one, because a convolution may depend on the batch."""
    way, strength, angle = hash_uniform(torch.tensor(seed), torch.tensor(2), torch.arange(3)).tolist()
    size, sigma = 5 + 2 * int(3 * strength), 0.5 + 1.5 * strength
    if way < 0.4:
        return level
    if way < 0.7:
        return gaussian_blur2d(level, (size, size), (sigma, sigma), border_type="replicate")
    return motion_blur(level, size, 180.0 * angle, 0.0, border_type="replicate", mode="bilinear")

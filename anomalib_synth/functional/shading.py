"""Colours, coats and light, shared by the physical kernels; exactly rounded operations only."""

from __future__ import annotations

import torch
from kornia.color import rgb_to_grayscale

from anomalib_synth.functional.layers import Layer

Params = dict[str, torch.Tensor]


def shade(image: torch.Tensor, tone: torch.Tensor) -> torch.Tensor:
    """Brighten or darken an image: tone 1 gives white, 0 changes nothing, -1 gives black.

    Args:
        image: (N, C, h, w) in [0, 1].
        tone: (N, 1, h, w) or (N, 1, 1, 1), clipped to [-1, 1].
    """
    up, down = tone.clamp(0, 1), tone.clamp(-1, 0)
    return image * (1 - up + down) + up


def shade_over(image: torch.Tensor, *coats: tuple[torch.Tensor, torch.Tensor]) -> Layer:
    """Lay shades of an image over one another, the lowest first: :func:`over` with :func:`shade`, on single planes.

    Args:
        image: (N, C, h, w) in [0, 1].
        coats: Pairs of tone, as for :func:`shade`, and coverage (N, 1, h, w) in [0, 1].
    """
    kept = added = alpha = torch.zeros_like(image[:, :1])
    for tone, cover in coats:
        up, down = tone.clamp(0, 1), tone.clamp(-1, 0)
        left = 1 - cover
        kept = cover * (1 - up + down) + kept * left
        added = cover * up + added * left
        alpha = cover + alpha * left
    share = 1 / alpha.clamp_min(1e-6)
    return Layer(target=image * (kept * share) + added * share, alpha=alpha.clamp(0, 1))


def colour(params: Params, image: torch.Tensor) -> torch.Tensor:
    """Return the colour ``red, green, blue`` as (N, C, 1, 1); for grey images, its luminance (Rec. 601)."""
    rgb = torch.cat([params["red"], params["green"], params["blue"]], dim=1)
    return rgb_to_grayscale(rgb) if image.shape[1] == 1 else rgb


def over(*coats: tuple[torch.Tensor, torch.Tensor]) -> Layer:
    """Composite coats by the "over" operator, the lowest first (Porter & Duff, "Compositing Digital Images", 1984).

    Args:
        coats: Pairs of colour (N, C, h, w), or broadcastable to it, and coverage (N, 1, h, w) in [0, 1].
    """
    paint, alpha = coats[0][0] * coats[0][1], coats[0][1]
    for tint, cover in coats[1:]:
        paint = tint * cover + paint * (1 - cover)
        alpha = cover + alpha * (1 - cover)
    return Layer(target=paint / alpha.clamp_min(1e-6), alpha=alpha.clamp(0, 1))


def bump(
    u: torch.Tensor,
    v: torch.Tensor,
    radius: tuple[torch.Tensor, torch.Tensor],
    light: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the height of a smooth bump, and its slope towards the light.

    The height is ``(1 - s)^3`` with ``s = (u / radius_u)^2 + (v / radius_v)^2``, and 0 for ``s >= 1``, so that neither
    the surface nor its shading has a crease.

    Args:
        u: (N, 1, h, w) first coordinate from the centre, in pixels.
        v: (N, 1, h, w) second coordinate.
        radius: Radii along u and v in pixels, (N, 1, 1, 1) each.
        light: Components along u and v of the unit vector towards the light, in the plane of the surface.

    Returns:
        Height in [0, 1], and its directional derivative along ``light`` per pixel, each (N, 1, h, w).
    """
    a, b = u / radius[0], v / radius[1]
    left = (1 - a * a - b * b).clamp(min=0)
    return left * left * left, -6 * left * left * (a * (light[0] / radius[0]) + b * (light[1] / radius[1]))

"""Kernels of faint changes of a whole region, whose border is soft. Pure functions of a window and parameters.

What is smooth is computed on every fourth pixel and enlarged: a region may be as large as the image.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from anomalib_synth.functional.layers import Layer, Window
from anomalib_synth.functional.masks import blob, box_blur, smoothstep
from anomalib_synth.functional.noise import fractal_noise, noise_along, value_noise, white_noise
from anomalib_synth.functional.shading import Params, shade

_STEP = 4


def uneven(window: Window, params: Params) -> Layer:
    """An uneven coat or finish: a cloudy region that is a little too bright or too dark, and fades out.

    Params:
        cos, sin: direction; radius_u, radius_v: pixels; soft: share of the radius over which it fades, (0, 1];
        rough: irregularity of the outline, [0, 1]; tone: [-1, 1]; cloud: how much the tone varies, [0, 1];
        noise: seed.
    """
    x, y = _coarse(window)
    seed, radius = params["noise"].flatten(), _radius(params)
    outline = value_noise(seed, x, y, radius * 0.8) - 0.5
    cloud = fractal_noise(seed + 3, x, y, radius * 0.45, octaves=2) - 0.5
    tone = params["tone"] * (1 + 2 * params["cloud"] * cloud)
    weight, tone = _enlarge(window, _region(x, y, params, outline), tone)
    return Layer(target=shade(window.image, tone), alpha=weight)


def wear(window: Window, params: Params) -> Layer:
    """A worn region: rubbing has taken the finest texture off along one direction, and left a matt or shiny film.

    Params:
        cos, sin: direction of the rubbing; radius_u, radius_v: pixels; soft, rough: as for :func:`uneven`;
        rub: share of the texture that is gone, [0, 1]; tone: of the film, [-1, 1]; grain: pixels, across a rub mark;
        noise: seed.
    """
    x, y = _coarse(window)
    seed, radius = params["noise"].flatten(), _radius(params)
    outline = fractal_noise(seed, x, y, radius * 0.7, octaves=3) - 0.5
    patch = value_noise(seed + 5, x, y, radius * 0.25)
    weight, patch = _enlarge(window, _region(x, y, params, outline), patch)
    _, v = window.rotated(params["cos"], params["sin"])
    rubbed = smoothstep(0.6 * patch + 0.4 * noise_along(seed + 3, v, params["grain"].flatten()), 0.2, 0.7)
    target = window.image + params["rub"] * rubbed * (box_blur(window.image) - window.image)
    return Layer(target=shade(target, params["tone"] * (0.35 + 0.65 * rubbed)), alpha=weight)


def streaks(window: Window, params: Params) -> Layer:
    """Faint parallel bands, as a wiper, a roller or a tool leaves them; each begins, swells and ends on its own.

    Params:
        cos, sin: direction; radius_u, radius_v: pixels, along and across; soft: share of the radius over which they
        fade, (0, 1]; pitch: pixels between bands; tone: [-1, 1]; both: 1 for bright and dark ones, 0 for one kind;
        lift: how much of a band is missing, [0, 1]; noise: seed.
    """
    u, v = window.rotated(params["cos"], params["sin"])
    seed = params["noise"].flatten()
    weight = _fade(u.abs() / params["radius_u"], params["soft"]) * _fade(v.abs() / params["radius_v"], params["soft"])
    own = noise_along(seed, v, params["pitch"].flatten())
    band = own - 0.5
    depth = smoothstep(band.abs(), 0.08, 0.35) * torch.where(band > 0, torch.ones_like(band), 1 - 2 * params["both"])
    # the swell of a band: waves along it, put off by an amount of its own
    swell = noise_along(seed + 2, u + 1.5 * params["radius_u"] * own, params["radius_u"].flatten() * 0.4)
    tone = params["tone"] * depth * (1 - params["lift"] * smoothstep(swell, 0.3, 0.7))
    return Layer(target=shade(window.image, tone), alpha=weight * smoothstep(depth.abs(), 0.0, 0.05))


def fray(window: Window, params: Params) -> Layer:
    """A frayed or torn-up surface: rough strands side by side, each of its own length, that catch or lose the light.

    Params:
        cos, sin: direction of the strands; radius_u, radius_v: pixels, along and across; strand: width of one, pixels;
        ragged: how much their ends differ, [0, 1]; tone: mean of the region, contrast: of strands, [-1, 1];
        noise: seed.
    """
    x, y = _coarse(window)
    seed, strand = params["noise"].flatten(), params["strand"].flatten()
    sway = value_noise(seed + 1, x, y, 9 * strand) - 0.5  # neighbours do not sway alike
    patch = smoothstep(value_noise(seed + 5, x, y, 14 * strand), 0.1, 0.5)
    sway, patch = _enlarge(window, sway, patch)
    u, v = window.rotated(params["cos"], params["sin"])
    own = noise_along(seed + 2, v + 3 * params["strand"] * sway, strand)
    reach = blob(u, v, params["radius_u"], params["radius_v"]) + params["ragged"] * (0.8 * own + 0.4 * sway - 0.4)
    # along a strand its height changes, so that it is seen in pieces, and not everywhere
    piece = smoothstep(noise_along(seed + 4, u + 60 * params["strand"] * own, 6 * strand), 0.3, 0.8)
    grain = white_noise(seed + 6, window.x, window.y) - 0.5
    lit = params["contrast"] * (1.8 * (own - 0.5) * piece * (0.3 + 0.7 * patch) + 0.35 * grain * patch)
    tone = params["tone"] * (0.4 + 0.6 * patch) + lit
    return Layer(target=shade(window.image, tone), alpha=smoothstep(reach, 1.0, 0.7))


def _radius(params: Params) -> torch.Tensor:
    return torch.minimum(params["radius_u"], params["radius_v"]).flatten()


def _coarse(window: Window) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coordinates of every fourth pixel's block: (N, 1, 1, w / 4), (N, 1, h / 4, 1)."""
    middle = (_STEP - 1) / 2
    return window.x[..., ::_STEP] + middle, window.y[:, :, ::_STEP] + middle


def _enlarge(window: Window, *fields: torch.Tensor) -> list[torch.Tensor]:
    """Enlarge fields (N, 1, h / 4, w / 4) to the window."""
    size = window.image.shape[-2:]
    return [F.interpolate(field, size=size, mode="bilinear") for field in fields]


def _region(x: torch.Tensor, y: torch.Tensor, params: Params, outline: torch.Tensor) -> torch.Tensor:
    """Return the weight of an ellipse with a soft and rough border."""
    u, v = x * params["cos"] + y * params["sin"], y * params["cos"] - x * params["sin"]
    distance = blob(u, v, params["radius_u"], params["radius_v"])
    return _fade(distance + params["rough"] * outline, params["soft"])


def _fade(distance: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """Return 1 inside, and 0 from a distance of 1 on, with a soft edge."""
    return smoothstep(distance, torch.ones_like(soft), 1 - soft)

"""Kernels of augmentations from the literature: pure functions of a window and parameters, each (N, 1, 1, 1)."""

from __future__ import annotations

from typing import cast

import torch
from torch.nn import functional as F

from anomalib_synth.functional.blending import blend_poisson
from anomalib_synth.functional.enhancement import jitter
from anomalib_synth.functional.layers import Layer, Window
from anomalib_synth.functional.masks import blob, exact_mean, rectangle, smoothstep
from anomalib_synth.functional.noise import hash_uniform, perlin_noise, value_noise, white_noise
from anomalib_synth.functional.shading import Params, colour
from anomalib_synth.functional.warping import turn

_JULIA_STEPS = 14
_SHUFFLE_GRID = (8, 4)


def noise(window: Window, params: Params) -> Layer:
    """Add uniform noise inside an irregular region.

    Params:
        radius: pixels; amplitude: image units; colour: 1 for noise per channel, 0 for grey; noise: seed.
    """
    seed = params["noise"].flatten()
    wobble = value_noise(seed, window.x, window.y, params["radius"].flatten() * 0.6)
    distance = blob(window.x, window.y, params["radius"], params["radius"]) + 0.8 * (wobble - 0.5)
    grey = white_noise(seed + 1, window.x, window.y) - 0.5
    grain = grey
    if window.image.shape[1] > 1 and bool((params["colour"] > 0).any()):
        coloured = [grey] + [white_noise(seed + 1 + c, window.x, window.y) - 0.5 for c in (1, 2)]
        grain = grey + params["colour"] * (torch.cat(coloured, dim=1) - grey)
    return Layer(target=window.image + 2 * params["amplitude"] * grain, alpha=smoothstep(distance, 1.0, 0.8))


def cut_paste(window: Window, params: Params) -> Layer:
    """Paste a rectangle from another place or image, with jittered colours (CutPaste, Li et al. 2021).

    Params:
        cos, sin: direction; half_u, half_v: pixels; gain: factor of contrast; offset: image units; chroma_along,
        chroma_across: see :func:`.enhancement.jitter`.
    """
    return _paste(window, params, cast("torch.Tensor", window.donor))


def cut_paste_scar(window: Window, params: Params) -> Layer:
    """Paste a thin rectangle, turned with its content by up to 45 degrees (CutPaste, Li et al. 2021).

    Params:
        Those of :func:`cut_paste`, and turn_cos, turn_sin: angle by which the content is turned.
    """
    return _paste(window, params, turn(cast("torch.Tensor", window.donor), params["turn_cos"], params["turn_sin"]))


def cut_out(window: Window, params: Params) -> Layer:
    """Fill a rectangle with one colour (CutOut, DeVries & Taylor 2017, where the colour is always zero).

    Params:
        half_u, half_v: pixels; red, green, blue: colour in [0, 1].
    """
    alpha = rectangle(window.x, window.y, params["half_u"], params["half_v"])
    return Layer(target=colour(params, window.image).expand_as(window.image), alpha=alpha)


def interpolate_foreign_patch(window: Window, params: Params) -> Layer:
    """Blend a rectangle with the same place of another normal (FPI, Tan et al. 2020, eq. 1).

    Params:
        half_u, half_v: pixels; factor: share of the foreign patch, (0, 1).
    """
    alpha = rectangle(window.x, window.y, params["half_u"], params["half_v"])
    return Layer(target=window.image + params["factor"] * (window.donor - window.image), alpha=alpha)


def natural_synthetic_anomaly(window: Window, params: Params) -> Layer:
    """Clone a rescaled rectangle of another normal seamlessly (NSA, Schlüter et al. 2022).

    Params:
        half_u, half_v: pixels, whole numbers; scale: size of the pasted patch relative to its size in the donor.
    """
    target = window.image.clone()
    alpha = torch.zeros_like(window.image[:, :1])
    columns = torch.cat([params[name].view(-1, 1) for name in ("half_u", "half_v", "scale")], dim=1).tolist()
    h, w = alpha.shape[-2:]
    for n, (half_u, half_v, scale) in enumerate(columns):
        centre_y = int((window.y[n] < 0).sum())
        centre_x = int((window.x[n] < 0).sum())
        top, bottom = max(0, centre_y - int(half_v)), min(h, centre_y + int(half_v))
        left, right = max(0, centre_x - int(half_u)), min(w, centre_x + int(half_u))
        if min(bottom - top, right - left) < 3:
            continue
        place = (slice(n, n + 1), slice(None), slice(top, bottom), slice(left, right))
        size = (bottom - top, right - left)
        taken = [max(2, min(limit, round(side / scale))) for side, limit in zip(size, (h, w), strict=True)]
        patch = F.interpolate(
            cast("torch.Tensor", window.donor)[n : n + 1, :, : taken[0], : taken[1]], size=size, mode="bilinear"
        )
        target[place] = blend_poisson(window.image[place], patch)
        alpha[n, :, top + 1 : bottom - 1, left + 1 : right - 1] = 1.0
    return Layer(target=target, alpha=alpha)


def perlin_texture(window: Window, params: Params) -> Layer:
    """Blend a foreign texture where rotated Perlin noise exceeds a threshold (DRAEM, Zavrtanik et al. 2021, eq. 2).

    DeSTSeg (Zhang et al. 2023) is the same with a wider range of opacity. We differ from the papers: the noise fills a
    window of half or three quarters of the image, placed on the part, and not the whole image; and without a texture
    folder the texture is procedural.

    Params:
        cos, sin: rotation; cell_x, cell_y: lattice spacing in pixels; threshold: smallest noise value inside; opacity:
        share of the texture, (0, 1]; noise: seed.
    """
    return Layer(target=window.texture, alpha=_perlin_mask(window, params) * params["opacity"])


def memseg(window: Window, params: Params) -> Layer:
    """Blend a texture, or the image's own shuffled grid, on the part only (MemSeg, Yang et al. 2023, eq. 1-4).

    Params:
        Those of :func:`perlin_texture`, and structural: 1 uses the image's own blocks (8 across, 4 down) in another
        order, 0 the texture.
    """
    seeds, foreign_texture = params["noise"].flatten(), cast("torch.Tensor", window.texture)
    foreign = [
        _shuffle_blocks(window.image[n : n + 1], seeds[n : n + 1]) if own else foreign_texture[n : n + 1]
        for n, own in enumerate((params["structural"].flatten() > 0).tolist())
    ]
    alpha = _perlin_mask(window, params) * window.foreground
    return Layer(target=foreign[0] if len(foreign) == 1 else torch.cat(foreign), alpha=alpha * params["opacity"])


def realnet_blend(window: Window, params: Params) -> Layer:
    """Blend a perturbed normal into the part along a Perlin mask (RealNet, Zhang et al. 2024, eq. 6).

    RealNet perturbs normals with a diffusion model of raised variance. We need no model: the perturbation is a
    stretched contrast, a smooth colour drift and grain on another normal.

    Params:
        Those of :func:`perlin_texture`, and contrast: factor; drift: image units; grain: image units.
    """
    seed = params["noise"].flatten()
    alpha = _perlin_mask(window, params) * window.foreground
    drift = value_noise(seed + 11, window.x, window.y, params["cell_x"].flatten().clamp_min(8)) - 0.5
    grain = white_noise(seed + 13, window.x, window.y) - 0.5
    mean = exact_mean(window.donor).view(-1, 1, 1, 1)
    tint = 1 - colour(params, window.image)
    overlay = params["grain"] * grain - params["contrast"] * mean
    perturbed = (params["contrast"] * window.donor).add_(overlay + mean)
    perturbed.add_(params["drift"] * (1 + 2 * drift) * (tint - 0.5))
    return Layer(target=perturbed, alpha=alpha * params["opacity"])


def fractal(window: Window, params: Params) -> Layer:
    """Paint a Julia set, coloured by escape time (after FractalAD, Xia et al. 2023, which pastes fractal pictures).

    Params:
        cos, sin: direction; radius: pixels; real, imaginary: parts of the constant c of z -> z**2 + c; red, green,
        blue: colour in [0, 1].
    """
    u, v = window.rotated(params["cos"], params["sin"])
    a, b = u * (1.4 / params["radius"]), v * (1.4 / params["radius"])
    steps = torch.zeros_like(a)
    alive = torch.ones_like(a, dtype=torch.bool)
    for _ in range(_JULIA_STEPS):
        square_a, square_b = a * a, b * b
        alive = alive & (square_a + square_b <= 4)
        steps = steps + alive
        b = 2 * (a * b) + params["imaginary"]
        a = square_a - square_b + params["real"]
        a, b = a.clamp(-8, 8), b.clamp(-8, 8)
    level = steps * (1.0 / _JULIA_STEPS)
    paint = colour(params, window.image)
    return Layer(target=(1 - paint) + level * (2 * paint - 1), alpha=smoothstep(level, 0.3, 0.45))


def _paste(window: Window, params: Params, donor: torch.Tensor) -> Layer:
    """Paste a rectangle of a donor with jittered colours."""
    u, v = window.rotated(params["cos"], params["sin"])
    return Layer(
        target=jitter(donor, params["gain"], params["offset"], (params["chroma_along"], params["chroma_across"])),
        alpha=rectangle(u, v, params["half_u"], params["half_v"]),
    )


def _perlin_mask(window: Window, params: Params) -> torch.Tensor:
    """Return 1.0 where Perlin noise, rotated about the window's centre, exceeds the threshold, else 0.0.

    The noise is computed on every other pixel, because the rotation interpolates anyway, as in DRAEM's code. The
    threshold rises towards the window's edges, so that no region is cut off in a straight line. The coordinates are
    written in place: kornia's remap gives the same bits but copies them twice (11 ms instead of 3.5 at 768 x 768).
    """
    field = perlin_noise(
        params["noise"].flatten(),
        window.x[..., ::2],
        window.y[:, :, ::2],
        params["cell_x"].flatten(),
        params["cell_y"].flatten(),
    )
    h, w = window.image.shape[-2:]
    x = (torch.arange(w, device=field.device, dtype=torch.float32) + 0.5 - w / 2).view(1, 1, -1)
    y = (torch.arange(h, device=field.device, dtype=torch.float32) + 0.5 - h / 2).view(1, -1, 1)
    cos, sin = params["cos"].view(-1, 1, 1), params["sin"].view(-1, 1, 1)
    grid = torch.empty(len(field), h, w, 2, device=field.device)
    torch.add(x * cos * (2 / w), y * sin * (2 / w), out=grid[..., 0])
    torch.sub(y * cos * (2 / h), x * sin * (2 / h), out=grid[..., 1])
    rotated = F.grid_sample(field, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    rise = params["threshold"] + smoothstep(x.abs() * (2 / w), 0.75, 1.0).unsqueeze(1)
    return (rotated - smoothstep(y.abs() * (2 / h), 0.75, 1.0).unsqueeze(1) > rise).float()


def _shuffle_blocks(image: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
    """Reorder the blocks of a grid, 8 across and 4 down; a remainder at the right and bottom stays."""
    across, down = _SHUFFLE_GRID
    h, w = image.shape[-2:]
    bh, bw = h // down, w // across
    if min(bh, bw) == 0:
        return image
    keys = hash_uniform(
        seed.view(-1, 1), torch.zeros_like(seed).view(-1, 1), torch.arange(across * down, device=seed.device)
    )
    order = keys.argsort(dim=1, stable=True).tolist()
    result = image.clone()
    for n in range(len(image)):
        for place, taken in enumerate(order[n]):
            top, left = place // across * bh, place % across * bw
            y, x = taken // across * bh, taken % across * bw
            result[n, :, top : top + bh, left : left + bw] = image[n, :, y : y + bh, x : x + bw]
    return result

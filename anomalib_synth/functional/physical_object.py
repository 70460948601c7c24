"""Kernels of missing, broken or misplaced material or print: pure functions of a window and parameters."""

from __future__ import annotations

import torch

from anomalib_synth.functional.background import mean_colour
from anomalib_synth.functional.layers import Layer, Window
from anomalib_synth.functional.masks import blob, rectangle, smoothstep, soft_wave
from anomalib_synth.functional.noise import fractal_noise, noise_along, white_noise
from anomalib_synth.functional.shading import Params, bump, over, shade
from anomalib_synth.functional.warping import displace, elastic_field, shift_planes

SHIFTED, GHOSTED, SPLIT, MISSING = 0, 1, 2, 3


def hole(window: Window, params: Params) -> Layer:
    """A hole: a dark floor or the background, a shadow at the near wall, light on the far wall, sometimes a burr.

    Params:
        cos, sin: direction; radius_u, radius_v: pixels; rough: irregularity of the edge, [0, 1]; light_u, light_v:
        towards the light, unit; depth: parallax of the floor as a share of the radius, [0, 1]; dark: tone of the
        floor, [0, 1]; through: 1 shows the background, 0 a floor; soft: half the width of the edge, pixels; lip:
        brightness of the burr around the edge, [0, 1]; noise: seed.
    """
    u, v = window.rotated(params["cos"], params["sin"])
    radius = torch.minimum(params["radius_u"], params["radius_v"])
    seed = params["noise"].flatten()
    ragged = params["rough"] * (fractal_noise(seed, window.x, window.y, radius.flatten() * 0.8, octaves=3) - 0.5)
    r = blob(u, v, params["radius_u"], params["radius_v"])
    inward = (1 - r - ragged) * radius  # pixels from the edge, positive inside
    mouth = smoothstep(inward, -params["soft"], params["soft"])
    shift = params["depth"] * radius
    du, dv = u + shift * params["light_u"], v + shift * params["light_v"]
    shadow = smoothstep(
        (blob(du, dv, params["radius_u"], params["radius_v"]) - 1 + ragged) * radius, -0.35 * radius, 0.6
    )
    facing = (u * params["light_u"] + v * params["light_v"]) / (radius * r.clamp_min(0.2))
    wall = smoothstep(inward, 0.9 * shift + 1.5, 0.0) * smoothstep(-facing, -0.1, 0.8)
    floor = shade(0.8 * mean_colour(window.image) + 0.2 * window.image, -params["dark"])
    floor = floor + params["through"] * (window.background - floor)
    floor = shade(floor, -0.5 * shadow)
    floor = floor + 0.55 * wall * (0.08 + 0.85 * window.image - floor)
    lip = smoothstep((inward + 0.9).abs(), params["soft"] + 0.5, 0.0) * smoothstep(-facing, 0.0, 0.9)
    return over((shade(window.image, torch.full_like(radius, 0.4)), params["lip"] * lip), (floor, mouth))


def chip(window: Window, params: Params) -> Layer:
    """A chip: a jagged bite that shows the background behind the part, bordered by a rough fracture surface.

    If the part looks like the background, for example because it fills the image, the bite is dark instead.

    Params:
        cos, sin: direction; radius_u, radius_v: pixels; rough: jaggedness, [0, 1]; bite: radius of the bite relative
        to the break, [0, 1]; tone: of the fracture surface, [-1, 1]; noise: seed.
    """
    u, v = window.rotated(params["cos"], params["sin"])
    radius = torch.minimum(params["radius_u"], params["radius_v"])
    seed = params["noise"].flatten()
    broad = fractal_noise(seed, window.x, window.y, radius.flatten() * 0.9, octaves=3) - 0.5
    q = blob(u, v, params["radius_u"], params["radius_v"]) + 1.3 * params["rough"] * broad
    inner = fractal_noise(seed + 2, window.x, window.y, radius.flatten() * 0.5, octaves=2) - 0.5
    soft = 0.6 / radius
    broken = smoothstep(q, 1 + soft, 1 - soft)
    bite = smoothstep(q + 0.5 * inner, params["bite"] + 1.5 * soft, params["bite"] - 1.5 * soft)
    part, background = mean_colour(window.image, window.foreground), window.background
    contrast = (part - background).abs().amax(1, keepdim=True)
    plain = smoothstep(contrast, 0.08, 0.16)
    dark = (0.15 - 0.1 * smoothstep(q, 0.8, 0.0)) * (window.image + part)
    void = plain * background + (1 - plain) * dark
    off = (window.image - background).abs().amax(1, keepdim=True)
    material = 1 - plain * (1 - smoothstep(off, 0.25 * contrast, 0.5 * contrast + 0.01))

    step = (inner * 5).floor() * 0.12 + 0.6 * inner + 0.12 * (white_noise(seed + 6, window.x, window.y) - 0.5)
    surface = shade(window.image, params["tone"] * (1.2 - 0.5 * q) + step)
    crest = smoothstep((q - 0.95).abs(), 0.1 + soft, 0.0)
    surface = shade(surface, -0.2 * params["tone"].sign() * crest)
    return over((surface, broken * material), (void, bite * broken * material))


def misprint(window: Window, params: Params) -> Layer:
    """A misprint: the content is shifted, doubled, split into colour planes, or missing in streaks.

    Params:
        half_u, half_v: pixels; kind: 0 shifted, 1 ghosted, 2 colour planes split (ghosted on a grey image),
        3 missing; ink: tone from too much (< 0) or too little (> 0) ink, [-1, 1]; shift_x, shift_y: whole pixels;
        streak: pixels; cos, sin: direction of the streaks; noise: seed.
    """
    image, kind = window.image, params["kind"]
    grey = image.shape[1] == 1
    ways = kind.new_tensor([1.0] if grey else [1.0, 0.0, -1.0]).view(1, -1, 1, 1)
    ways = torch.where(kind == SPLIT, ways, torch.ones_like(ways))
    moved = shift_planes(image, params["shift_x"] * ways, params["shift_y"] * ways)
    doubled = torch.minimum(image, 0.35 * image + 0.65 * moved)
    ghost = (kind == GHOSTED) | ((kind == SPLIT) & grey)
    target = torch.where(ghost, doubled, torch.where(kind == MISSING, mean_colour(image), moved))
    target = shade(target, params["ink"] * torch.where(kind == SPLIT, ways, torch.ones_like(ways)))
    alpha = rectangle(window.x, window.y, params["half_u"], params["half_v"])
    if bool((kind == MISSING).any()):
        _, v = window.rotated(params["cos"], params["sin"])
        streaks = smoothstep(noise_along(params["noise"].flatten(), v, params["streak"].flatten()), 0.35, 0.5)
        alpha = torch.where(kind == MISSING, alpha * streaks, alpha)
    return Layer(target=target, alpha=alpha)


def deformation(window: Window, params: Params) -> Layer:
    """A smooth local warp: a bulge, pinch, swirl, wave or crumple that fades into its surroundings.

    The swirl turns by ``2 atan(twist m)``, with m the warp's weight in [0, 1]; then cosine and sine are rational in m
    and need exactly rounded operations only.

    Params:
        cos, sin: direction; radius_u, radius_v: pixels; bulge: magnification at the centre, < 0 pinches, [-0.8, 0.8];
        twist: tangent of half the angle at the centre; wave: amplitude, pixels; pitch: wave length, pixels;
        elastic: largest displacement by an elastic field, pixels; field: number of the field;
        relief: tone of the shading of the warp, [-1, 1]; light_u, light_v: towards the light, unit.
    """
    u, v = window.rotated(params["cos"], params["sin"])
    a, b = u / params["radius_u"], v / params["radius_v"]
    left = (1 - a * a - b * b).clamp(min=0)
    weight = left * left
    tangent = params["twist"] * weight
    norm = 1 / (1 + tangent * tangent)
    cos, sin = (1 - tangent * tangent) * norm, 2 * tangent * norm
    scale = 1 - params["bulge"] * weight
    new_u = scale * (u * cos - v * sin) - u
    new_v = scale * (u * sin + v * cos) - v + params["wave"] * weight * soft_wave(u / params["pitch"])
    dx, dy = new_u * params["cos"] - new_v * params["sin"], new_u * params["sin"] + new_v * params["cos"]
    crumpled = (params["elastic"].flatten() > 0).nonzero().flatten().tolist()
    if crumpled:
        amount = (params["elastic"] * weight)[crumpled]
        field = elastic_field(params["field"][crumpled], 0.5 * a[crumpled], 0.5 * b[crumpled])
        dx[crumpled] += amount * field[:, :1]
        dy[crumpled] += amount * field[:, 1:]
    _, slope = bump(u, v, (params["radius_u"], params["radius_v"]), (params["light_u"], params["light_v"]))
    relief = params["relief"] * slope * torch.minimum(params["radius_u"], params["radius_v"]) * 0.58
    return Layer(target=shade(displace(window.image, dx, dy), relief), alpha=smoothstep(left, 0.0, 0.12))

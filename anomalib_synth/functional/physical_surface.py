"""Kernels of surface defects (relief, films, rust, char): pure functions of a window and parameters."""

from __future__ import annotations

import torch

from anomalib_synth.functional.layers import Layer, Window
from anomalib_synth.functional.masks import blob, smoothstep
from anomalib_synth.functional.noise import fractal_noise, value_noise, white_noise
from anomalib_synth.functional.shading import Params, bump, colour, over, shade

BUBBLES = 3


def dent(window: Window, params: Params) -> Layer:
    """A dent: two overlapping smooth hollows, lit from one side (Lambert), with a glint where they face the light.

    Params:
        cos, sin: direction of the long axis; radius_u, radius_v: pixels; offset_u, offset_v: centre of the second
        hollow, pixels; second: depth of the second hollow relative to the first, [0, 1]; light_u, light_v: towards the
        light, unit; contrast: tone of the steepest place, [0, 1]; gloss: tone of the glint, [0, 1].
    """
    u, v = window.rotated(params["cos"], params["sin"])
    light = params["light_u"], params["light_v"]
    radius_u, radius_v = params["radius_u"], params["radius_v"]
    height, slope = bump(u, v, (radius_u, radius_v), light)
    aside = bump(u - params["offset_u"], v - params["offset_v"], (0.6 * radius_u, 0.6 * radius_v), light)
    height, slope = height + params["second"] * aside[0], slope + params["second"] * aside[1]
    lit = slope * torch.minimum(radius_u, radius_v) * 0.58  # a hollow is a negative bump: its far side faces the light
    glint = params["gloss"] * smoothstep(lit, 0.45, 1.25)
    tone = params["contrast"] * (lit - 0.15 * height)
    alpha = smoothstep(height, 0.0, 0.02)
    return Layer(target=shade(shade(window.image, tone), glint), alpha=alpha)


def bubble(window: Window, params: Params) -> Layer:
    """Blisters: domes with a dark and a bright side, a shaded foot, and a highlight towards the light.

    Params:
        light_x, light_y: towards the light, unit; contrast: tone of the sides, [0, 1]; gloss: tone of the highlight,
        [0, 1]; foot: tone of the ring, [0, 1]; for each bubble b of 0 to 2 - x_b, y_b: centre, pixels; radius_b:
        pixels, 0 for no bubble.
    """
    tone = torch.zeros_like(window.image[:, :1])
    spot = torch.zeros_like(tone)
    alpha = torch.zeros_like(tone)
    for b in range(BUBBLES):
        radius = params[f"radius_{b}"].clamp_min(0.01)
        x, y = (window.x - params[f"x_{b}"]) / radius, (window.y - params[f"y_{b}"]) / radius
        r = (x * x + y * y).sqrt()
        facing = x * params["light_x"] + y * params["light_y"]
        soft = 0.7 / radius
        dome = smoothstep(r, 1 + soft, 1 - soft)
        side = facing * smoothstep(r, 0.1, 0.95)
        foot = smoothstep((r - 0.94).abs(), 0.12 + soft, 0.0) * (0.65 - 0.35 * facing)
        caustic = smoothstep(r, 0.35, 0.8) * smoothstep(-facing, 0.35, 0.85)
        tone = tone + dome * (params["contrast"] * (side + 0.55 * caustic) - params["foot"] * foot)
        dx, dy = x - 0.45 * params["light_x"], y - 0.45 * params["light_y"]
        spot = torch.maximum(spot, smoothstep((dx * dx + dy * dy).sqrt(), 0.3 + soft, 0.0) * dome)
        alpha = torch.maximum(alpha, dome * (params[f"radius_{b}"] > 0))
    return Layer(target=shade(shade(window.image, tone), params["gloss"] * spot), alpha=alpha)


def stain(window: Window, params: Params) -> Layer:
    """A dried liquid: a translucent film with an irregular outline, thicker along its rim.

    Params:
        cos, sin: direction; radius_u, radius_v: pixels; rough: irregularity of the outline, [0, 1]; red, green, blue:
        colour in [0, 1]; body: opacity of the film, [0, 1]; rim: opacity of its dried edge, [0, 1]; covering: 0 for a
        dye that filters light, 1 for a pigment that hides the surface; noise: seed.
    """
    u, v = window.rotated(params["cos"], params["sin"])
    radius = torch.minimum(params["radius_u"], params["radius_v"]).flatten()
    seed = params["noise"].flatten()
    outline = fractal_noise(seed, window.x, window.y, radius * 0.9, octaves=4) - 0.5
    q = blob(u, v, params["radius_u"], params["radius_v"]) + 1.6 * params["rough"] * outline
    mottle = value_noise(seed + 3, window.x, window.y, radius * 0.35)
    soft = (2.5 / radius.view(-1, 1, 1, 1)).clamp(0.35, 0.7)
    film = smoothstep(q, 1.0, 1.0 - soft)
    edge = smoothstep(q, 0.35, 0.9) * (0.3 + 0.7 * mottle)
    dye = colour(params, window.image)
    target = dye * (window.image + params["covering"] * (1 - window.image))
    thick = params["body"] * (0.65 + 0.5 * mottle + 0.4 * outline) + params["rim"] * edge
    return Layer(target=target, alpha=film * thick.clamp(0, 1))


def corrosion(window: Window, params: Params) -> Layer:
    """Rust or pitting: patches where multi-octave noise exceeds a threshold, with dark pits and stained surroundings.

    Params:
        cos, sin: direction; radius_u, radius_v: pixels; grain: size of a patch, pixels; cover: how much of the surface
        is corroded, [0, 1]; red, green, blue: colour of the rust in [0, 1]; pits: darkness of the pits, [0, 1]; noise:
        seed.
    """
    u, v = window.rotated(params["cos"], params["sin"])
    seed, grain = params["noise"].flatten(), params["grain"].flatten()
    a, b = u / params["radius_u"], v / params["radius_v"]
    fall = (1 - a * a - b * b).clamp(min=0)
    patch = fractal_noise(seed, window.x, window.y, grain, octaves=3)
    level = patch + 0.55 * (fall - 1) + 0.35 * (params["cover"] - 0.5)
    speckle = white_noise(seed + 11, window.x, window.y)
    tone = value_noise(seed + 5, window.x, window.y, grain * 0.6)
    inside = smoothstep(fall, 0.0, 0.1)
    halo = smoothstep(level, 0.12, 0.42) * inside
    rust = smoothstep(level + 0.06 * (speckle - 0.5), 0.34, 0.44) * inside
    pit = smoothstep(level + 0.05 * (speckle - 0.5), 0.46, 0.52) * params["pits"] * inside
    product = colour(params, window.image)
    scale = product * (0.55 + 0.6 * tone + 0.3 * (speckle - 0.5))
    stained = window.image * (0.45 + 0.55 * product)
    rusted = 0.75 * scale + 0.25 * window.image * scale
    return over((stained, 0.6 * halo), (rusted, 0.9 * rust), (0.3 * scale, pit))


def burn(window: Window, params: Params) -> Layer:
    """A burn: a charred, flaking centre in a browned halo that fades outwards.

    Params:
        cos, sin: direction; radius_u, radius_v: pixels, of the halo; core: radius of the char relative to the halo's,
        [0, 1]; halo: opacity, [0, 1]; red, green, blue: colour filter of the halo in [0, 1]; noise: seed.
    """
    u, v = window.rotated(params["cos"], params["sin"])
    radius = torch.minimum(params["radius_u"], params["radius_v"]).flatten()
    seed = params["noise"].flatten()
    flame = fractal_noise(seed, window.x, window.y, radius * 0.7, octaves=4) - 0.5
    r = blob(u, v, params["radius_u"], params["radius_v"])
    q = r + 0.7 * flame * smoothstep(r, 1.1, 0.5)
    heat = smoothstep(q, 1.0, params["core"] * 0.8)
    brown = colour(params, window.image)
    singed = window.image * (1 + heat * (brown - 1))
    char = smoothstep(q + 0.25 * flame, params["core"], params["core"] * 0.6)
    flake = value_noise(seed + 7, window.x, window.y, (radius * 0.12).clamp(min=1.5))
    ash = 0.05 + 0.09 * flake + 0.25 * smoothstep(flake, 0.8, 0.95) * (0.3 + 0.5 * brown)
    return over((singed, params["halo"] * heat), (ash + 0.06 * window.image, 0.95 * char))

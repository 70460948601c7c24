"""Kernels of thin physical defects: pure functions of a window and parameters, each (N, 1, 1, 1)."""

from __future__ import annotations

import torch

from anomalib_synth.functional.layers import Layer, Window
from anomalib_synth.functional.masks import smoothstep, soft_wave
from anomalib_synth.functional.noise import hash_uniform, noise_along
from anomalib_synth.functional.shading import Params, colour, over, shade, shade_over
from anomalib_synth.functional.strokes import jagged, links, stroke_distance
from anomalib_synth.functional.warping import displace

SCRATCH_LINES = 5
CRACK_BRANCHES = 5
_SCRATCH_NODES, _TRUNK_NODES, _BRANCH_NODES, _FIBRE_NODES = 25, 49, 17, 33


def scratch(window: Window, params: Params) -> Layer:
    """Scratches by a hard particle: grooves of varying pressure, with a raised rim that catches the light.

    Params:
        cos, sin: direction; length: pixels; width: of the whole bundle, pixels; lines: grooves in it, 1 to 5;
        bend: sagitta as a share of the length; wobble: pixels; skip: how easily the particle lifts off, [0, 1];
        depth: tone of the groove, [-1, 1]; burr: tone of the rim, [0, 1]; light_x, light_y: towards the light, unit;
        noise: seed.
    """
    flat = {name: value.view(-1, 1, 1) for name, value in params.items()}
    seed, length, width, skip = flat["noise"], flat["length"], flat["width"], flat["skip"]
    single = width / (1 + 0.75 * (flat["lines"] - 1))
    t = torch.linspace(-1, 1, _SCRATCH_NODES, device=seed.device).view(1, 1, -1)
    wander = jagged(seed.flatten(), _SCRATCH_NODES, finest=2).unsqueeze(1)
    line = torch.arange(SCRATCH_LINES, device=seed.device).view(1, -1, 1)
    pressure = jagged((seed + 31 * (line + 1)).flatten(), _SCRATCH_NODES, roughness=0.1)
    pressure = pressure.view(-1, SCRATCH_LINES, _SCRATCH_NODES)
    column = torch.arange(4, device=seed.device).view(1, 1, -1)
    side, start, stop, weight = hash_uniform(seed, line + 90, column).split(1, 2)
    other = (line > 0).float()
    across = flat["bend"] * length * (1 - t * t) + flat["wobble"] * wander + other * width * (side - 0.5)
    start, stop = 0.6 * other * start, 0.6 * other * stop
    ends = smoothstep(t, -1 + start, -0.8 + start) * smoothstep(t, 1 - stop, 0.65 - stop)
    half = 0.5 * single * (1 + other * 0.4 * (weight - 1)) * (1 + 0.7 * pressure.clamp(-1, 1)) * (0.4 + 0.6 * ends)
    half = half - 0.7 * (1 - ends) - skip * smoothstep(pressure, 0.1 - skip, -0.3 - skip)
    half = torch.where(flat["lines"] > line, half.clamp(min=-0.9), -torch.ones_like(half))
    along = (0.5 * length * t).expand_as(half)
    u, v, half = (links(*curve.unbind(1)) for curve in (along, across, half))
    x, y = u * flat["cos"] - v * flat["sin"], u * flat["sin"] + v * flat["cos"]
    reach = torch.full_like(params["width"], 0.7)
    groove = smoothstep(stroke_distance(window, x, y, half, reach), 0.6, -0.6)
    away = 0.7 + 0.4 * single
    if not bool((flat["burr"] > 0).any()):
        return shade_over(window.image, (params["depth"], groove))
    x, y = x - flat["light_x"] * away, y - flat["light_y"] * away
    half = torch.where(flat["burr"] > 0, half - 0.1, -torch.ones_like(half))
    rim = smoothstep(stroke_distance(window, x, y, half, reach), 0.6, -0.6)
    return shade_over(window.image, (params["burr"], rim), (params["depth"], groove))


def crack(window: Window, params: Params) -> Layer:
    """A crack: a dark self-affine line that tapers towards its ends, with finer branches.

    Params:
        cos, sin: direction; length, width: pixels; jag: height of the zigzag as a share of the length;
        tone: of the gap, [-1, 1]; noise: seed; middle_x, middle_y: middle of the whole crack relative to the trunk's,
        pixels; for each branch b of 0 to 4 - from_b: where the branch leaves the trunk, [0, 1]; cos_b, sin_b: direction
        relative to the trunk's; length_b: pixels, 0 for no branch.
    """
    flat = {name: value.view(-1, 1) for name, value in params.items()}
    seed, length, width = flat["noise"], flat["length"], flat["width"]
    t = torch.linspace(-1, 1, _TRUNK_NODES, device=seed.device).view(1, -1)
    trunk_u = 0.5 * length * (t + 0.12 * jagged(seed.flatten() + 5, _TRUNK_NODES, roughness=0.7).clamp(-0.5, 0.5))
    trunk_v = length * flat["jag"] * jagged(seed.flatten(), _TRUNK_NODES, roughness=0.85).clamp(-0.5, 0.5)
    taper = (1 - t * t * t * t) * (1 + 0.6 * jagged(seed.flatten() + 9, _TRUNK_NODES, roughness=0.3))
    trunk_w = 0.5 * width * taper - 0.6 * (1 - taper).clamp(min=0) * t * t
    curves = [(trunk_u, trunk_v, trunk_w)]
    s = torch.linspace(0, 1, _BRANCH_NODES, device=seed.device).view(1, -1)
    seeds = torch.cat([seed.flatten() + 101 * (b + 1) for b in range(CRACK_BRANCHES)])
    zigzags = jagged(seeds, _BRANCH_NODES, roughness=0.7).clamp(-0.5, 0.5)
    for b, zigzag in enumerate(zigzags.chunk(CRACK_BRANCHES)):
        node = (flat[f"from_{b}"] * (_TRUNK_NODES - 1)).floor().long()
        size = flat[f"length_{b}"]
        ahead, aside = size * s, 1.3 * size * flat["jag"] * (zigzag - zigzag[:, :1])
        u = trunk_u.gather(1, node) + ahead * flat[f"cos_{b}"] - aside * flat[f"sin_{b}"]
        v = trunk_v.gather(1, node) + ahead * flat[f"sin_{b}"] + aside * flat[f"cos_{b}"]
        half = trunk_w.gather(1, node) * 0.7 * (1 - s) - 0.45 * s
        curves.append((u, v, torch.where(size > 0, half, -torch.ones_like(half))))
    u, v, half = (links(*part) for part in zip(*curves, strict=True))
    cos, sin = params["cos"].view(-1, 1, 1), params["sin"].view(-1, 1, 1)
    reach = 0.8 + 0.25 * params["width"]
    x, y = u * cos - v * sin - params["middle_x"].view(-1, 1, 1), u * sin + v * cos - params["middle_y"].view(-1, 1, 1)
    distance = stroke_distance(window, x, y, half, reach)
    gap = smoothstep(distance, 0.6, -0.6)
    edge = 0.3 * smoothstep(distance, reach, -0.3)
    return shade_over(window.image, (0.6 * params["tone"], edge), (params["tone"], gap))


def fibre(window: Window, params: Params) -> Layer:
    """A hair or fibre that lies on the surface: two joined Bezier curves, a sheen, and a soft shadow beside it.

    Params:
        x0..x6, y0..y6: control points in pixels; width: pixels; red, green, blue: colour in [0, 1];
        sheen: tone of the highlight along it, [0, 1]; shadow: opacity, [0, 1]; shadow_x, shadow_y: offset in pixels.
    """
    flat = {name: value.view(-1, 1) for name, value in params.items()}
    t = torch.linspace(0, 1, _FIBRE_NODES, device=window.image.device).view(1, -1)
    s = 1 - t
    weights = (s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t)
    curves = {}
    for axis in "xy":
        for first in (0, 3):
            points = [flat[f"{axis}{first + k}"] for k in range(4)]
            total = points[0] * weights[0]
            for point, weight in zip(points[1:], weights[1:], strict=True):
                total = total + point * weight
            curves[axis, first] = total
    x, y = links(curves["x", 0], curves["x", 3]), links(curves["y", 0], curves["y", 3])
    half = (0.5 * params["width"].view(-1, 1, 1)).expand_as(x)
    blur = 1 + 0.6 * params["width"]
    distance = stroke_distance(window, x, y, half, torch.full_like(blur, 0.7))
    body = smoothstep(distance, 0.6, -0.6)
    sheen = smoothstep(distance, -0.1 * params["width"], -0.5 * params["width"]) * params["sheen"]
    sheen = sheen * smoothstep(params["width"], 2.0, 4.0)  # on a thinner fibre the sheen would alias
    aside_x, aside_y = params["shadow_x"].view(-1, 1, 1), params["shadow_y"].view(-1, 1, 1)
    shadow = smoothstep(stroke_distance(window, x + aside_x, y + aside_y, half, blur), blur, -0.5 * blur)
    paint = shade(colour(params, window.image), sheen)
    return over((torch.zeros_like(window.image), shadow * params["shadow"]), (paint, body))


def thread_pull(window: Window, params: Params) -> Layer:
    """A pulled thread: the thread is tight and raised; the weave around it is drawn in and puckers.

    Params:
        cos, sin: direction; length, width: of the thread, pixels; reach: width of the drawn-in strip on either side,
        pixels; pull: share of the distance by which it is drawn in, [0, 0.8]; pucker: tone of the folds, [0, 0.5];
        pitch: distance of the folds, pixels; tone: of the thread, [-1, 1]; wobble: pixels; noise: seed.
    """
    u, v = window.rotated(params["cos"], params["sin"])
    seed, cell = params["noise"].flatten(), params["length"].flatten() / 4
    v = v - params["wobble"] * (noise_along(seed, u, cell) - 0.5)
    t = 2 * u / params["length"]
    ends = (1 - t * t).clamp(min=0)
    z = v / params["reach"]
    beside = (1 - z * z).clamp(min=0)
    drawn = params["pull"] * v * beside * ends
    image = displace(window.image, -drawn * params["sin"], drawn * params["cos"])
    ripple = noise_along(seed + 1, u, params["pitch"].flatten())
    folds = (ripple - 0.5) * 2 * beside * beside * ends * smoothstep(v.abs(), 0, params["width"])
    image = shade(image, params["pucker"] * folds)
    z = 2 * v / params["width"]
    half = params["width"] * (0.5 + 0.15 * (ripple - 0.5)) - 0.5 * smoothstep(ends, 0.25, 0.0)
    thread = smoothstep(v.abs(), half + 0.5, half - 0.5) * smoothstep(ends, 0.0, 0.3)
    twist = soft_wave(u / (1.6 * params["width"]) + 0.35 * z)
    round_tone = params["tone"] * (1 - 0.3 * z * z) + 0.08 * twist
    gutter = smoothstep(v.abs(), params["width"] + 0.5, 0.5 * params["width"]) * smoothstep(ends, 0.0, 0.3)
    alpha = smoothstep(beside * ends, 0.0, 0.15)
    base = over((image, alpha), (shade(window.image, torch.full_like(params["tone"], -0.45)), 0.5 * gutter))
    return over((base.target, base.alpha), (shade(window.image, round_tone), thread))

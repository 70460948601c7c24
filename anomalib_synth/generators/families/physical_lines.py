"""Thin physical defects: how each is drawn and described."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from anomalib_synth.functional import physical_lines as kernels
from anomalib_synth.generators.families.family import Family, Frame, Params, phrase, size_word
from anomalib_synth.generators.families.shapes import (
    colour_of,
    draw_direction,
    draw_light,
    word_of_length,
    word_of_tone,
)

if TYPE_CHECKING:
    from anomalib_synth.generators.families.family import Caption, Draw, Render
    from anomalib_synth.generators.seeding import RandomStream

_FIBRES = {
    "black": (0.06, 0.05, 0.05),
    "brown": (0.25, 0.15, 0.09),
    "grey": (0.45, 0.45, 0.46),
    "white": (0.93, 0.92, 0.90),
    "blue": (0.15, 0.22, 0.50),
    "red": (0.60, 0.12, 0.12),
}
_FIBRE_NAMES = list(_FIBRES)


def _draw_scratch(rng: RandomStream, frame: Frame) -> Params:
    length = frame.draw_length(rng)
    lines = rng.choice([1, 2, 3, 5], [0.6, 0.18, 0.12, 0.1])
    width = max(1.0, rng.log_uniform(0.0035, 0.014) * frame.side) * (1 + 0.75 * (lines - 1))
    light = draw_light(rng)
    params = draw_direction(rng) | {
        "length": length,
        "width": width,
        "lines": float(lines),
        "bend": rng.choice([0.0, rng.uniform(-0.12, 0.12)]),
        "wobble": rng.skewed(0, 0.06) * length,
        "skip": rng.skewed(0.0, 0.7),
        "depth": rng.sign() * rng.log_uniform(0.15, 0.9),
        "burr": rng.choice([0.0, rng.uniform(0.1, 0.4)]),
        "light_x": light[0],
        "light_y": light[1],
        "noise": rng.noise_seed(),
    }
    extent = max(abs(params["cos"]), abs(params["sin"])) * length  # square, as with few window sizes batches are large
    extent += 10 + 2.5 * width + 2 * (abs(params["bend"]) * length + params["wobble"])
    return params | {
        "extent_x": extent,
        "extent_y": extent,
        "thickness": width / frame.side,
        "share": length / frame.side,
    }


def _caption_scratch(params: Params) -> str:
    thickness = size_word(params["thickness"], 0.007, 0.014, ("thin", "", "wide"))
    bundle = "bundle of scratches" if params["lines"] > 2 else "double scratch" if params["lines"] > 1 else "scratch"
    skips = "broken" if params["skip"] > 0.3 else ""
    return phrase(word_of_length(params), thickness, skips, word_of_tone(params["depth"]), bundle)


def _draw_branches(rng: RandomStream, length: float, count: int) -> Params:
    params: Params = {}
    for b in range(kernels.CRACK_BRANCHES):
        start, turn = rng.uniform(0.12, 0.85), rng.sign() * rng.uniform(0.35, 1.1)
        forward = 1.0 if rng.unit() < 0.8 else -1.0
        params |= {
            f"from_{b}": start,
            f"cos_{b}": forward * math.cos(turn),
            f"sin_{b}": math.sin(turn),
            f"length_{b}": length * rng.uniform(0.12, 0.42) if b < count else 0.0,
        }
    return params


def _crack_window(params: Params) -> Params:
    """Return side and middle of the square window that holds trunk and branches, however they zigzag."""
    length, jag = params["length"], params["jag"]
    aside = 0.5 * jag * length
    discs = [(-0.53 * length, 0.0, aside), (0.53 * length, 0.0, aside), (0.0, 0.0, aside)]
    for b in range(kernels.CRACK_BRANCHES):
        size = params[f"length_{b}"]
        if size:
            u = (params[f"from_{b}"] - 0.5) * length + size * params[f"cos_{b}"]
            discs.append((u, size * params[f"sin_{b}"], math.hypot(aside, 0.04 * length) + 1.3 * jag * size))
    cos, sin = params["cos"], params["sin"]
    x = [(u * cos - v * sin, radius) for u, v, radius in discs]
    y = [(u * sin + v * cos, radius) for u, v, radius in discs]
    middles, sizes = [], []
    for axis in (x, y):
        low, high = min(c - r for c, r in axis), max(c + r for c, r in axis)
        middles.append(0.5 * (low + high))
        sizes.append(high - low)
    extent = max(sizes) + 3 * params["width"] + 8
    return {"middle_x": middles[0], "middle_y": middles[1], "extent_x": extent, "extent_y": extent}


def _draw_crack(rng: RandomStream, frame: Frame) -> Params:
    length = frame.draw_length(rng)
    width = max(1.0, rng.log_uniform(0.0045, 0.018) * frame.side)
    branches = rng.choice([0, 1, 2, 3, 5], [0.15, 0.2, 0.25, 0.25, 0.15])
    params = draw_direction(rng) | {
        "length": length,
        "width": width,
        "jag": rng.uniform(0.10, 0.26),
        "tone": rng.choice([-1.0, rng.uniform(0.5, 0.8)], [0.8, 0.2]),
        "branches": float(branches),
        "noise": rng.noise_seed(),
    }
    if params["tone"] < 0:
        params["tone"] = -rng.uniform(0.35, 0.95)
    params |= _draw_branches(rng, length, branches)
    params |= {"thickness": width / frame.side, "share": length / frame.side}
    return params | _crack_window(params)


def _caption_crack(params: Params) -> str:
    thickness = size_word(params["thickness"], 0.007, 0.011, ("thin", "", "wide"))
    branching = "branching" if params["branches"] else ""
    return phrase(word_of_length(params), thickness, branching, "dark" if params["tone"] < 0 else "pale", "crack")


def _draw_fibre(rng: RandomStream, frame: Frame) -> Params:
    """Draw two smoothly joined Bezier curves that wander from one end to the other with a random curl."""
    length = frame.draw_length(rng, longer=2.2)
    angle, curl = rng.uniform(0, 2 * math.pi), rng.choice([0.5, 1.0, 1.7])
    x, y = [0.0], [0.0]
    for k in range(1, 7):
        if k == 4:  # smooth joint: the handles are opposite
            x.append(2 * x[3] - x[2])
            y.append(2 * y[3] - y[2])
            continue
        angle += curl * rng.uniform(-1.1, 1.1)
        step = length / 6 * rng.uniform(0.7, 1.4)
        x.append(x[-1] + step * math.cos(angle))
        y.append(y[-1] + step * math.sin(angle))
    middle_x, middle_y = 0.5 * (min(x) + max(x)), 0.5 * (min(y) + max(y))
    name = rng.choice(_FIBRE_NAMES, [0.28, 0.16, 0.12, 0.24, 0.1, 0.1])
    light, width = draw_light(rng), max(0.9, rng.log_uniform(0.0035, 0.009) * frame.side)
    lift = width * rng.uniform(0.7, 1.6) + 0.5
    extent = max(max(x) - min(x), max(y) - min(y)) + 2 * (2.2 * width + lift + 4)
    params = {f"x{k}": value - middle_x for k, value in enumerate(x)}
    params |= {f"y{k}": value - middle_y for k, value in enumerate(y)}
    return params | colour_of(_FIBRES[name], rng, frame) | {
        "width": width,
        "sheen": rng.uniform(0.1, 0.4),
        "shadow": rng.uniform(0.2, 0.45),
        "shadow_x": -light[0] * lift,
        "shadow_y": -light[1] * lift,
        "tint": float(_FIBRE_NAMES.index(name)),
        "curl": curl,
        "share": length / frame.side,
        "thickness": width / frame.side,
        "extent_x": extent,
        "extent_y": extent,
    }  # fmt: skip


def _caption_fibre(params: Params) -> str:
    thickness = size_word(params["thickness"], 0.0042, 0.006, ("thin", "", "thick"))
    curled = size_word(params["curl"], 0.7, 1.3, ("", "curved", "curled"))
    return phrase(word_of_length(params), thickness, curled, _FIBRE_NAMES[int(params["tint"])], "fibre")


def _draw_thread_pull(rng: RandomStream, frame: Frame) -> Params:
    length = frame.draw_length(rng, 0.1, longer=2.5)
    width = max(1.3, rng.uniform(0.006, 0.014) * frame.side)
    reach = min(0.3 * length, width * rng.uniform(3.0, 6.0)) + 1
    tilt = rng.uniform(-0.12, 0.12) + rng.choice([0.0, math.pi / 2])  # threads run along the weave
    params = {
        "cos": math.cos(tilt),
        "sin": math.sin(tilt),
        "length": length,
        "width": width,
        "reach": reach,
        "pull": rng.uniform(0.4, 0.8),
        "pucker": rng.uniform(0.15, 0.45),
        "pitch": max(2.0, width * rng.uniform(1.2, 2.5)),
        "tone": rng.sign() * rng.uniform(0.3, 0.6),
        "wobble": rng.uniform(0.5, 2.0) * width,
        "noise": rng.noise_seed(),
    }
    across = 2 * reach + params["wobble"] + 2 * width + 8
    cos, sin = abs(params["cos"]), abs(params["sin"])
    return params | {
        "extent_x": cos * length + sin * across + 8,
        "extent_y": sin * length + cos * across + 8,
        "share": length / frame.side,
    }


def _caption_thread_pull(params: Params) -> str:
    return phrase(word_of_length(params), word_of_tone(params["tone"]), "pulled thread")


def _row(name: str, source: str, draw: Draw, render: Render, caption: Caption) -> Family:
    return Family(name=name, source=source, draw=draw, render=render, caption=caption, physical=True)


FAMILIES = [
    _row("scratch", "grooves with a burr", _draw_scratch, kernels.scratch, _caption_scratch),
    _row("crack", "branching fracture", _draw_crack, kernels.crack, _caption_crack),
    _row("fibre", "hair or fibre on the surface", _draw_fibre, kernels.fibre, _caption_fibre),
    _row("thread_pull", "snag in a fabric", _draw_thread_pull, kernels.thread_pull, _caption_thread_pull),
]

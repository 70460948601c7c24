"""Defects of the surface: how each is drawn and described."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from anomalib_synth.functional import physical_surface as kernels
from anomalib_synth.generators.families.family import Family, Frame, Params, phrase, size_word
from anomalib_synth.generators.families.shapes import colour_of, draw_ellipse, draw_light, light_along, word_of_size

if TYPE_CHECKING:
    from anomalib_synth.generators.families.family import Caption, Draw, Render
    from anomalib_synth.generators.seeding import RandomStream

_STAINS = {
    "brown": ((0.46, 0.33, 0.20), 0.08),
    "dark oily": ((0.26, 0.24, 0.21), 0.05),
    "rusty": ((0.62, 0.38, 0.20), 0.2),
    "bluish": ((0.30, 0.40, 0.62), 0.15),
    "yellowish": ((0.82, 0.72, 0.40), 0.3),
    "whitish": ((0.92, 0.91, 0.88), 0.9),
}
_STAIN_NAMES = list(_STAINS)


def _draw_dent(rng: RandomStream, frame: Frame) -> Params:
    params = draw_ellipse(rng, frame, low=0.1, high=0.85, slim=0.45, grow=1.75)
    turn, away = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.7)
    return params | light_along(params, draw_light(rng)) | {
        "offset_u": away * params["radius_u"] * math.cos(turn),
        "offset_v": away * params["radius_v"] * math.sin(turn),
        "second": rng.choice([0.0, rng.uniform(0.2, 0.6)]),
        "contrast": rng.log_uniform(0.14, 0.7),
        "gloss": rng.choice([0.0, rng.uniform(0.1, 0.4)]),
    }  # fmt: skip


def _caption_dent(params: Params) -> str:
    depth = size_word(params["contrast"], 0.35, 0.52, ("shallow", "", "deep"))
    slim = params["radius_v"] / params["radius_u"]
    shape = "glossy" if params["gloss"] else ""
    return phrase(word_of_size(params), depth, shape, size_word(slim, 0.6, 0.85, ("elongated", "", "round")), "dent")


def _draw_bubble(rng: RandomStream, frame: Frame) -> Params:
    radius = max(2.0, 0.5 * frame.draw_size(rng, high=0.7))
    count = rng.choice([1, 2, 3], [0.6, 0.25, 0.15])
    light = draw_light(rng)
    params = {"light_x": light[0], "light_y": light[1]}
    turn = rng.uniform(0, 2 * math.pi)
    for b in range(kernels.BUBBLES):
        size = 1.0 if b == 0 else rng.uniform(0.25, 0.6)
        away = 0.0 if b == 0 else radius * (1 + size * rng.uniform(1.0, 1.6))
        turn += rng.uniform(1.0, 2.2)
        params |= {
            f"x_{b}": away * math.cos(turn),
            f"y_{b}": away * math.sin(turn),
            f"radius_{b}": radius * size if b < count else 0.0,
        }
    reach = max(math.hypot(params[f"x_{b}"], params[f"y_{b}"]) + params[f"radius_{b}"] for b in range(count))
    return params | {
        "contrast": rng.log_uniform(0.12, 0.55),
        "gloss": rng.uniform(0.2, 0.8),
        "foot": rng.uniform(0.15, 0.45),
        "count": float(count),
        "share": 2 * radius / frame.side,
        "extent_x": 2 * reach + 8,
        "extent_y": 2 * reach + 8,
    }


def _caption_bubble(params: Params) -> str:
    gloss = "glossy" if params["gloss"] > 0.6 else ""
    size = size_word(params["share"], 0.06, 0.12, ("small", "", "large"))
    return phrase(size, gloss, "round bubble" if params["count"] == 1 else "cluster of round bubbles")


def _draw_stain(rng: RandomStream, frame: Frame) -> Params:
    rough = rng.uniform(0.25, 0.8)
    params = draw_ellipse(rng, frame, low=0.1, grow=1.05 + 0.8 * rough)
    name = rng.choice(_STAIN_NAMES, [0.24, 0.2, 0.14, 0.12, 0.12, 0.18])
    rgb, covering = _STAINS[name]
    return params | colour_of(rgb, rng, frame, 0.1) | {
        "rough": rough,
        "body": rng.log_uniform(0.15, 0.8),
        "rim": rng.uniform(0.1, 0.5),
        "covering": covering,
        "tint": float(_STAIN_NAMES.index(name)),
        "noise": rng.noise_seed(),
    }  # fmt: skip


def _caption_stain(params: Params) -> str:
    shape = "irregular" if params["rough"] > 0.5 else ""
    return phrase(word_of_size(params), shape, "translucent", _STAIN_NAMES[int(params["tint"])], "stain")


def _draw_corrosion(rng: RandomStream, frame: Frame) -> Params:
    params = draw_ellipse(rng, frame, low=0.15, grow=1.0)
    rusty = rng.unit() < 0.75
    rgb = (0.62, 0.33, 0.15) if rusty else (0.40, 0.39, 0.37)
    radius = min(params["radius_u"], params["radius_v"])
    return params | colour_of(rgb, rng, frame, 0.1) | {
        "grain": max(2.0, radius * rng.uniform(0.3, 0.6)),
        "cover": rng.uniform(0.3, 1.0),
        "pits": rng.uniform(0.4, 0.9),
        "rusty": float(rusty),
        "noise": rng.noise_seed(),
    }  # fmt: skip


def _caption_corrosion(params: Params) -> str:
    cover = size_word(params["cover"], 0.5, 0.8, ("sparse", "", "dense"))
    return phrase(word_of_size(params), cover, "brown" if params["rusty"] else "grey", "patch of", "pitting corrosion")


def _draw_burn(rng: RandomStream, frame: Frame) -> Params:
    params = draw_ellipse(rng, frame, low=0.15, high=0.85, slim=0.6, grow=1.15)
    return params | colour_of((0.50, 0.28, 0.12), rng, frame, 0.1) | {
        "core": rng.uniform(0.25, 0.6),
        "halo": rng.uniform(0.6, 0.95),
        "noise": rng.noise_seed(),
    }  # fmt: skip


def _caption_burn(params: Params) -> str:
    core = size_word(params["core"], 0.32, 0.5, ("scorched", "charred", "heavily charred"))
    return phrase(word_of_size(params), core, "burn with a brown halo")


def _row(name: str, source: str, draw: Draw, render: Render, caption: Caption) -> Family:
    return Family(name=name, source=source, draw=draw, render=render, caption=caption, physical=True)


FAMILIES = [
    _row("dent", "shading of a hollow", _draw_dent, kernels.dent, _caption_dent),
    _row("stain", "dried liquid", _draw_stain, kernels.stain, _caption_stain),
    _row("corrosion", "rust and pitting", _draw_corrosion, kernels.corrosion, _caption_corrosion),
    _row("burn", "heat damage", _draw_burn, kernels.burn, _caption_burn),
    _row("bubble", "blister in a coating", _draw_bubble, kernels.bubble, _caption_bubble),
]

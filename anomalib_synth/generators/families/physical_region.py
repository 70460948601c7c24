"""Faint changes of a whole region: how each is drawn and described."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from anomalib_synth.functional import physical_region as kernels
from anomalib_synth.generators.families.family import Family, Frame, Params, phrase, size_word
from anomalib_synth.generators.families.shapes import draw_direction, ellipse_window, word_of_tone

if TYPE_CHECKING:
    from anomalib_synth.generators.families.family import Caption, Draw, Render
    from anomalib_synth.generators.seeding import RandomStream

_LARGER = 2.0  # regional defects are larger than others of the same size range by this factor


def _draw_region(
    rng: RandomStream, frame: Frame, *, slim: float, grow: float = 1.0, low: float = 0.5, high: float = 1.0
) -> Params:
    """Draw a large ellipse: twice a size from a part of the size range, but not longer than the image."""
    size = _LARGER * frame.draw_size(rng, low, high)
    ratio = rng.log_uniform(slim, 1.0)
    longest = 0.5 * max(frame.height, frame.width)
    params = draw_direction(rng) | {
        "radius_u": min(0.5 * size / math.sqrt(ratio), longest),
        "radius_v": 0.5 * size * math.sqrt(ratio),
        "soft": rng.uniform(0.4, 0.9),
        "noise": rng.noise_seed(),
        "share": size / frame.side,
    }
    return params | ellipse_window(params, grow)


def _word_of_region(params: Params) -> str:
    return size_word(params["share"], 0.3, 0.6, ("small", "", "large"))


def _draw_uneven(rng: RandomStream, frame: Frame) -> Params:
    rough = rng.uniform(0.3, 0.9)
    return _draw_region(rng, frame, slim=0.35, grow=1 + 0.5 * rough) | {
        "rough": rough,
        "tone": rng.sign() * rng.log_uniform(0.2, 0.55),
        "cloud": rng.uniform(0.2, 0.9),
    }


def _caption_uneven(params: Params) -> str:
    cloudy = "cloudy" if params["cloud"] > 0.5 else ""
    return phrase(_word_of_region(params), cloudy, word_of_tone(params["tone"]), "uneven region")


def _draw_wear(rng: RandomStream, frame: Frame) -> Params:
    rough = rng.uniform(0.4, 1.0)
    return _draw_region(rng, frame, slim=0.25, grow=1 + 0.5 * rough) | {
        "rough": rough,
        "rub": rng.uniform(0.4, 1.0),
        "tone": rng.choice([1.0, -1.0], [0.65, 0.35]) * rng.log_uniform(0.2, 0.45),
        "grain": max(1.5, rng.log_uniform(0.006, 0.03) * frame.side),
    }


def _caption_wear(params: Params) -> str:
    rubbed = size_word(params["rub"], 0.55, 0.85, ("lightly rubbed", "rubbed", "heavily rubbed"))
    return phrase(_word_of_region(params), rubbed, word_of_tone(params["tone"]), "patch of wear")


def _draw_streaks(rng: RandomStream, frame: Frame) -> Params:
    params = _draw_region(rng, frame, slim=0.12)
    if rng.unit() < 0.6:  # tools and wipers run along the part
        upright = rng.choice([0.0, 1.0])
        params |= {"cos": 1 - upright, "sin": upright}
    pitch = max(3.0, rng.log_uniform(0.012, 0.05) * frame.side)
    params["radius_v"] = max(params["radius_v"], 1.5 * pitch)
    params |= _oblong_window(params)
    return params | {
        "pitch": pitch,
        "tone": rng.sign() * rng.log_uniform(0.25, 0.65),
        "both": rng.choice([0.0, 1.0]),
        "lift": rng.uniform(0.2, 1.0),
    }


def _oblong_window(params: Params) -> Params:
    """Return the extents of a rotated rectangle, enlarged by four pixels on each side."""
    u, v, cos, sin = params["radius_u"], params["radius_v"], abs(params["cos"]), abs(params["sin"])
    return {"extent_x": 2 * (u * cos + v * sin) + 8, "extent_y": 2 * (u * sin + v * cos) + 8}


def _caption_streaks(params: Params) -> str:
    kind = "bright and dark" if params["both"] else word_of_tone(params["tone"])
    return phrase(_word_of_region(params), "broken" if params["lift"] > 0.7 else "", kind, "group of streaks")


def _draw_fray(rng: RandomStream, frame: Frame) -> Params:
    ragged = rng.uniform(0.3, 0.9)
    return _draw_region(rng, frame, slim=0.3, grow=1 + 0.6 * ragged, low=0.3, high=0.85) | {
        "ragged": ragged,
        "strand": max(1.2, rng.log_uniform(0.004, 0.009) * frame.side),
        "tone": rng.choice([-1.0, 1.0], [0.65, 0.35]) * rng.log_uniform(0.08, 0.3),
        "contrast": rng.log_uniform(0.35, 0.9),
    }


def _caption_fray(params: Params) -> str:
    ragged = "ragged" if params["ragged"] > 0.6 else ""
    strands = size_word(params["contrast"], 0.45, 0.65, ("faintly", "", "strongly"))
    return phrase(_word_of_region(params), ragged, strands, "frayed patch")


def _row(name: str, source: str, draw: Draw, render: Render, caption: Caption) -> Family:
    return Family(name=name, source=source, draw=draw, render=render, caption=caption, physical=True, regional=True)


FAMILIES = [
    _row("uneven", "cloudy coat or finish", _draw_uneven, kernels.uneven, _caption_uneven),
    _row("wear", "rubbed surface", _draw_wear, kernels.wear, _caption_wear),
    _row("streaks", "faint parallel bands", _draw_streaks, kernels.streaks, _caption_streaks),
    _row("fray", "torn-up strands", _draw_fray, kernels.fray, _caption_fray),
]

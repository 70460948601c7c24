"""The literature's augmentations: how each is drawn, rendered and described."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from anomalib_synth.functional import literature as kernels
from anomalib_synth.generators.families.family import Family, Frame, Params, phrase, size_word

if TYPE_CHECKING:
    from anomalib_synth.generators.seeding import RandomStream


_LARGEST = 0.85  # where the part of the size range ends: the papers' patches are no larger


def _draw_noise(rng: RandomStream, frame: Frame) -> Params:
    radius = 0.5 * frame.draw_size(rng, high=_LARGEST)
    return {
        "radius": radius,
        "amplitude": rng.uniform(0.1, 0.4),
        "colour": rng.choice([0.0, 1.0]),
        "noise": rng.noise_seed(),
        "extent_x": 2.9 * radius,
        "extent_y": 2.9 * radius,
        "share": 2 * radius / frame.side,
    }


def _draw_rectangle(rng: RandomStream, frame: Frame, *, low: float = 0.1) -> Params:
    """Draw an upright rectangle with an aspect between 0.3 and 3.3, as CutPaste does."""
    side = frame.draw_size(rng, low, _LARGEST)
    aspect = math.sqrt(rng.choice([rng.uniform(0.3, 1.0), rng.uniform(1.0, 3.3)]))
    width, height = max(4, round(side * aspect)), max(4, round(side / aspect))
    return {
        "cos": 1.0,
        "sin": 0.0,
        "half_u": float(min(width, frame.width) // 2),
        "half_v": float(min(height, frame.height) // 2),
        "extent_x": width + 4.0,
        "extent_y": height + 4.0,
        "share": side / frame.side,
    }


def _jitter(rng: RandomStream) -> Params:
    """Draw CutPaste's jitter of contrast, brightness, saturation and hue, each by about a tenth."""
    saturation, turn = rng.uniform(0.9, 1.1), rng.uniform(-0.2, 0.2) * math.pi
    return {
        "gain": rng.uniform(0.85, 1.15),
        "offset": rng.uniform(-0.1, 0.1),
        "chroma_along": saturation * math.cos(turn),
        "chroma_across": saturation * math.sin(turn),
    }


def _draw_cut_paste(rng: RandomStream, frame: Frame) -> Params:
    return _draw_rectangle(rng, frame) | _jitter(rng)


def _draw_scar(rng: RandomStream, frame: Frame) -> Params:
    turn = rng.uniform(-math.pi / 4, math.pi / 4)
    angle = turn + rng.choice([0.0, math.pi / 2])
    half_u = max(3.0, 0.5 * frame.draw_size(rng, 0.15, _LARGEST))
    half_v = max(1.0, rng.uniform(0.004, 0.03) * frame.side)
    cos, sin = math.cos(angle), math.sin(angle)
    return _jitter(rng) | {
        "cos": cos,
        "sin": sin,
        "turn_cos": math.cos(turn),
        "turn_sin": math.sin(turn),
        "half_u": half_u,
        "half_v": half_v,
        "extent_x": 2 * (abs(cos) * half_u + abs(sin) * half_v) + 4,
        "extent_y": 2 * (abs(sin) * half_u + abs(cos) * half_v) + 4,
        "share": 2 * half_u / frame.side,
    }


def _colour(rng: RandomStream) -> Params:
    grey, tint = rng.unit(), rng.choice([0.0, 0.6])
    return {name: grey + tint * (rng.unit() - grey) for name in ("red", "green", "blue")}


def _draw_cut_out(rng: RandomStream, frame: Frame) -> Params:
    return _draw_rectangle(rng, frame) | _colour(rng)


def _draw_fpi(rng: RandomStream, frame: Frame) -> Params:
    return _draw_rectangle(rng, frame, low=0.4) | {"factor": rng.uniform(0.2, 0.95)}  # less is invisible


def _draw_nsa(rng: RandomStream, frame: Frame) -> Params:
    return _draw_rectangle(rng, frame, low=0.2) | {"scale": rng.uniform(0.7, 1.3)}


def _draw_perlin(rng: RandomStream, frame: Frame, *, opacity: tuple[float, float] = (0.2, 1.0)) -> Params:
    """Draw Perlin noise of 2 to 16 cells a side, in a window of half or three quarters of each side of the image."""
    angle = rng.uniform(-math.pi / 2, math.pi / 2)
    width, height = (rng.choice([0.5, 0.75]) * side for side in (frame.width, frame.height))
    return {
        "cos": math.cos(angle),
        "sin": math.sin(angle),
        "cell_x": max(2.0, width / 2 ** rng.integer(1, 4)),
        "cell_y": max(2.0, height / 2 ** rng.integer(1, 4)),
        "threshold": 0.5,
        "opacity": rng.uniform(*opacity),
        "noise": rng.noise_seed(),
        "extent_x": width,
        "extent_y": height,
    }


def _draw_destseg(rng: RandomStream, frame: Frame) -> Params:
    return _draw_perlin(rng, frame, opacity=(0.15, 1.0))


def _draw_memseg(rng: RandomStream, frame: Frame) -> Params:
    return _draw_perlin(rng, frame, opacity=(0.15, 1.0)) | {"structural": rng.choice([0.0, 1.0])}


def _draw_realnet(rng: RandomStream, frame: Frame) -> Params:
    return (
        _draw_perlin(rng, frame, opacity=(0.5, 1.0))
        | _colour(rng)
        | {
            "contrast": rng.uniform(0.4, 2.0),
            "drift": rng.uniform(0.1, 0.6),
            "grain": rng.uniform(0.0, 0.2),
        }
    )


def _draw_fractal(rng: RandomStream, frame: Frame) -> Params:
    radius = max(4.0, 0.5 * frame.draw_size(rng, 0.2, _LARGEST))
    angle, turn = rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    return _colour(rng) | {
        "cos": math.cos(angle),
        "sin": math.sin(angle),
        "radius": radius,
        "real": 0.7885 * math.cos(turn),
        "imaginary": 0.7885 * math.sin(turn),
        "extent_x": 2.9 * radius,
        "extent_y": 2.9 * radius,
        "share": 2 * radius / frame.side,
    }


def _sized(noun: str) -> Callable[[Params], str]:
    """Return a caption of a noun and, if the family draws a size, a word for it."""

    def caption(params: Params) -> str:
        size = size_word(params["share"], 0.08, 0.18, ("small", "", "large")) if "share" in params else ""
        return phrase(size, noun)

    return caption


FAMILIES = [
    Family(
        name="noise",
        source="noise injection",
        draw=_draw_noise,
        render=kernels.noise,
        caption=_sized("patch of noise"),
        physical=False,
    ),
    Family(
        name="cutpaste",
        source="CutPaste, arXiv 2104.04015",
        draw=_draw_cut_paste,
        render=kernels.cut_paste,
        caption=_sized("misplaced patch"),
        physical=False,
        needs="donor",
    ),
    Family(
        name="cutpaste_scar",
        source="CutPaste, arXiv 2104.04015",
        draw=_draw_scar,
        render=kernels.cut_paste_scar,
        caption=_sized("misplaced strip"),
        physical=False,
        needs="donor",
    ),
    Family(
        name="cutout",
        source="CutOut, arXiv 1708.04552",
        draw=_draw_cut_out,
        render=kernels.cut_out,
        caption=_sized("blank patch"),
        physical=False,
    ),
    Family(
        name="fpi",
        source="FPI, arXiv 2011.04197",
        draw=_draw_fpi,
        render=kernels.interpolate_foreign_patch,
        caption=_sized("foreign patch shining through"),
        physical=False,
        needs="donor",
        donor_place="same",
    ),
    Family(
        name="nsa",
        source="NSA, arXiv 2109.15222",
        draw=_draw_nsa,
        render=kernels.natural_synthetic_anomaly,
        caption=_sized("seamless foreign patch"),
        physical=False,
        needs="donor",
    ),
    Family(
        name="perlin_texture",
        source="DRAEM, arXiv 2108.07610",
        draw=_draw_perlin,
        render=kernels.perlin_texture,
        caption=_sized("foreign texture"),
        physical=False,
        needs="texture",
    ),
    Family(
        name="fractal",
        source="after FractalAD",
        draw=_draw_fractal,
        render=kernels.fractal,
        caption=_sized("fractal mark"),
        physical=False,
    ),
    Family(
        name="destseg",
        source="DeSTSeg, arXiv 2211.11317",
        draw=_draw_destseg,
        render=kernels.perlin_texture,
        caption=_sized("foreign texture"),
        physical=False,
        needs="texture",
    ),
    Family(
        name="memseg",
        source="MemSeg, arXiv 2205.00908",
        draw=_draw_memseg,
        render=kernels.memseg,
        caption=_sized("disordered texture"),
        physical=False,
        needs="texture",
    ),
    Family(
        name="realnet",
        source="RealNet, arXiv 2403.05897",
        draw=_draw_realnet,
        render=kernels.realnet_blend,
        caption=_sized("discoloured structure"),
        physical=False,
        needs="donor",
    ),
]

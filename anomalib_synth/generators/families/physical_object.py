"""Defects of the part itself, where material is missing, broken or displaced: how each is drawn and described."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from anomalib_synth.functional import physical_object as kernels
from anomalib_synth.functional.warping import ELASTIC_FIELDS
from anomalib_synth.generators.families.family import Family, Frame, Params, phrase, size_word
from anomalib_synth.generators.families.shapes import (
    draw_ellipse,
    draw_light,
    light_along,
    word_of_size,
    word_of_tone,
)

if TYPE_CHECKING:
    from anomalib_synth.generators.families.family import Caption, Draw, Render
    from anomalib_synth.generators.seeding import RandomStream

_MISPRINTS = ("shifted", "ghosted", "colour-split", "streaky missing")


def _draw_hole(rng: RandomStream, frame: Frame) -> Params:
    params = draw_ellipse(rng, frame, high=0.75, slim=0.6, grow=1.2)
    return params | light_along(params, draw_light(rng)) | {
        "rough": rng.choice([0.08, rng.uniform(0.2, 0.6)]),
        "depth": rng.uniform(0.2, 0.6),
        "dark": rng.uniform(0.5, 0.85),
        "through": rng.choice([0.0, 1.0], [0.75, 0.25]),
        "noise": rng.noise_seed(),
        "soft": rng.log_uniform(0.6, 2.0),
        "lip": rng.choice([0.0, rng.uniform(0.1, 0.5)], [0.6, 0.4]),
    }  # fmt: skip


def _caption_hole(params: Params) -> str:
    edge = "ragged" if params["rough"] > 0.2 else "clean"
    return phrase(word_of_size(params), edge, "see-through hole" if params["through"] else "dark hole")


def _draw_chip(rng: RandomStream, frame: Frame) -> Params:
    params = draw_ellipse(rng, frame, low=0.15, high=0.85, slim=0.5, grow=1.7)
    return params | {
        "rough": rng.uniform(0.5, 1.0),
        "bite": rng.uniform(0.55, 0.85),
        "tone": rng.sign() * rng.uniform(0.15, 0.4),
        "noise": rng.noise_seed(),
    }


def _caption_chip(params: Params) -> str:
    return phrase(word_of_size(params), "jagged edge chip with a", word_of_tone(params["tone"]), "fracture")


def _draw_misprint(rng: RandomStream, frame: Frame) -> Params:
    side, aspect = frame.draw_size(rng, 0.25), rng.choice([rng.uniform(0.5, 1.0), rng.uniform(1.0, 2.0)])
    half_u = max(2.0, 0.5 * side * math.sqrt(aspect))
    half_v = max(2.0, 0.5 * side / math.sqrt(aspect))
    reach = max(1.0, rng.uniform(0.006, 0.02) * frame.side)
    turn = rng.uniform(0, 2 * math.pi)
    shift_x, shift_y = float(round(reach * math.cos(turn))), float(round(reach * math.sin(turn)))
    if shift_x == 0 and shift_y == 0:
        shift_x = 1.0
    kind = rng.integer(0, 3)
    if kind == kernels.SPLIT and frame.palette is not None and not frame.palette.has_inks:
        kind = kernels.GHOSTED  # shifted colour planes would show colours that the product does not have
    ink = rng.uniform(0.08, 0.18) * (1.0 if kind == kernels.MISSING else rng.sign())
    upright = rng.choice([0.0, 1.0])
    return {
        "half_u": half_u,
        "half_v": half_v,
        "kind": float(kind),
        "ink": ink,
        "shift_x": shift_x,
        "shift_y": shift_y,
        "streak": max(1.5, rng.uniform(0.006, 0.02) * frame.side),
        "cos": 1 - upright,
        "sin": upright,
        "noise": rng.noise_seed(),
        "share": side / frame.side,
        "extent_x": 2 * (half_u + abs(shift_x)) + 6,
        "extent_y": 2 * (half_v + abs(shift_y)) + 6,
    }


def _caption_misprint(params: Params) -> str:
    return phrase(word_of_size(params), _MISPRINTS[int(params["kind"])], "misprint")


def _draw_deformation(rng: RandomStream, frame: Frame) -> Params:
    params = draw_ellipse(rng, frame, low=0.3, slim=0.6, grow=1.0)
    kind = rng.choice(["bulge", "pinch", "swirl", "wave", "elastic"])
    bulge = {"bulge": rng.uniform(0.4, 0.7), "pinch": -rng.uniform(0.4, 0.75)}.get(kind, 0.0)
    return params | light_along(params, draw_light(rng)) | {
        "bulge": bulge,
        "relief": rng.sign() * rng.uniform(0.1, 0.3),
        "twist": rng.sign() * rng.uniform(0.35, 1.0) if kind == "swirl" else 0.0,
        "wave": 0.16 * params["radius_v"] * rng.uniform(0.6, 1.2) if kind == "wave" else 0.0,
        "pitch": params["radius_u"] * rng.uniform(0.5, 0.9),
        "elastic": 0.25 * params["radius_v"] * rng.uniform(0.6, 1.2) if kind == "elastic" else 0.0,
        "field": float(rng.integer(0, ELASTIC_FIELDS - 1)),
    }  # fmt: skip


def _caption_deformation(params: Params) -> str:
    if params["bulge"]:
        kind = "bulging" if params["bulge"] > 0 else "pinched"
    else:
        kind = "swirled" if params["twist"] else "wavy"
    bend = abs(params["bulge"]) + abs(params["twist"])
    return phrase(word_of_size(params), size_word(bend, 0.0, 0.55, ("", "", "strong")), kind, "deformation")


def _row(
    name: str,
    source: str,
    draw: Draw,
    render: Render,
    caption: Caption,
    **options: Any,
) -> Family:
    return Family(name=name, source=source, draw=draw, render=render, caption=caption, physical=True, **options)


FAMILIES = [
    _row("hole", "missing material", _draw_hole, kernels.hole, _caption_hole, needs="background"),
    _row("chip", "edge break", _draw_chip, kernels.chip, _caption_chip, needs="background", place="edge"),
    _row("misprint", "shifted, doubled or missing print", _draw_misprint, kernels.misprint, _caption_misprint),
    _row("deformation", "local warp", _draw_deformation, kernels.deformation, _caption_deformation),
]

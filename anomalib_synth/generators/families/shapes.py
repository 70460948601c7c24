"""Draws that several physical families share: directions, light, outlines, colours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from anomalib_synth.generators.families.family import Frame, Params, size_word

if TYPE_CHECKING:
    from anomalib_synth.generators.seeding import RandomStream


def draw_direction(rng: RandomStream) -> Params:
    """Draw ``cos`` and ``sin`` of a direction."""
    angle = rng.uniform(0, math.pi)
    return {"cos": math.cos(angle), "sin": math.sin(angle)}


def draw_light(rng: RandomStream) -> tuple[float, float]:
    """Draw the unit vector (x, y) towards the light, which comes from above, as lamps do."""
    angle = rng.uniform(-0.95, -0.05) * math.pi
    return math.cos(angle), math.sin(angle)


def light_along(params: Params, light: tuple[float, float]) -> Params:
    """Return the light's components along and across the drawn direction."""
    cos, sin = params["cos"], params["sin"]
    return {"light_u": light[0] * cos + light[1] * sin, "light_v": light[1] * cos - light[0] * sin}


def draw_ellipse(
    rng: RandomStream, frame: Frame, *, low: float = 0.0, high: float = 1.0, slim: float = 0.55, grow: float = 1.0
) -> Params:
    """Draw a rotated ellipse with its window.

    Args:
        rng: The random stream.
        frame: The image.
        low: Start of the part of the size range to draw from, in [0, 1]; see :meth:`.family.Frame.draw_size`.
        high: Its end.
        slim: Least ratio of the axes, in (0, 1].
        grow: Largest extent of the defect relative to the ellipse.
    """
    radius, ratio = 0.5 * frame.draw_size(rng, low, high), rng.uniform(slim, 1.0)
    params = draw_direction(rng) | {"radius_u": radius / math.sqrt(ratio), "radius_v": radius * math.sqrt(ratio)}
    return params | ellipse_window(params, grow) | {"share": 2 * radius / frame.side}


def ellipse_window(params: Params, grow: float) -> Params:
    """Return the extents of a rotated ellipse, enlarged by a factor and four pixels on each side."""
    u, v, cos, sin = params["radius_u"], params["radius_v"], params["cos"], params["sin"]
    return {
        "extent_x": 2 * grow * math.hypot(u * cos, v * sin) + 8,
        "extent_y": 2 * grow * math.hypot(u * sin, v * cos) + 8,
    }


def colour_of(rgb: tuple[float, float, float], rng: RandomStream, frame: Frame, spread: float = 0.06) -> Params:
    """Return a colour, varied in brightness, or the nearest one that the product's palette allows.

    Returns:
        ``red``, ``green`` and ``blue`` in [0, 1], and ``hue``, the share of the hue that was kept.
    """
    gain = 1 + rng.uniform(-spread, spread) * 2
    red, green, blue = (min(1.0, value * gain) for value in rgb)
    kept = 1.0
    if frame.palette is not None:
        (red, green, blue), kept = frame.palette.limit((red, green, blue))
    return {"red": red, "green": green, "blue": blue, "hue": kept}


def word_of_size(params: Params) -> str:
    """Return the word for a defect's share of the shorter side."""
    return size_word(params["share"], 0.08, 0.16, ("small", "", "large"))


def word_of_length(params: Params) -> str:
    """Return the word for a length relative to the shorter side."""
    return size_word(params["share"], 0.15, 0.35, ("short", "", "long"))


def word_of_tone(tone: float) -> str:
    """Return the word for a change of brightness."""
    return "dark" if tone < 0 else "bright"

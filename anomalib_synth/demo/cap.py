"""Renderer of the printed cap: an object on a mat, with a knurled rim, a domed top and a two-colour print."""

from typing import Any

import numpy as np

from anomalib_synth.demo.scene import (
    DIGITS,
    Surface,
    View,
    attach,
    draw_character,
    grain,
    part_coordinates,
    segment_distance,
    soft_step,
)

RADIUS = 96.0
RIM = 0.84
_KNURLS = 80
# The product's name, one string per letter: the fixed part of the print.
_GLYPHS = ("1101100", "0111110", "1111110", "1100101", "0100101", "1110111", "0111011", "1111110")


def layout_cap(view: View) -> dict[str, Any]:
    """Draw what differs from cap to cap.

    Returns:
        dict[str, Any]: ``nicks`` (N, 3), angle and half-width in radians and depth in units of broken places, none on a
        good cap; ``registration``, shift of the emblem in units; ``turn``, rotation in radians; ``code``, the lot code
        on this cap; ``lint`` (N, 6), end, middle and end points of fibres on the mat, in units.
    """
    rng = np.random.default_rng([view.seed, 2])
    angle, radius = rng.uniform(0, 2 * np.pi, 9), rng.uniform(1.1, 1.75, 9) * RADIUS
    start = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    reach = rng.normal(0, 9, (9, 4))
    lint = np.concatenate([start, start + reach[:, :2], start + reach[:, :2] + reach[:, 2:]], axis=1)
    return {
        "nicks": np.zeros((0, 3)),
        "registration": rng.normal(0, 0.9, 2),
        "turn": float(rng.normal(0, 0.12)),
        "code": [DIGITS[digit] for digit in rng.integers(10, size=6)],
        "lint": lint[: int(rng.integers(1, 8))],
    }


def cap_surface(size: int, view: View, layout: dict[str, Any]) -> Surface:
    """Render a domed plastic cap with print on a ribbed mat."""
    rng = np.random.default_rng([view.seed, 3])
    u, v = part_coordinates(size, view, turn=layout["turn"])
    r, theta = np.hypot(u, v), np.arctan2(v, u)
    density, shade_u, mottle_u, gloss_u, dirt, mat = view.style
    edge = np.full_like(r, RADIUS)
    for at, width, depth in layout["nicks"]:
        away = np.angle(np.exp(1j * (theta - at)))
        edge -= depth * np.exp(-((away / width) ** 4)) * (1 + 0.12 * np.sin(9 * away / width))
    inside = soft_step(r - edge, 1.2)
    speckle = grain(rng, size, sigma=0.7)
    top = np.clip((RIM * RADIUS - r) / 5, 0, 1)
    knurl = np.cos(_KNURLS * theta) * soft_step(np.abs(r - 0.92 * RADIUS) - 6, 3)
    height = (6 + 2.5 * top - 3.5 * (r / RADIUS) ** 4 + 0.55 * knurl + 0.035 * speckle) * inside
    x, y = part_coordinates(size, view, turn=-view.angle)
    ribs = 0.8 * np.sin(y * 2 * np.pi / 7.5 + 6.28 * mat) * (1 - inside)
    weave = grain(rng, size, sigma=(0.8, 1.6))
    height += ribs + 0.1 * weave * (1 - inside)
    plastic = np.array([0.80, 0.785, 0.74]) * (0.94 + 0.08 * shade_u)
    mold = 1 + 0.008 * speckle + 0.025 * (dirt - 0.3) * attach(grain(rng, size, sigma=14), u, v)
    floor = np.array([0.115, 0.135, 0.165]) * (0.85 + 0.4 * mat) * (1 + 0.12 * weave)[..., None]
    shadow = 1 - 0.5 * soft_step(np.hypot(x - 5, y - 6) - RADIUS, 14)
    albedo = plastic * (mold * inside)[..., None] + floor * (shadow * (1 - inside))[..., None]
    gloss = (0.10 + 0.16 * gloss_u) * inside
    for x0, y0, x1, y1, x2, y2 in layout["lint"]:
        for ends in (((x0, y0), (x1, y1)), ((x1, y1), (x2, y2))):
            fiber = 0.62 * soft_step(segment_distance(x, y, *ends)[0] - 0.5) * (1 - inside)
            albedo += fiber[..., None] * (np.array([0.55, 0.53, 0.5]) - albedo)
    ink, color = _print(u, v, layout["registration"])
    mottle = attach(grain(rng, size, sigma=(1.6, 2.4)), u, v)
    ink *= np.clip(0.8 + 0.16 * density + (0.02 + 0.05 * mottle_u) * mottle, 0, 1)
    code = 0.62 * _lot_code(u, v, layout["code"])
    color = np.where((code > ink)[..., None], np.array([0.16, 0.15, 0.14]), color)
    ink = np.maximum(ink, code)
    return Surface(u=u, v=v, height=height, albedo=albedo, gloss=gloss, ink=ink, ink_color=color)


def _print(u: np.ndarray, v: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage and colour of the print: blue ring and lettering, red emblem shifted by ``offset``."""
    r, theta = np.hypot(u, v), np.arctan2(v, u)
    blue = soft_step(np.abs(r - 74) - 1.5) + soft_step(np.abs(r - 40) - 0.8)
    for index, glyph in enumerate(_GLYPHS):
        blue = np.maximum(blue, _glyph(u, v, glyph, angle=np.deg2rad(-160 + 20 * index)))
    lower = soft_step(np.abs(r - 65) - 2.5) * soft_step(np.abs(theta - np.pi / 2) - 0.75, 0.03)
    hatch = soft_step(np.cos(theta * 48) + 0.1, 0.5)
    blue = np.clip(np.maximum(blue, lower * hatch), 0, 1)
    p, q = u - offset[0], v - offset[1]
    petal = 15 + 8 * np.cos(5 * np.arctan2(q, p) + np.pi / 2)
    red = soft_step(np.hypot(p, q) - petal) * soft_step(5.5 - np.hypot(p, q))
    color = np.where((red > blue)[..., None], np.array([0.62, 0.12, 0.10]), np.array([0.08, 0.17, 0.42]))
    return np.maximum(blue, red), color


def _lot_code(u: np.ndarray, v: np.ndarray, code: list[str]) -> np.ndarray:
    """Draw the code under the emblem, upright."""
    ink = np.zeros_like(u)
    for index, digit in enumerate(code):
        at = (index - (len(code) - 1) / 2) * 8.0
        ink = np.maximum(ink, draw_character(u - at, v - 52, digit, half=(2.4, 4.4), pen=0.75))
    return ink


def _glyph(u: np.ndarray, v: np.ndarray, glyph: str, *, angle: float) -> np.ndarray:
    """Draw one letter of the product name standing on the arc at ``angle``."""
    cos, sin = np.cos(angle), np.sin(angle)
    return draw_character(-u * sin + v * cos, 57 - u * cos - v * sin, glyph, half=(4, 6), pen=1.1)

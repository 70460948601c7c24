"""Renderer of the printed cap: an object on a mat, with knurled rim, domed top and a two-colour print."""

import numpy as np

from anomalib_synth.data.demo.scene import Surface, View, attach, grain, part_coordinates, segment_distance, soft_step

RADIUS = 96.0
RIM = 0.84
_KNURLS = 80
# The lettering is fixed by the product: 7 strokes on a 2 x 3 grid per glyph, one row per glyph, drawn along an arc.
_STROKES = (
    ((0, 0), (0, 1)), ((0, 1), (0, 2)), ((0, 0), (1, 0)), ((0, 1), (1, 1)), ((0, 2), (1, 2)), ((1, 0), (1, 1)),
    ((1, 1), (1, 2)),
)  # fmt: skip
_GLYPHS = ("1111000", "1101011", "1111001", "1110110", "1100100", "0111101", "1001111", "1111011")


def layout_cap(view: View) -> dict[str, np.ndarray]:
    """Draw the geometry of one cap: ``nicks`` (N, 3), angle, half-width in radians and depth; none on a good one."""
    rng = np.random.default_rng([view.seed, 2])
    return {"nicks": np.zeros((0, 3)), "registration": rng.normal(0, 0.9, 2), "turn": rng.normal(0, 0.12, 1)}


def cap_surface(size: int, view: View, layout: dict[str, np.ndarray]) -> Surface:
    """Render a domed plastic cap with print on a ribbed mat."""
    rng = np.random.default_rng([view.seed, 3])
    u, v = part_coordinates(size, view, turn=float(layout["turn"][0]))
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
    ink, color = _print(u, v, layout["registration"])
    mottle = attach(grain(rng, size, sigma=(1.6, 2.4)), u, v)
    ink *= np.clip(0.8 + 0.16 * density + (0.02 + 0.05 * mottle_u) * mottle, 0, 1)
    return Surface(u=u, v=v, height=height, albedo=albedo, gloss=gloss, ink=ink, ink_color=color)


def _print(u: np.ndarray, v: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage and colour of the print: blue ring and lettering, red emblem shifted by ``offset``."""
    r, theta = np.hypot(u, v), np.arctan2(v, u)
    blue = soft_step(np.abs(r - 74) - 1.5) + soft_step(np.abs(r - 40) - 0.8)
    for index, glyph in enumerate(_GLYPHS):
        blue = np.maximum(blue, _glyph(u, v, glyph, angle=np.deg2rad(-160 + 20 * index)))
    lower = soft_step(np.abs(r - 57) - 5) * soft_step(np.abs(theta - np.pi / 2) - 0.75, 0.03)
    hatch = soft_step(np.cos(theta * 48) + 0.1, 0.5)
    blue = np.clip(np.maximum(blue, lower * hatch), 0, 1)
    p, q = u - offset[0], v - offset[1]
    petal = 15 + 8 * np.cos(5 * np.arctan2(q, p) + np.pi / 2)
    red = soft_step(np.hypot(p, q) - petal) * soft_step(5.5 - np.hypot(p, q))
    color = np.where((red > blue)[..., None], np.array([0.62, 0.12, 0.10]), np.array([0.08, 0.17, 0.42]))
    return np.maximum(blue, red), color


def _glyph(u: np.ndarray, v: np.ndarray, glyph: str, *, angle: float) -> np.ndarray:
    """Draw one seven-stroke letter standing on the arc at ``angle``."""
    cos, sin = np.cos(angle), np.sin(angle)
    radial, along = u * cos + v * sin, -u * sin + v * cos
    near = (np.abs(radial - 57) < 11) & (np.abs(along) < 9)
    ink = np.zeros_like(u)
    a, b = along[near], radial[near]
    best = np.full_like(a, 99.0)
    for on, ((x0, y0), (x1, y1)) in zip(glyph, _STROKES, strict=True):
        if on == "1":
            distance, _ = segment_distance(a, b, (x0 * 8 - 4, 63 - y0 * 6), (x1 * 8 - 4, 63 - y1 * 6))
            best = np.minimum(best, distance)
    ink[near] = soft_step(best - 1.1)
    return ink

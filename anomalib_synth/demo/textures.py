"""Renderers of the two textured part kinds: brushed metal and woven fabric."""

import numpy as np
from scipy.ndimage import map_coordinates

from anomalib_synth.demo.scene import (
    DIGITS,
    UNITS,
    Surface,
    View,
    attach,
    draw_character,
    grain,
    part_coordinates,
    soft_step,
)

PITCH = 8.5
_MARGIN = 6


def layout_metal(view: View) -> dict[str, np.ndarray]:
    """Draw what differs from sheet to sheet.

    Returns:
        dict[str, np.ndarray]: ``grooves`` (N, 5), u, v, half-length, depth and width in units; ``digits`` (6,) of the
        part number and ``cells`` (12, 12) of the matrix code, both etched into the sheet at ``place`` (2,).
    """
    rng = np.random.default_rng([view.seed, 2])
    count = int(rng.integers(16, 40))
    middle = rng.uniform(-UNITS / 2, UNITS / 2, (count, 2))
    depth = rng.choice([-0.6, 1.0], count) * rng.uniform(0.15, 0.9, count) * (0.55 + 0.6 * view.style[0])
    grooves = np.column_stack([middle, rng.uniform(12, 120, count), depth, rng.uniform(0.6, 1.2, count)])
    cells = rng.random((12, 12)) < 0.5
    cells[:, 0] = cells[-1] = True  # the finder edge of a matrix code
    place = rng.uniform((-60, 68), (70, 100)) * (1, rng.choice([-1, 1]))
    return {"grooves": grooves, "place": place, "digits": rng.integers(10, size=6), "cells": cells}


def metal_surface(size: int, view: View, layout: dict[str, np.ndarray]) -> Surface:
    """Render a brushed sheet: streaks and grooves along u, a specular band across them, and sometimes an oil sheen."""
    rng = np.random.default_rng([view.seed, 3])
    u, v = part_coordinates(size, view)
    coarse, band_at, band_width, sheen, tone, length = view.style
    fine = grain(rng, size, sigma=(0.5, 14 + 30 * length))
    wide = grain(rng, size, sigma=(1.0 + 1.2 * coarse, 60))
    height = attach((0.16 + 0.1 * coarse) * fine + (0.1 + 0.25 * coarse) * wide, u, v)
    for at_u, at_v, half, depth, width in layout["grooves"]:
        near = np.abs(v - at_v) < 4 * width
        a, b = (u[near] - at_u) / half, (v[near] - at_v) / width
        height[near] -= depth * np.exp(-(a**8) - b**2)
    streak = attach(fine, u, v)
    center, reach = UNITS * (1.6 * band_at - 0.8), 18 + 55 * band_width
    band = np.exp(-(((u - center + 0.15 * v) / reach) ** 2))
    mottle = attach(grain(rng, size, sigma=22), u, v)
    film = soft_step(0.9 - mottle, 0.5) * max(0.0, sheen - 0.35)
    level = 0.4 + 0.1 * tone + 0.012 * streak + 0.012 * mottle
    albedo = level[..., None] * np.array([1.0, 1.0, 1.01]) * (1 - film[..., None] * np.array([0.12, 0.17, 0.3]))
    etched = rng.uniform(0.4, 0.75) * _mark(u - layout["place"][0], v - layout["place"][1], layout)
    albedo *= 1 - etched[..., None]
    dust = rng.uniform(-UNITS / 2, UNITS / 2, (int(rng.integers(6, 30)), 2))
    for at_u, at_v in dust:  # specks within tolerance
        radius, change = rng.uniform(0.5, 1.2), rng.choice([-0.45, 0.5]) * rng.uniform(0.5, 1)
        near = (np.abs(u - at_u) < 3) & (np.abs(v - at_v) < 3)
        albedo[near] *= 1 + change * soft_step(np.hypot(u[near] - at_u, v[near] - at_v) - radius)[:, None]
    gloss = 0.05 + 0.3 * band * (1 + 0.12 * streak) + 0.04 * film
    return Surface(u=u, v=v, height=height, albedo=albedo, gloss=gloss, **_no_ink(size))


def _mark(u: np.ndarray, v: np.ndarray, layout: dict[str, np.ndarray]) -> np.ndarray:
    """Return the coverage of the etched number and, left of it, the matrix code."""
    ink = np.zeros_like(u)
    for index, digit in enumerate(layout["digits"]):
        ink = np.maximum(ink, draw_character(u - 9 * index, v, DIGITS[digit], half=(2.7, 4.8), pen=0.7))
    cells = np.pad(layout["cells"], 1).astype(float)
    at = [(v + 14) / 2.3 + 0.5, (u + 38) / 2.3 + 0.5]
    return np.maximum(ink, map_coordinates(cells, at, order=1, mode="constant"))


def layout_fabric(view: View) -> dict[str, np.ndarray]:
    """Draw the threads of one piece of cloth.

    Returns:
        dict[str, np.ndarray]: ``over`` (R, C) bool, whether the warp lies on top of a crossing; ``warp_width`` and
        ``weft_width`` (R, C), the thread's share of the pitch; ``warp_shade`` (C,) and ``weft_shade`` (R,).
    """
    rng = np.random.default_rng([view.seed, 2])
    count = int(UNITS / PITCH) + 2 * _MARGIN
    row, column = np.mgrid[:count, :count]
    spread = 0.02 + 0.025 * view.style[0]
    warp, weft = (1 + spread * rng.standard_normal(count) for _ in range(2))
    for _ in range(int(rng.integers(0, 3))):  # a few threads of another dye lot are within tolerance
        weft[rng.integers(count)] *= rng.uniform(0.9, 1.1)
    tight = 0.8 + 0.12 * view.style[1]
    return {
        "over": (row + column) % 3 == 0,
        "warp_width": np.full((count, count), tight) * (1 + 0.05 * rng.standard_normal(count)),
        "weft_width": np.full((count, count), tight) * (1 + 0.05 * rng.standard_normal(count))[:, None],
        "warp_shade": warp,
        "weft_shade": weft,
    }


def fabric_surface(size: int, view: View, layout: dict[str, np.ndarray]) -> Surface:
    """Render a twill of two yarn colours, seen slightly slanted and bowed."""
    rng = np.random.default_rng([view.seed, 3])
    u, v = part_coordinates(size, view)
    count = layout["over"].shape[0]
    bow = 1.0 + 1.8 * view.style[2]
    column = (u + 0.35 * bow * grain(rng, size, sigma=26)) / PITCH + count / 2
    row = (v + 0.35 * bow * grain(rng, size, sigma=26)) / PITCH + count / 2
    i, j = np.clip(column.astype(int), 0, count - 1), np.clip(row.astype(int), 0, count - 1)
    a, b = 2 * (column - i - 0.5), 2 * (row - j - 0.5)
    lift = np.where(layout["over"][j, i], 1.0, -1.0)
    wave = np.cos(np.pi * a / 2), np.cos(np.pi * b / 2)
    warp = _thread(a, layout["warp_width"][j, i]) * (1.1 + 0.6 * lift * wave[1])
    weft = _thread(b, layout["weft_width"][j, i]) * (1.1 - 0.6 * lift * wave[0])
    hairs = grain(rng, size, sigma=0.55), attach(grain(rng, size, sigma=(0.5, 3.0)), u, v)
    top = warp >= weft
    cover = np.clip(np.maximum(warp, weft) / 0.35, 0, 1)
    shade = np.where(top, layout["warp_shade"][i], layout["weft_shade"][j]) * (1 + 0.05 * hairs[1] + 0.03 * hairs[0])
    tone = 0.9 + 0.2 * view.style[3]
    yarn = np.where(
        top[..., None], np.array([0.30, 0.36, 0.46]), np.array([0.62, 0.60, 0.55]) * (0.9 + 0.2 * view.style[4])
    )
    albedo = yarn * (shade * tone * cover)[..., None] + 0.06 * (1 - cover)[..., None]
    height = 1.5 * np.maximum(warp, weft) + 0.12 * hairs[0]
    return Surface(u=u, v=v, height=height, albedo=albedo, gloss=np.full((size, size), 0.02), **_no_ink(size))


def _thread(offset: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return the rounded cross-section of a thread whose width is a share of the pitch; 0 beside the thread."""
    return np.sqrt(np.clip(1 - (offset / np.maximum(width, 1e-3)) ** 2, 0, None)) * np.minimum(width / 0.5, 1)


def _no_ink(size: int) -> dict[str, np.ndarray]:
    return {"ink": np.zeros((size, size)), "ink_color": np.zeros((size, size, 3))}

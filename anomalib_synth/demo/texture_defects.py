"""Held-out defects of brushed metal and woven fabric; each changes a good part in place, by draws of ``rng``."""

import numpy as np
from scipy.ndimage import gaussian_filter

from anomalib_synth.demo.cap import RADIUS
from anomalib_synth.demo.parts import Part
from anomalib_synth.demo.scene import UNITS, Surface, irregular_patch, random_spot, segment_distance


def chatter_mark(part: Part, rng: np.random.Generator) -> None:
    """Metal: the tool vibrated and left a short train of ripples across the brush."""
    at, turn = random_spot(rng), rng.uniform(-0.5, 0.5)
    reach, period, depth = rng.uniform(10, 18), rng.uniform(4.5, 7), rng.uniform(0.17, 0.28)

    def edit(surface: Surface) -> None:
        a, b = surface.u - at[0], surface.v - at[1]
        along = np.cos(turn) * a + np.sin(turn) * b
        window = np.exp(-((along / reach) ** 4) - ((-np.sin(turn) * a + np.cos(turn) * b) / (0.55 * reach)) ** 4)
        surface.height += depth * window * np.sin(2 * np.pi * along / period)

    part.edits.append(edit)


def cross_scratch(part: Part, rng: np.random.Generator) -> None:
    """Metal: a scratch at an angle to the brush, with a burr on both sides."""
    at, turn, half = random_spot(rng, 80), rng.uniform(0.5, 2.6), rng.uniform(16, 36)
    depth, width, bend = rng.uniform(0.16, 0.34), rng.uniform(0.9, 1.4), rng.uniform(-5, 5)
    step = half * np.array([np.cos(turn), np.sin(turn)])
    middle = at + bend * np.array([-np.sin(turn), np.cos(turn)])

    def edit(surface: Surface) -> None:
        for start, end, shift in ((at - step, middle, 0.0), (middle, at + step, 0.5)):
            distance, along = segment_distance(surface.u, surface.v, tuple(start), tuple(end))
            press = np.sin(np.pi * np.clip((along + 2 * shift) / 2, 0.06, 0.94))
            ridge = 0.45 * np.exp(-(((distance - 2 * width) / width) ** 2))
            surface.height += depth * press * (ridge - np.exp(-((distance / width) ** 2)))

    part.edits.append(edit)


def rolled_in_debris(part: Part, rng: np.random.Generator) -> None:
    """Metal: a particle was rolled in and drawn out along the brush."""
    at, seed = random_spot(rng), int(rng.integers(2**31))
    size, dark = (rng.uniform(5, 12), rng.uniform(2.4, 4.5)), rng.uniform(0.14, 0.32)

    def edit(surface: Surface) -> None:
        patch = irregular_patch(surface, at, size, seed, rough=0.35)
        surface.albedo *= (1 - dark * patch)[..., None]
        surface.gloss *= 1 - 0.8 * patch
        surface.height += 0.3 * patch

    part.edits.append(edit)


def polish_loss(part: Part, rng: np.random.Generator) -> None:
    """Metal: a patch was rubbed dull; its streaks are gone and it is matt."""
    at, seed = random_spot(rng, 85), int(rng.integers(2**31))
    size, pale = (rng.uniform(11, 20), rng.uniform(8, 14)), rng.uniform(0.03, 0.1) * rng.choice([-1, 1])

    def edit(surface: Surface) -> None:
        patch = gaussian_filter(irregular_patch(surface, at, size, seed, rough=0.2), 1.2 * len(surface.height) / UNITS)
        flat = gaussian_filter(surface.height, 4 * len(surface.height) / UNITS)
        surface.height += patch * (flat - surface.height)
        surface.gloss *= 1 - 0.9 * patch
        surface.albedo *= (1 + pale * patch)[..., None]

    part.edits.append(edit)


def handling_ding(part: Part, rng: np.random.Generator) -> None:
    """Metal or cap: a small dent with a raised lip."""
    reach = 95 if part.kind == "brushed_metal" else 0.62 * RADIUS / np.sqrt(2) * 1.2
    deepest = 0.85 if part.kind == "brushed_metal" else 2.4
    at, radius, depth = random_spot(rng, reach), rng.uniform(5, 8.5), deepest * rng.uniform(0.55, 1)

    def edit(surface: Surface) -> None:
        r = np.hypot(surface.u - at[0], (surface.v - at[1]) * 1.15) / radius
        surface.height += depth * (0.35 * np.exp(-(((r - 1.25) / 0.35) ** 2)) - np.exp(-((r / 0.75) ** 2)))

    part.edits.append(edit)


def _cell(part: Part, rng: np.random.Generator) -> tuple[int, int]:
    count = part.layout["over"].shape[0]
    row, column = rng.integers(10, count - 10, 2)
    return int(row), int(column)


def missing_weft(part: Part, rng: np.random.Generator) -> None:
    """Fabric: a weft thread broke and is missing over some crossings."""
    row, column = _cell(part, rng)
    part.layout["weft_width"][row, column : column + int(rng.integers(3, 8))] = 0.12


def mispick(part: Part, rng: np.random.Generator) -> None:
    """Fabric: two neighbouring wefts weave alike over a stretch (a double pick)."""
    row, column = _cell(part, rng)
    stretch = slice(column - 3, column + int(rng.integers(5, 11)))
    part.layout["over"][row, stretch] = part.layout["over"][row + 1, stretch]


def floating_thread(part: Part, rng: np.random.Generator) -> None:
    """Fabric: threads pass over several crossings without being bound."""
    row, column = _cell(part, rng)
    height, width = (1, int(rng.integers(6, 10))) if rng.random() < 0.3 else (int(rng.integers(5, 9)), 1)
    part.layout["over"][row : row + height, column : column + width] = height > 1


def knot(part: Part, rng: np.random.Generator) -> None:
    """Fabric: a yarn was tied, and a knot with two tails stands out of the cloth."""
    at, radius, turn = random_spot(rng), rng.uniform(4.5, 6.5), rng.uniform(0, np.pi)
    tail = radius * rng.uniform(1.6, 2.6) * np.array([np.cos(turn), np.sin(turn)])
    shade = rng.uniform(0.8, 1.1)

    def edit(surface: Surface) -> None:
        r = np.hypot(surface.u - at[0], surface.v - at[1])
        dome = np.sqrt(np.clip(1 - (r / radius) ** 2, 0, 1))
        distance, _ = segment_distance(surface.u, surface.v, tuple(at - tail), tuple(at + tail))
        bulge = np.maximum(dome * radius * 0.8, np.sqrt(np.clip(1 - (distance / 1.8) ** 2, 0, 1)) * 2.2)
        cover = np.clip(bulge, 0, 1)
        twist = 0.25 * np.sin(1.4 * (surface.u - at[0]) + 0.9 * (surface.v - at[1])) * np.clip(dome * 2, 0, 1)
        surface.height += cover * (bulge + 1.8 + twist - surface.height)
        surface.albedo += cover[..., None] * (np.array([0.6, 0.58, 0.53]) * shade - surface.albedo)

    part.edits.append(edit)


def slub(part: Part, rng: np.random.Generator) -> None:
    """Fabric: a thick, loosely spun place in a weft."""
    at, half, width = random_spot(rng), rng.uniform(9, 18), rng.uniform(3.8, 5.2)

    def edit(surface: Surface) -> None:
        a, b = (surface.u - at[0]) / half, surface.v - at[1]
        thick = width * np.sqrt(np.clip(1 - a**2, 0, 1))
        dome = np.sqrt(np.clip(1 - (b / np.maximum(thick, 0.3)) ** 2, 0, 1)) * (np.abs(a) < 1)
        surface.height += dome * (2.6 + 1.2 * dome - surface.height) * 0.85
        surface.albedo += (0.85 * np.clip(dome * 2, 0, 1))[..., None] * (np.array([0.6, 0.58, 0.53]) - surface.albedo)

    part.edits.append(edit)


def oil_drop(part: Part, rng: np.random.Generator) -> None:
    """Fabric: a drop of machine oil soaked in; it darkens the yarn and dulls the texture."""
    at, seed, radius, dark = random_spot(rng), int(rng.integers(2**31)), rng.uniform(7, 13), rng.uniform(0.34, 0.52)

    def edit(surface: Surface) -> None:
        patch = irregular_patch(surface, at, (radius, radius * 0.85), seed, rough=0.22)
        patch = gaussian_filter(patch, 1.6 * len(patch) / UNITS)
        surface.albedo *= 1 - (dark * patch)[..., None] * np.array([0.85, 1.0, 1.2])
        surface.gloss += 0.06 * patch

    part.edits.append(edit)

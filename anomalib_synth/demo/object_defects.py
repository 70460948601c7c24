"""Held-out defects of the printed cap and the circuit board; each changes a good part in place, by draws of ``rng``."""

import numpy as np
from scipy.ndimage import gaussian_filter

from anomalib_synth.demo import board
from anomalib_synth.demo.parts import Part
from anomalib_synth.demo.scene import UNITS, Surface, irregular_patch, random_spot, segment_distance


def _on_cap(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(low, high)
    return radius * np.array([np.cos(angle), np.sin(angle)])


def incomplete_print(part: Part, rng: np.random.Generator) -> None:
    """Cap: the print did not transfer in a patch of the lettering, the ring or the emblem."""
    angle = np.deg2rad(rng.uniform(-160, -20))
    ring = (57 * np.array([np.cos(angle), np.sin(angle)]), _on_cap(rng, 73, 75), _on_cap(rng, 6, 16))
    at, seed = ring[int(rng.integers(3))], int(rng.integers(2**31))
    size, loss = (rng.uniform(9, 15), rng.uniform(9, 15)), rng.uniform(0.85, 1.0)

    def edit(surface: Surface) -> None:
        surface.ink *= 1 - loss * irregular_patch(surface, at, size, seed, rough=0.4)

    part.edits.append(edit)


def edge_nick(part: Part, rng: np.random.Generator) -> None:
    """Cap: a piece of the rim is broken out."""
    nick = [rng.uniform(-np.pi, np.pi), rng.uniform(0.06, 0.12), rng.uniform(4.0, 8.5)]
    part.layout["nicks"] = np.array([nick])


def ink_splash(part: Part, rng: np.random.Generator) -> None:
    """Cap: drops of printing ink beside the print."""
    at, seeds = _on_cap(rng, 20, 70), rng.integers(2**31, size=5)
    radii = rng.uniform(1.2, 2.4, 5) * np.array([rng.uniform(1.4, 2.0), 1, 1, 0.8, 0.7])
    offsets = np.vstack([[0, 0], rng.normal(0, 7, (4, 2))])
    color = np.array([[0.08, 0.17, 0.42], [0.62, 0.12, 0.10]][int(rng.integers(2))])

    def edit(surface: Surface) -> None:
        for offset, radius, seed in zip(offsets, radii, seeds, strict=True):
            drop = 0.85 * irregular_patch(surface, at + offset, (radius, radius), int(seed), rough=0.15)
            surface.ink_color += (drop > surface.ink)[..., None] * (color - surface.ink_color)
            surface.ink = np.maximum(surface.ink, drop)

    part.edits.append(edit)


def scuff(part: Part, rng: np.random.Generator) -> None:
    """Cap: a bundle of fine parallel scratches, from rubbing against something."""
    at, turn, count = _on_cap(rng, 10, 62), rng.uniform(0, np.pi), int(rng.integers(5, 10))
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    lines = [
        (at + across * k * 1.9 + along * rng.normal(0, 4), rng.uniform(5, 13), rng.uniform(0.35, 0.75))
        for k in range(-(count // 2), count - count // 2)
    ]

    def edit(surface: Surface) -> None:
        for middle, half, depth in lines:
            ends = tuple(middle - half * along), tuple(middle + half * along)
            mark = np.exp(-((segment_distance(surface.u, surface.v, *ends)[0] / 0.8) ** 2))
            surface.height -= depth * mark
            surface.ink *= 1 - 0.6 * mark
            surface.albedo *= (1 - 0.16 * depth * mark)[..., None]

    part.edits.append(edit)


def missing_component(part: Part, rng: np.random.Generator) -> None:
    """Board: a two-terminal component was not placed; its soldered pads are bare."""
    _pick(part, rng, pins=False).present = False


def rotated_component(part: Part, rng: np.random.Generator) -> None:
    """Board: a two-terminal component sits askew on its pads."""
    chosen = _pick(part, rng, pins=False)
    chosen.skew = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(22, 48))


def solder_bridge(part: Part, rng: np.random.Generator) -> None:
    """Board: solder joins two neighbouring pins of a chip."""
    chip = _pick(part, rng, pins=True)
    pads = board.terminals(chip, nominal=True)
    first = int(rng.integers(chip.pins - 1)) + chip.pins * int(rng.integers(2))
    (u0, v0, _, _), (u1, v1, _, _) = pads[first], pads[first + 1]
    part.layout["bridges"].append(((u0 + u1) / 2, (v0 + v1) / 2, rng.uniform(6.0, 9.5), chip.turn))


def open_trace(part: Part, rng: np.random.Generator) -> None:
    """Board: a trace is etched through."""
    start, end = part.layout["traces"][int(rng.integers(len(part.layout["traces"])))]
    share = rng.uniform(0.3, 0.7)
    at = [a + share * (b - a) for a, b in zip(start, end, strict=True)]
    part.layout["gaps"].append((*at, rng.uniform(5.0, 7.5)))


def lifted_pin(part: Part, rng: np.random.Generator) -> None:
    """Board: two pins of a chip with consecutive indices, usually neighbours, are bent off their pads."""
    chip = _pick(part, rng, pins=True)
    first = int(rng.integers(2 * chip.pins - 1))
    chip.lifted = (first, first + 1)


def flux_residue(part: Part, rng: np.random.Generator) -> None:
    """Board: burnt flux left a brownish film with a dark border."""
    at, seed = random_spot(rng, 90), int(rng.integers(2**31))
    size, dark = (rng.uniform(7, 13), rng.uniform(7, 11)), rng.uniform(0.4, 0.7)

    def edit(surface: Surface) -> None:
        film = irregular_patch(surface, at, size, seed, rough=0.3)
        film = np.clip(film - 0.55 * gaussian_filter(film, 2.5 * len(film) / UNITS) * film, 0, 1) * 1.4
        surface.albedo += (dark * film)[..., None] * (np.array([0.34, 0.27, 0.14]) - surface.albedo)

    part.edits.append(edit)


def _pick(part: Part, rng: np.random.Generator, *, pins: bool) -> board.Component:
    fitting = [item for item in part.layout["parts"] if item.present and bool(item.pins) == pins]
    return fitting[int(rng.integers(len(fitting)))]

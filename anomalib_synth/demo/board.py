"""Renderer of the circuit board: one fixed design, placed and soldered with tolerances."""

from dataclasses import dataclass, replace

import numpy as np

from anomalib_synth.demo.scene import (
    UNITS,
    Surface,
    View,
    attach,
    box_distance,
    grain,
    part_coordinates,
    segment_distance,
    soft_step,
)

# centre u, centre v, turn in degrees, populated; for chips, pins per side
_PASSIVES = (
    (-92, -92, 0, True), (-62, -92, 0, True), (-32, -92, 0, True), (-2, -92, 0, False), (92, -34, 90, True),
    (92, -4, 90, True), (92, 26, 90, True), (92, 56, 90, False), (-96, 4, 90, True), (-96, 34, 90, True),
    (-96, 64, 90, False), (-40, 92, 0, True), (-10, 92, 0, True), (20, 92, 0, True), (14, -52, 0, True),
    (14, -30, 0, True), (-62, 60, 0, True), (-34, 60, 0, False), (70, 96, 0, True), (-96, -50, 90, True),
)  # fmt: skip
_CHIPS = ((-48, -34, 0, 7), (36, 30, 90, 8), (62, -82, 0, 5))
_PIN_PITCH = 8.0
_HALF_CHIP = 15.0
_ZOOM = 1.15


@dataclass(kw_only=True)
class Component:
    """One placed component.

    Args:
        u (float): Centre along u, in units.
        v (float): Centre along v, in units.
        turn (float): Rotation in radians.
        pins (int): 0 for a two-terminal component, else the number of pins on each of two sides.
        present (bool): Whether the component was placed.
        fitted (bool): Whether the design has this component, so that its pads carry solder.
        tone (float): Brightness of the body relative to its kind.
        skew (float): Rotation of the body against its pads, in radians; 0 on a good board.
        lifted (tuple[int, ...]): Indices of bent pins, as in :func:`terminals`; none on a good board.
    """

    u: float
    v: float
    turn: float
    pins: int
    present: bool
    fitted: bool
    tone: float
    skew: float = 0.0
    lifted: tuple[int, ...] = ()


def layout_board(view: View) -> dict[str, list]:
    """Place the components within tolerance and list the traces; a good board has no ``gaps`` and no ``bridges``."""
    rng = np.random.default_rng([view.seed, 2])
    spread = 0.4 + 0.6 * view.style[0]
    parts = []
    for spec in (*_PASSIVES, *_CHIPS):
        pins = 0 if isinstance(spec[3], bool) else spec[3]
        du, dv = rng.normal(0, 0.5 * spread, 2)
        turn = np.deg2rad(spec[2] + rng.normal(0, 1.6 * spread))
        tone = rng.uniform(0.88, 1.12)
        on = bool(spec[3])
        where = {"u": spec[0] + du, "v": spec[1] + dv, "turn": turn}
        parts.append(Component(**where, pins=pins, present=on, fitted=on, tone=tone))
    return {"parts": parts, "traces": _traces(), "gaps": [], "bridges": []}


def _traces() -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return the straight pieces of the wiring, which is the same on every board."""
    rng = np.random.default_rng(20240)
    pieces = []
    for u, v, _, _ in _PASSIVES:
        u1, v1 = min(_CHIPS, key=lambda chip: np.hypot(chip[0] - u, chip[1] - v))[:2]
        u1, v1 = u1 + rng.choice([-16, -8, 8, 16]), v1 + rng.choice([-8, 0, 8])
        bend = min(abs(u1 - u), abs(v1 - v))
        corner = (u + np.sign(u1 - u) * bend, v + np.sign(v1 - v) * bend)
        pieces += [((u, v), corner), (corner, (u1, v1))]
    for row in range(5):
        pieces.append(((-122.0, 108.0 + 4.5 * row - 10), (-20.0 + 26 * row, 108.0 + 4.5 * row - 10)))
    return [piece for piece in pieces if piece[0] != piece[1]]


def board_surface(size: int, view: View, layout: dict[str, list]) -> Surface:
    """Render solder mask, traces, holes, pads, solder and components with their markings."""
    rng = np.random.default_rng([view.seed, 3])
    view = replace(view, scale=view.scale * _ZOOM)
    u, v = part_coordinates(size, view)
    _, mask_tone, shine, mottle, dust, _ = view.style
    base = np.array([0.045, 0.22, 0.11]) * (0.85 + 0.35 * mask_tone)
    cloud, fiber = grain(rng, size, sigma=11), attach(grain(rng, size, sigma=(0.6, 0.6)), u, v)
    albedo = base * (1 + 0.06 * mottle * cloud + 0.04 * fiber)[..., None]
    surface = Surface(
        u=u, v=v, height=0.05 * fiber, albedo=albedo, gloss=np.full((size, size), 0.05 + 0.06 * shine),
        ink=np.zeros((size, size)), ink_color=np.full((size, size, 3), 0.85),
    )  # fmt: skip
    canvas = _Canvas(surface, view)
    for start, end in layout["traces"]:
        canvas.trace(start, end, layout["gaps"])
    for u0, v0 in ((-118, -118), (118, -118), (-118, 118), (118, 118), (60, 70), (-20, 30), (104, 84), (-70, 84)):
        canvas.disc(u0, v0, 4.0, np.array([0.66, 0.6, 0.36]), 0.5)
        canvas.disc(u0, v0, 1.8, np.array([0.03, 0.03, 0.03]), 0.0)
    for part in layout["parts"]:
        canvas.footprint(part, shine, rng)
        if part.present:
            canvas.body(part)
    for u0, v0, length, turn in layout["bridges"]:
        canvas.box(u0, v0, turn, (length, 3.1), np.array([0.64, 0.64, 0.66]), 0.5, 3.0, corner=3.0)
    for _ in range(int(3 + 9 * dust)):  # dust is not a defect
        u, v = rng.uniform(-120, 120, 2)
        canvas.disc(u, v, rng.uniform(0.3, 0.6), np.array([0.35, 0.38, 0.32]), 0.0)
    return surface


class _Canvas:
    """Draws each item on the part of the surface around it, so that the cost does not grow with the image."""

    def __init__(self, surface: Surface, view: View) -> None:
        self.surface = surface
        self.view = view
        self.size = surface.height.shape[0]

    def window(self, u: float, v: float, reach: float) -> tuple[slice, slice]:
        """Return the rows and columns of the pixels within ``reach`` units of a point of the part."""
        cos, sin = np.cos(self.view.angle) * self.view.scale, np.sin(self.view.angle) * self.view.scale
        x, y = cos * u - sin * v + self.view.shift[0], sin * u + cos * v + self.view.shift[1]
        low = [int(np.floor((c - reach * 1.1 - 2) / UNITS * self.size + self.size / 2)) for c in (y, x)]
        high = [int(np.ceil((c + reach * 1.1 + 2) / UNITS * self.size + self.size / 2)) for c in (y, x)]
        rows, columns = (slice(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True))
        return rows, columns

    def paint(self, at: tuple, cover: np.ndarray, color: np.ndarray, gloss: float, height: np.ndarray | float) -> None:
        """Lay a material over the surface."""
        s = self.surface
        s.albedo[at] += cover[..., None] * (color - s.albedo[at])
        s.gloss[at] += cover * (gloss - s.gloss[at])
        s.height[at] += cover * height

    def disc(self, u: float, v: float, radius: float, color: np.ndarray, gloss: float) -> None:
        """Paint a flat disc."""
        at = self.window(u, v, radius)
        self.paint(at, soft_step(np.hypot(self.surface.u[at] - u, self.surface.v[at] - v) - radius), color, gloss, 0.0)

    def box(
        self, u: float, v: float, turn: float, half: tuple[float, float], color: np.ndarray, gloss: float,
        height: float, *, corner: float = 0.6,
    ) -> None:  # fmt: skip
        """Paint a box with rounded shoulders."""
        at = self.window(u, v, max(half) * 1.45)
        a, b = self.surface.u[at] - u, self.surface.v[at] - v
        cos, sin = np.cos(turn), np.sin(turn)
        distance = box_distance(cos * a + sin * b, -sin * a + cos * b, half, corner=corner)
        self.paint(at, soft_step(distance), color, gloss, height * np.clip(-distance / 1.5, 0, 1))

    def trace(self, start: tuple, end: tuple, gaps: list) -> None:
        """Paint a copper trace under the solder mask, broken at the gaps."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        at = self.window(*middle, np.hypot(end[0] - start[0], end[1] - start[1]) / 2 + 3)
        a, b = self.surface.u[at], self.surface.v[at]
        cover = soft_step(segment_distance(a, b, start, end)[0] - 1.5)
        for u, v, radius in gaps:
            wobble = radius * (1 + 0.18 * np.sin(5 * np.arctan2(b - v, a - u)))
            hole = soft_step(np.hypot(a - u, b - v) - wobble)
            cover *= 1 - hole
            scar = hole * soft_step(segment_distance(a, b, start, end)[0] - 2.2)
            self.paint(at, scar, np.array([0.26, 0.23, 0.13]), 0.03, -0.3)
        self.paint(at, cover, self.surface.albedo[at] * 0.4 + np.array([0.08, 0.24, 0.11]), 0.12, 0.35)

    def footprint(self, part: Component, shine: float, rng: np.random.Generator) -> None:
        """Paint the pads, with solder if the component is in the design."""
        tin = np.array([0.58, 0.58, 0.6]) * (0.97 + 0.06 * rng.random())
        for u, v, half, _ in terminals(part, nominal=True):
            if not part.fitted:
                self.box(u, v, part.turn, half, np.array([0.42, 0.34, 0.16]), 0.2, 0.1)
                continue
            self.box(u, v, part.turn, half, tin * rng.uniform(0.97, 1.03), 0.25 + 0.12 * shine, rng.uniform(0.35, 0.5))

    def body(self, part: Component) -> None:
        """Paint the component on its pads."""
        if part.pins == 0:
            turn = part.turn + part.skew
            self.box(part.u, part.v, turn, (8.2, 4.2), np.array([0.6, 0.6, 0.6]), 0.3, 2.0)
            self.box(part.u, part.v, turn, (5.0, 4.3), np.array([0.30, 0.2, 0.13]) * part.tone, 0.1, 0.5)
            return
        for index, (u, v, half, side) in enumerate(terminals(part, nominal=False)):
            out = 5.0 if index in part.lifted else 0.0
            du, dv = -np.sin(part.turn) * side * out, np.cos(part.turn) * side * out
            bright = 1.35 if index in part.lifted else 1.0
            self.box(
                u + du, v + dv, part.turn + 0.14 * out, (half[0] * 0.62, half[1]), np.full(3, 0.5) * bright, 0.45, 1.0
            )
        half = (part.pins * _PIN_PITCH / 2 + 1, _HALF_CHIP)
        self.box(part.u, part.v, part.turn, half, np.array([0.06, 0.06, 0.065]) * part.tone, 0.07, 4.0, corner=1.5)
        cos, sin = np.cos(part.turn), np.sin(part.turn)
        for line, length in ((-4.0, 0.62), (2.5, 0.45)):
            u, v = part.u - sin * line, part.v + cos * line
            self.box(u, v, part.turn, (half[0] * length, 0.8), np.full(3, 0.26) * part.tone, 0.05, 0.0)
        key = (6 - half[0], 10.0)
        self.disc(
            part.u + cos * key[0] - sin * key[1], part.v + sin * key[0] + cos * key[1], 2.0, np.full(3, 0.2), 0.05
        )


def terminals(part: Component, *, nominal: bool) -> list[tuple[float, float, tuple[float, float], int]]:
    """Return centre, half-size and side of every pad (``nominal``) or pin of a component."""
    if part.pins == 0:
        local = [(-7.5, 0.0, (3.6, 4.8), -1), (7.5, 0.0, (3.6, 4.8), 1)]
    else:
        at = [(k - (part.pins - 1) / 2) * _PIN_PITCH for k in range(part.pins)]
        reach = _HALF_CHIP + (4.2 if nominal else 3.0)
        local = [(a, side * reach, (2.5, 3.6 if nominal else 3.2), side) for side in (-1, 1) for a in at]
    cos, sin = np.cos(part.turn), np.sin(part.turn)
    return [(part.u + cos * a - sin * b, part.v + sin * a + cos * b, half, side) for a, b, half, side in local]

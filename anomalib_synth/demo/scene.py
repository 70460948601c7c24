"""Camera, light and drawing primitives of the demo renderer, shared by all part kinds.

Lengths are in *units*, 1/256 of the image side, so that a scene looks the same at every image size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.stats import qmc

UNITS = 256.0
STYLE_FACTORS = 6
_VIEW_FACTORS = 10

# Seven strokes between the points of a 2 x 3 grid: top, upper left and right, middle, lower left and right, bottom.
_STROKES = (
    ((0, 0), (1, 0)), ((0, 0), (0, 1)), ((1, 0), (1, 1)), ((0, 1), (1, 1)), ((0, 1), (0, 2)), ((1, 1), (1, 2)),
    ((0, 2), (1, 2)),
)  # fmt: skip
DIGITS = ("1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111", "1010010", "1111111", "1111011")


@dataclass(frozen=True, kw_only=True)
class View:
    """How one part lies in front of the camera; drawn from the same distribution for good and for defective parts.

    Args:
        gain (float): Exposure factor.
        azimuth (float): Direction the light comes from, in radians.
        gradient (float): Relative fall-off of the light over half the image side.
        vignette (float): Relative darkening at the corners.
        tint (float): White-balance error; positive is warm.
        defocus (float): Blur of the lens, in units.
        angle (float): Rotation of the part, in radians.
        shift (tuple[float, float]): Displacement of the part, in units.
        scale (float): Magnification of the part.
        style (tuple[float, ...]): Six values in [0, 1] that the part kinds turn into benign variation.
        seed (int): Seed of the part's texture and of the sensor noise.
    """

    gain: float
    azimuth: float
    gradient: float
    vignette: float
    tint: float
    defocus: float
    angle: float
    shift: tuple[float, float]
    scale: float
    style: tuple[float, ...]
    seed: int


@dataclass(kw_only=True)
class Surface:
    """The surface that is lit. Defects edit these fields before shading.

    Shape:
        - ``u``, ``v``, ``height``, ``gloss``, ``ink``: (H, W); ``u``, ``v`` are the part's own coordinates and
          ``height`` is its relief, in units; ``ink`` is coverage in [0, 1].
        - ``albedo``, ``ink_color``: (H, W, 3) linear RGB in [0, 1].
    """

    u: np.ndarray
    v: np.ndarray
    height: np.ndarray
    albedo: np.ndarray
    gloss: np.ndarray
    ink: np.ndarray
    ink_color: np.ndarray


def draw_views(count: int, *, seed: int | Sequence[int]) -> list[View]:
    """Draw conditions by Latin hypercube sampling, so that every group of parts covers the range of light and pose.

    Args:
        count (int): Number of views, at least 0.
        seed (int | Sequence[int]): Seed of this group; different seeds give different parts.

    Returns:
        list[View]: Views in random order.
    """
    if count == 0:
        return []
    rng = np.random.default_rng(seed)
    rows = qmc.LatinHypercube(d=_VIEW_FACTORS + STYLE_FACTORS, seed=rng).random(count)
    seeds = rng.integers(2**62, size=count)
    return [_view(row, int(part_seed)) for row, part_seed in zip(rows, seeds, strict=True)]


def _view(row: np.ndarray, seed: int) -> View:
    signed = 2 * row - 1
    return View(
        gain=1 + 0.13 * signed[0],
        azimuth=-2.3 + 0.7 * signed[1],
        gradient=0.16 * row[2],
        vignette=0.05 + 0.2 * row[3],
        tint=0.03 * signed[4],
        defocus=0.5 + 0.35 * row[5],
        angle=np.deg2rad(5.0) * signed[6],
        shift=(6.0 * signed[7], 6.0 * signed[8]),
        scale=1 + 0.04 * signed[9],
        style=tuple(float(value) for value in row[_VIEW_FACTORS:]),
        seed=seed,
    )


def part_coordinates(size: int, view: View, *, turn: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return every pixel's (u, v) on the part, in units from its centre; ``turn`` (radians) adds to the angle."""
    axis = ((np.arange(size) + 0.5) / size - 0.5) * UNITS
    x, y = np.meshgrid(axis - view.shift[0], axis - view.shift[1])
    cos, sin = np.cos(view.angle + turn) / view.scale, np.sin(view.angle + turn) / view.scale
    return cos * x + sin * y, -sin * x + cos * y


def grain(rng: np.random.Generator, size: int, *, sigma: tuple[float, float] | float) -> np.ndarray:
    """Return smoothed white noise of deviation 1, (size, size); ``sigma`` in units, (across rows, along rows)."""
    down, along = np.broadcast_to(np.asarray(sigma, dtype=float) * size / UNITS, 2)
    decay = -2 * np.pi**2
    rows, columns = (
        np.exp(decay * (down * np.fft.fftfreq(size)) ** 2),
        np.exp(decay * (along * np.fft.rfftfreq(size)) ** 2),
    )
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    field = np.fft.irfft2(spectrum * rows[:, None] * columns, s=(size, size))
    return field / max(float(field.std()), 1e-6)


def attach(field: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Sample a square texture in the part's coordinates, so that the texture turns and shifts with the part."""
    scale = field.shape[0] / UNITS
    return map_coordinates(field, [v * scale, u * scale], order=1, mode="grid-wrap")


def soft_step(distance: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Return 1 for negative and 0 for positive ``distance``, with a linear edge ``width`` units wide."""
    return np.clip(0.5 - distance / max(width, 1e-6), 0.0, 1.0)


def box_distance(u: np.ndarray, v: np.ndarray, half: tuple[float, float], *, corner: float = 0.0) -> np.ndarray:
    """Return the signed distance to a box around the origin with rounded corners, in units."""
    a, b = np.abs(u) - half[0] + corner, np.abs(v) - half[1] + corner
    return np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - corner


def segment_distance(
    u: np.ndarray, v: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance to a segment and the position along it in [0, 1]."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / max(du * du + dv * dv, 1e-9), 0, 1)
    return np.hypot(u - start[0] - along * du, v - start[1] - along * dv), along


def draw_character(u: np.ndarray, v: np.ndarray, glyph: str, *, half: tuple[float, float], pen: float) -> np.ndarray:
    """Return the coverage of a seven-stroke character of half-size ``half`` around the origin, v pointing down."""
    near = (np.abs(u) < half[0] + 3) & (np.abs(v) < half[1] + 3)
    ink = np.zeros_like(u)
    best = np.full(int(near.sum()), 99.0)
    for on, ((x0, y0), (x1, y1)) in zip(glyph, _STROKES, strict=True):
        if on == "1":
            start = ((2 * x0 - 1) * half[0], (y0 - 1) * half[1])
            end = ((2 * x1 - 1) * half[0], (y1 - 1) * half[1])
            best = np.minimum(best, segment_distance(u[near], v[near], start, end)[0])
    ink[near] = soft_step(best - pen)
    return ink


def random_spot(rng: np.random.Generator, reach: float = 95.0) -> np.ndarray:
    """Return a random point on the part, in units from its centre."""
    return rng.uniform(-reach, reach, 2)


def irregular_patch(
    surface: Surface, at: np.ndarray, size: tuple[float, float], seed: int, *, rough: float
) -> np.ndarray:
    """Return the coverage in [0, 1] of an irregular patch with half-axes ``size`` around ``at``, all in units."""
    a, b = (surface.u - at[0]) / size[0], (surface.v - at[1]) / size[1]
    angle, radius = np.arctan2(b, a), np.hypot(a, b)
    rng = np.random.default_rng(seed)
    border = 1 + sum(rough * rng.normal() / k * np.sin(k * angle + rng.uniform(0, 6.3)) for k in range(2, 8))
    return soft_step(radius - border, 1.6 / min(size))


def shade(surface: Surface, view: View) -> np.ndarray:
    """Light the surface and image it through the lens, without sensor noise.

    Args:
        surface (Surface): Geometry and reflectance.
        view (View): Light and lens.

    Returns:
        np.ndarray: (H, W, 3) float image in [0, 1].
    """
    size = surface.height.shape[0]
    slope_y, slope_x = np.gradient(surface.height, UNITS / size)
    inverse = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    light = np.array([0.55 * np.cos(view.azimuth), 0.55 * np.sin(view.azimuth), 0.835])
    half = light + np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half)
    diffuse = np.clip((light[2] - slope_x * light[0] - slope_y * light[1]) * inverse, 0, None)
    mirror = np.clip((half[2] - slope_x * half[0] - slope_y * half[1]) * inverse, 0, None) ** 24
    ink = surface.ink[..., None]
    albedo = surface.albedo * (1 - ink) + surface.ink_color * ink
    image = albedo * (0.3 + 0.8 * diffuse)[..., None] + (surface.gloss * mirror)[..., None]
    axis = ((np.arange(size) + 0.5) / size - 0.5) * 2
    x, y = np.meshgrid(axis, axis)
    fall = 1 + view.gradient * (x * np.cos(view.azimuth) + y * np.sin(view.azimuth))
    fall *= 1 - view.vignette * (x**2 + y**2) / 2
    image *= (view.gain * fall)[..., None] * np.array([1 + view.tint, 1.0, 1 - view.tint])
    sigma = view.defocus * size / UNITS
    return np.clip(gaussian_filter(image, (sigma, sigma, 0)), 0, 1)


def expose(image: np.ndarray, view: View) -> np.ndarray:
    """Add the sensor's shot and read noise, and quantise to (H, W, 3) uint8."""
    rng = np.random.default_rng([view.seed, 1])
    deviation = np.sqrt(0.00012 * image + 0.00004)
    noisy = image + deviation * rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)

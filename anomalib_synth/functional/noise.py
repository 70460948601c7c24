"""Procedural noise fields: pure functions of coordinates and a seed.

Lattice values come from an integer hash, and every float operation on pixels is one that IEEE 754 rounds exactly
(+, -, *, /, sqrt, floor, comparisons). So a field does not depend on its batch, on the number of threads, or on the
alignment of vector units. Library calls such as ``exp`` or a convolution do not guarantee that.
"""

from __future__ import annotations

import math

import torch

_DIRECTIONS = [(math.cos(2 * math.pi * (k + 0.5) / 32), math.sin(2 * math.pi * (k + 0.5) / 32)) for k in range(32)]


def hash_uniform(seed: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """Hash integer coordinates to [0, 1).

    Args:
        seed: Integer-valued seeds, broadcastable to the coordinates.
        row: Integer-valued rows.
        column: Integer-valued columns, broadcastable with ``row``.

    Returns:
        float32 in [0, 1), multiples of 2**-24, of the broadcast shape.
    """
    mask = 0xFFFFFFFF
    value = (seed.long() * 0x9E3779B1 + row.long() * 0x85EBCA77) & mask
    value = value + (column.long() * 0xC2B2AE3D & mask)
    value = ((value ^ (value >> 15)) * 0x2C1B3C6D) & mask
    value = ((value ^ (value >> 12)) * 0x297A2D39) & mask
    value = value ^ (value >> 15)
    return (value >> 8).float() * 2.0**-24


def white_noise(seed: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return independent uniform noise in [0, 1), one value per pixel.

    Rows and columns are hashed separately, so a pixel costs nine operations on 32-bit integers (with wrap-around).

    Args:
        seed: (N,) seeds.
        x: (N, 1, 1, w) pixel coordinates.
        y: (N, 1, h, 1) pixel coordinates.

    Returns:
        (N, 1, h, w) float32 in [0, 1).
    """
    seed = seed.view(-1, 1, 1, 1)
    column = (hash_uniform(seed, torch.zeros_like(x), x.floor()) * 2.0**24).int() * 0x9E3779
    row = (hash_uniform(seed, torch.ones_like(y), y.floor()) * 2.0**24).int() * 0x85EBCB
    value = row + column
    value = (value ^ (value >> 15)) * 0x2C1B3C6D
    value = (value ^ (value >> 13)) * 0x297A2D39
    return (value >> 8 & 0xFFFFFF).float() * 2.0**-24


def value_noise(seed: torch.Tensor, x: torch.Tensor, y: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """Return smooth value noise: random values on a lattice, blended by smoothstep.

    Args:
        seed: (N,) seeds.
        x: (N, 1, 1, w) coordinates.
        y: (N, 1, h, 1) coordinates.
        cell: (N,) lattice spacing in the unit of the coordinates, > 0.

    Returns:
        (N, 1, h, w) float32 in [0, 1).
    """
    column, tx = _cells(x.flatten(1), cell)
    row, ty = _cells(y.flatten(1), cell)
    lattice, row_index, column_index = _lattice(seed, row, column)
    fade = (tx * tx * (3 - 2 * tx)).unsqueeze(1)
    left, right = _columns(lattice, column_index)
    along_x = left + fade * (right - left)
    fade = (ty * ty * (3 - 2 * ty)).unsqueeze(2)
    above, below = _rows(along_x, row_index)
    return (above + fade * (below - above)).unsqueeze(1)


def fractal_noise(
    seed: torch.Tensor, x: torch.Tensor, y: torch.Tensor, cell: torch.Tensor, *, octaves: int = 3
) -> torch.Tensor:
    """Return a sum of value-noise octaves, each with half the spacing and half the amplitude of the one before.

    Returns:
        (N, 1, h, w) float32 in [0, 1), mean 0.5. Arguments are those of :func:`value_noise`.
    """
    total = value_noise(seed, x, y, cell)
    norm, amplitude = 1.0, 1.0
    for octave in range(1, octaves):
        amplitude *= 0.5
        norm += amplitude
        total = total + amplitude * value_noise(seed + 7919 * octave, x, y, cell * amplitude)
    return total * (1.0 / norm)


def perlin_noise(
    seed: torch.Tensor, x: torch.Tensor, y: torch.Tensor, cell_x: torch.Tensor, cell_y: torch.Tensor
) -> torch.Tensor:
    """Return Perlin gradient noise with the quintic fade (Perlin, "Improving Noise", SIGGRAPH 2002).

    Gradients point in one of 32 evenly spaced directions. The sum over the four corners is separated into one pass
    along the lattice rows and one across them, so a pixel costs four row look-ups.

    Args:
        seed: (N,) seeds.
        x: (N, 1, 1, w) coordinates.
        y: (N, 1, h, 1) coordinates.
        cell_x: (N,) lattice spacing along x, > 0.
        cell_y: (N,) lattice spacing along y, > 0.

    Returns:
        (N, 1, h, w) float32, scaled by sqrt(2) like DRAEM's, in about [-1, 1].
    """
    column, tx = _cells(x.flatten(1), cell_x)
    row, ty = _cells(y.flatten(1), cell_y)
    lattice, row_index, column_index = _lattice(seed, row, column)
    directions = torch.tensor(_DIRECTIONS, dtype=torch.float32, device=x.device)[(lattice * 32).long()]
    fade = (tx * tx * tx * (tx * (tx * 6 - 15) + 10)).unsqueeze(1)
    tx = tx.unsqueeze(1)
    left, right = _columns(directions[..., 0], column_index)
    constant = (1 - fade) * (left * tx) + fade * (right * (tx - 1))
    left, right = _columns(directions[..., 1], column_index)
    slope = left + fade * (right - left)
    ty = ty.unsqueeze(2)
    constant_above, constant_below = _rows(constant, row_index)
    slope_above, slope_below = _rows(slope, row_index)
    above = constant_above + ty * slope_above
    below = constant_below + (ty - 1) * slope_below
    fade = ty * ty * ty * (ty * (ty * 6 - 15) + 10)
    return (math.sqrt(2) * (above + fade * (below - above))).unsqueeze(1)


def noise_along(seed: torch.Tensor, u: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """Return smooth one-dimensional value noise over a coordinate field, such as the position along a curve.

    Args:
        seed: (N,) seeds.
        u: (N, 1, h, w) coordinate of each pixel.
        cell: (N,) lattice spacing in the unit of ``u``, > 0.

    Returns:
        (N, 1, h, w) float32 in [0, 1).
    """
    scaled = u / cell.view(-1, 1, 1, 1)
    index = scaled.floor()
    t = scaled - index
    index = index.long().flatten(1)
    first = index.amin(1, keepdim=True)
    index = index - first
    places = torch.arange(int(index.max()) + 2, device=u.device)
    lattice = hash_uniform(seed.view(-1, 1), torch.zeros_like(first), first + places)
    low = lattice.gather(1, index).view_as(t)
    high = lattice.gather(1, index + 1).view_as(t)
    return low + t * t * (3 - 2 * t) * (high - low)


def _cells(coordinate: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split (N, n) coordinates into the integer lattice cell and the position in it, in [0, 1)."""
    scaled = coordinate / cell.view(-1, 1)
    index = scaled.floor()
    return index, scaled - index


def _lattice(
    seed: torch.Tensor, row: torch.Tensor, column: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the hashed lattice (N, R, K) that covers the cells, and the indices of rows and columns into it."""
    first_row, first_column = row[:, :1], column[:, :1]
    row_index, column_index = (row - first_row).long(), (column - first_column).long()
    rows = torch.arange(int(row_index.max()) + 2, device=row.device).view(1, -1, 1)
    columns = torch.arange(int(column_index.max()) + 2, device=row.device).view(1, 1, -1)
    lattice = hash_uniform(
        seed.view(-1, 1, 1), rows + first_row.long().unsqueeze(2), columns + first_column.long().unsqueeze(1)
    )
    return lattice, row_index, column_index


def _columns(lattice: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Look up the columns ``index`` and ``index + 1``: (N, R, K), (N, w) -> two (N, R, w)."""
    index = index.unsqueeze(1).expand(-1, lattice.shape[1], -1)
    return lattice.gather(2, index), lattice.gather(2, index + 1)


def _rows(values: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Look up the rows ``index`` and ``index + 1``: (N, R, w), (N, h) -> two (N, h, w)."""
    n, r, w = values.shape
    flat = (index + torch.arange(n, device=index.device).view(-1, 1) * r).flatten()
    table = values.reshape(n * r, w)
    return table.index_select(0, flat).view(n, -1, w), table.index_select(0, flat + 1).view(n, -1, w)

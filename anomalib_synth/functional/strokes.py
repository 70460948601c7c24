"""Thin curves as polylines: the cost depends on their length, not on the window's area."""

from __future__ import annotations

import math

import torch

from anomalib_synth.functional.layers import Window
from anomalib_synth.functional.noise import hash_uniform


def stroke_distance(
    window: Window, x: torch.Tensor, y: torch.Tensor, half_width: torch.Tensor, reach: torch.Tensor
) -> torch.Tensor:
    """Return the signed distance to the nearest of many short strokes of varying width.

    Each stroke writes the distances of the few pixels around it, and a pixel keeps the smallest. Unlike a sum, a
    minimum does not depend on the order.

    Args:
        window: The windows.
        x: (N, S, 2) x of both ends of each of the S strokes, in the window's coordinates.
        y: (N, S, 2) y of both ends.
        half_width: (N, S, 2) half the width at both ends, in pixels. Strokes with a value of -1 or less at an end are
            left out.
        reach: (N, 1, 1, 1) distance beyond which the exact value does not matter, in pixels, > 0.

    Returns:
        (N, 1, h, w) distances in pixels, negative inside, at most ``reach``.
    """
    n, _, h, w = window.image.shape
    reach = reach.view(-1, 1, 1, 1)
    used = ((half_width > -1).all(2)).any(0).nonzero().flatten()
    x, y, half_width = (value.index_select(1, used) for value in (x, y, half_width))
    if len(used) == 0:
        return reach.expand(n, 1, h, w).clone()
    (ax, bx), (ay, by), (aw, bw) = (value.unsqueeze(-1).unbind(2) for value in (x, y, half_width))  # (N, S, 1)
    ux, uy = bx - ax, by - ay
    valid = (aw > -1) & (bw > -1)
    far = torch.where(valid, torch.maximum(ux.abs(), uy.abs()) * 0.5 + torch.maximum(aw, bw), torch.zeros_like(ux))
    radius = max(1, math.floor(float((far.amax(1) + reach.flatten(1)).max()) + 0.6))
    offset = torch.arange(-radius, radius + 1, device=x.device)
    first_x, first_y = window.x[:, 0, :, :1], window.y[:, 0, :1, :]
    column = ((ax + bx) * 0.5 - first_x + 0.5).floor().long() + offset
    row = ((ay + by) * 0.5 - first_y + 0.5).floor().long() + offset
    px = (column + first_x - ax).unsqueeze(2)
    py = (row + first_y - ay).unsqueeze(3)
    ux, uy, aw, bw = (value.unsqueeze(3) for value in (ux, uy, aw, bw))
    along = ((px * ux + py * uy) / (ux * ux + uy * uy).clamp_min(1e-6)).clamp(0, 1)
    dx, dy = px - along * ux, py - along * uy
    distance = (dx * dx + dy * dy).sqrt() - (aw + along * (bw - aw))
    inside = ((column >= 0) & (column < w) & valid).unsqueeze(2) & ((row >= 0) & (row < h)).unsqueeze(3)
    distance = torch.where(inside, torch.minimum(distance, reach), reach)
    index = row.clamp(0, h - 1).unsqueeze(3) * w + column.clamp(0, w - 1).unsqueeze(2)
    field = reach.reshape(n, 1).expand(n, h * w).clone()
    return field.scatter_reduce_(1, index.flatten(1), distance.flatten(1), "amin").view(n, 1, h, w)


def links(*curves: torch.Tensor) -> torch.Tensor:
    """Cut curves given by nodes into strokes: (N, K) each -> (N, sum of (K - 1), 2)."""
    return torch.cat([torch.stack([curve[:, :-1], curve[:, 1:]], dim=2) for curve in curves], dim=1)


def jagged(seed: torch.Tensor, nodes: int, *, roughness: float = 0.9, finest: int = 1) -> torch.Tensor:
    """Return a self-affine line at evenly spaced nodes: a sum of octaves of straight pieces between random heights.

    Args:
        seed: (N,) seeds.
        nodes: Number of nodes.
        roughness: Each octave of half the spacing has 2**-``roughness`` times the amplitude; larger values give
            smoother lines.
        finest: Spacing in nodes of the finest octave, >= 1; larger values give smoother lines.

    Returns:
        (N, nodes) float32, in about [-1, 1].
    """
    cells = [(nodes - 1) // 2]
    while cells[-1] // 2 >= finest:
        cells.append(cells[-1] // 2)
    cell = torch.tensor(cells, device=seed.device).view(1, -1, 1)
    position = torch.arange(nodes, device=seed.device).view(1, 1, -1)
    index = position // cell
    part = (position - index * cell).float() / cell
    octave = torch.arange(len(cells), device=seed.device).view(1, -1, 1)
    low, high = (hash_uniform(seed.view(-1, 1, 1), octave, index + k) for k in (0, 1))
    heights = low + part * (high - low) - 0.5
    total = heights[:, 0]
    for k in range(1, len(cells)):
        total = total + 2.0 ** (-roughness * k) * heights[:, k]
    return total

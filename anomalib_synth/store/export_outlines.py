"""A region of a mask as one polygon along its pixels' edges, or as run lengths: both decode to the same pixels."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

Vertex = tuple[int, int]
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # east, south, west, north; y grows downwards


def trace_outline(region: np.ndarray) -> list[Vertex]:
    """Return a region (H, W) as one closed polygon of corners ``(x, y)`` of pixels.

    A hole, or a part that lies apart, is joined to the rest by a bridge of no width, there and back. By the even-odd
    rule, and by the winding rule, the polygon then fills the region's pixels and no other.

    Example:
        >>> trace_outline(np.ones((1, 2), dtype=bool))
        [(0, 0), (2, 0), (2, 1), (0, 1)]
    """
    rings = _trace_rings(region)
    joined = rings[0]
    corners = np.concatenate([np.asarray(ring) for ring in rings])
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    distances, partners = np.full(len(corners), np.inf), np.zeros_like(corners)
    last, is_open = rings[0], owner > 0
    while is_open.any():  # join the nearest ring next; only the ring joined last can be nearer to an open corner
        rest = np.flatnonzero(is_open)
        found, positions = KDTree(last).query(corners[rest])
        closer = found < distances[rest]
        distances[rest[closer]] = found[closer]
        partners[rest[closer]] = np.asarray(last)[positions[closer]]
        best = rest[np.argmin(distances[rest])]
        last = rings[owner[best]]
        here, there = joined.index(_corner(partners[best])), last.index(_corner(corners[best]))
        joined = [*joined[: here + 1], *last[there:], *last[: there + 1], *joined[here:]]
        is_open &= owner != owner[best]
    return [vertex for position, vertex in enumerate(joined) if vertex != joined[position - 1]]


def run_lengths(region: np.ndarray) -> list[int]:
    """Return COCO's uncompressed run lengths of a mask (H, W): column by column, zeros first.

    Example:
        >>> run_lengths(np.array([[0, 1], [1, 1]], dtype=bool))
        [1, 3]
    """
    flat = np.asarray(region, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def _trace_rings(region: np.ndarray) -> list[list[Vertex]]:
    """Return the borders of a region: outer ones clockwise on the screen, holes the other way round.

    Where two pixels touch at a corner, two edges lead on; either choice gives closed rings round the same pixels.
    """
    edges = _edges(region)
    rings = []
    while edges:
        x, y = next(iter(edges))
        heading, ring = -1, []
        while headings := edges.get((x, y)):
            step = headings.pop()
            if not headings:
                del edges[x, y]
            if step != heading:
                ring.append((x, y))
            heading = step
            x, y = x + _STEPS[step][0], y + _STEPS[step][1]
        first = _STEPS.index((_sign(ring[1][0] - ring[0][0]), _sign(ring[1][1] - ring[0][1])))
        rings.append(ring[1:] if heading == first else ring)
    return rings


def _edges(region: np.ndarray) -> dict[Vertex, list[int]]:
    """Return the directions of the edges that leave each corner, with the region on their right."""
    padded = np.pad(np.asarray(region, dtype=bool), 1)
    inner = padded[1:-1, 1:-1]
    sides = (
        (padded[:-2, 1:-1], (0, 0)),  # no pixel above: the upper edge, eastwards from the upper left corner
        (padded[1:-1, 2:], (1, 0)),
        (padded[2:, 1:-1], (1, 1)),
        (padded[1:-1, :-2], (0, 1)),
    )
    edges: dict[Vertex, list[int]] = {}
    for heading, (neighbour, (right, down)) in enumerate(sides):
        rows, columns = np.nonzero(inner & ~neighbour)
        for x, y in zip((columns + right).tolist(), (rows + down).tolist(), strict=True):
            edges.setdefault((x, y), []).append(heading)
    return edges


def _corner(place: np.ndarray) -> Vertex:
    return int(place[0]), int(place[1])


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)

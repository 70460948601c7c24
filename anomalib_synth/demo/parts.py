"""The part kinds of the demo, and how a part is rendered to an image."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anomalib_synth.demo.board import board_surface, layout_board
from anomalib_synth.demo.cap import cap_surface, layout_cap
from anomalib_synth.demo.scene import Surface, View, expose, shade
from anomalib_synth.demo.textures import fabric_surface, layout_fabric, layout_metal, metal_surface

Layout = dict[str, Any]
_KINDS: dict[str, tuple[Callable[[View], Layout], Callable[[int, View, Layout], Surface]]] = {
    "brushed_metal": (layout_metal, metal_surface),
    "woven_fabric": (layout_fabric, fabric_surface),
    "printed_cap": (layout_cap, cap_surface),
    "circuit_board": (layout_board, board_surface),
}
PART_KINDS = tuple(_KINDS)


@dataclass(kw_only=True)
class Part:
    """One part in front of the camera, good until a defect changes its ``layout`` or adds to ``edits``.

    Args:
        kind (str): One of ``PART_KINDS``.
        size (int): Side of the image in pixels.
        view (View): Conditions and seed.
        layout (dict): Structure that the surface is built from: threads, components, grooves.
        edits (list): Functions that change the finished surface in place, before it is lit.
    """

    kind: str
    size: int
    view: View
    layout: Layout
    edits: list[Callable[[Surface], None]] = field(default_factory=list)

    def copy(self) -> "Part":
        """Return an independent copy; the functions in ``edits`` are shared."""
        return Part(
            kind=self.kind, size=self.size, view=self.view, layout=deepcopy(self.layout), edits=list(self.edits)
        )

    def surface(self) -> Surface:
        """Build the surface with all edits."""
        surface = _KINDS[self.kind][1](self.size, self.view, self.layout)
        for edit in self.edits:
            edit(surface)
        return surface


def make_part(kind: str, *, size: int, view: View) -> Part:
    """Return a good part.

    Args:
        kind (str): One of ``PART_KINDS``.
        size (int): Side of the image in pixels.
        view (View): Conditions and seed; the same view gives the same part.

    Returns:
        Part: The part.

    Raises:
        ValueError: If ``kind`` is unknown.
    """
    if kind not in _KINDS:
        msg = f"`kind` must be one of {', '.join(PART_KINDS)}, got '{kind}'."
        raise ValueError(msg)
    return Part(kind=kind, size=size, view=view, layout=_KINDS[kind][0](view))


def render(part: Part) -> np.ndarray:
    """Return the noise-free image of a part, (H, W, 3) float in [0, 1]."""
    return shade(part.surface(), part.view)


def photograph(part: Part) -> np.ndarray:
    """Return the image of a part with sensor noise, (H, W, 3) uint8."""
    return expose(render(part), part.view)

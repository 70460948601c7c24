"""Held-out defects of the demo parts, made by the render model itself.

Nothing here uses the generators of this package. A defect changes the construction of the part (a thread, a component,
the rim) or the surface before it is lit. The mask marks where the finished image differs from that of the same part
without the defect.
"""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import binary_closing, binary_fill_holes, gaussian_filter, label

from anomalib_synth.demo import object_defects, texture_defects
from anomalib_synth.demo.parts import Part, render
from anomalib_synth.demo.scene import UNITS

VISIBLE_CHANGE = 0.03
AREA_RANGE = (0.001, 0.045)
_ATTEMPTS = 12
DefectFunction = Callable[[Part, np.random.Generator], None]

DEFECTS: dict[str, tuple[DefectFunction, ...]] = {
    "brushed_metal": (
        texture_defects.chatter_mark,
        texture_defects.cross_scratch,
        texture_defects.rolled_in_debris,
        texture_defects.polish_loss,
        texture_defects.handling_ding,
    ),
    "woven_fabric": (
        texture_defects.missing_weft,
        texture_defects.mispick,
        texture_defects.floating_thread,
        texture_defects.knot,
        texture_defects.slub,
        texture_defects.oil_drop,
    ),
    "printed_cap": (
        object_defects.incomplete_print,
        object_defects.edge_nick,
        object_defects.ink_splash,
        object_defects.scuff,
        texture_defects.handling_ding,
    ),
    "circuit_board": (
        object_defects.missing_component,
        object_defects.rotated_component,
        object_defects.solder_bridge,
        object_defects.open_trace,
        object_defects.lifted_pin,
        object_defects.flux_residue,
    ),
}


def defective(part: Part, *, index: int) -> tuple[str, np.ndarray, np.ndarray]:
    """Give a good part a defect and return what the camera sees.

    Args:
        part (Part): A good part; it is not changed.
        index (int): Chooses the kind of defect, cyclically. If a kind cannot be seen on this part (a bridge outside the
            picture, a scratch along the light), the next kind is used.

    Returns:
        tuple[str, np.ndarray, np.ndarray]: The defect's name, the noise-free image (H, W, 3) in [0, 1] and the mask
        (H, W) bool of the pixels that changed visibly.

    Raises:
        RuntimeError: If no draw of any kind gives a visible change that covers 0.1 % to 4.5 % of the image.
    """
    choices = DEFECTS[part.kind]
    clean = render(part)
    for draw in range(_ATTEMPTS * len(choices)):
        function = choices[(index + draw // _ATTEMPTS) % len(choices)]
        bad = part.copy()
        function(bad, np.random.default_rng([part.view.seed, 4, draw]))
        image = render(bad)
        mask = change_mask(clean, image)
        if AREA_RANGE[0] <= mask.mean() <= AREA_RANGE[1]:
            return function.__name__, image, mask
    msg = f"No visible defect on '{part.kind}' at image size {part.size}; use a larger `image_size`."
    raise RuntimeError(msg)


def change_mask(clean: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return where two noise-free images of one part differ visibly, (H, W) bool; gaps are closed, specks removed."""
    unit = clean.shape[0] / UNITS
    change = gaussian_filter(np.abs(image - clean).max(axis=2), 0.6 * unit)
    reach = max(1, round(3 * unit))
    disk = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    padded = np.pad(change > VISIBLE_CHANGE, reach)
    mask = binary_fill_holes(binary_closing(padded, disk))[reach:-reach, reach:-reach]
    pieces, count = label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    keep = sizes >= max(3, 10 * unit * unit)
    keep[0] = False
    return keep[pieces]

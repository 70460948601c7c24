"""Small pictures for the page of a detector, with the outline of a defect, or a ring where the map is highest."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from anomalib_synth.images import UnreadableImageError, read_tensor
from anomalib_synth.report.pictures import draw_outline

if TYPE_CHECKING:
    import torch

    from anomalib_synth.calibration.scoring import Item, Row

_SIDE = 224


def show_item(item: Item, caption: str, *, closer: bool = True) -> dict[str, Any]:
    """Return the picture of a drawn defect with its outline; with ``closer``, only of a window around it."""
    if item.mask is None or not bool(item.mask.any()):
        return {"image": encode(item.image), "caption": caption, "outline": None, "ring": None}
    rows, columns = _window(item.mask[0].numpy() > 0) if closer else (slice(None), slice(None))
    outline = _embed(draw_outline(item.mask[0, rows, columns].numpy() > 0, size=_SIDE), "image/svg+xml")
    return {"image": encode(item.image[:, rows, columns]), "caption": caption, "outline": outline, "ring": None}


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Return a square window around a mask, twice as large as the mask and at least a third of the image."""
    inside = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    extent = max(int(each[-1] - each[0]) + 1 for each in inside)
    side = min(*mask.shape, max(2 * extent, min(mask.shape) // 3))
    windows = []
    for each, length in zip(inside, mask.shape, strict=True):
        start = min(max(0, int(each[0] + each[-1] + 1 - side) // 2), length - side)
        windows.append(slice(start, start + side))
    return windows[0], windows[1]


def show_file(row: Row, caption: str, *, argument: str, ring: bool = True) -> dict[str, Any] | None:
    """Return the picture of a file with a ring where its map is highest; None if it can no longer be read."""
    try:
        image = read_tensor(Path(row.path), argument)
    except (ValueError, OSError, UnreadableImageError):
        return None
    place = row.place if ring else None
    where = None if place is None else {"x": round(100 * place[0], 1), "y": round(100 * place[1], 1)}
    return {"image": encode(image), "caption": caption, "outline": None, "ring": where}


def encode(image: torch.Tensor) -> str:
    """Return an image (3, H, W) in [0, 1] as a small WebP picture in a data URL."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80, method=2)
    return _embed(buffer.getvalue(), "image/webp")


def _embed(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

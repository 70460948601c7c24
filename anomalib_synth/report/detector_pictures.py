"""Pictures for the page of a detector: small, with the outline of a defect or a ring where the model looks."""

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


def show_item(item: Item, caption: str) -> dict[str, Any]:
    """Return the picture of a drawn defect with its outline."""
    shown: dict[str, Any] = {"image": encode(item.image), "caption": caption, "outline": None, "ring": None}
    if item.mask is not None:
        mask = item.mask[0].numpy() > 0
        shown["outline"] = _embed(draw_outline(mask, size=_SIDE), "image/svg+xml")
    return shown


def show_file(row: Row, caption: str, *, argument: str, ring: bool = True) -> dict[str, Any] | None:
    """Return the picture of a file with a ring where its map is highest; None for one that cannot be read any more."""
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

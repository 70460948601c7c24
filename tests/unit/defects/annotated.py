"""Small folders of images with annotations, as tools write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (40, 60)  # height and width


def save_image(path: Path, size: tuple[int, int] = SIZE, *, orientation: int = 1) -> Path:
    """Write an image of some grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((*size, 3), 120, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation != 1 else {}))
    return path


def save_mask(path: Path, inside: np.ndarray) -> Path:
    """Write a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(inside.astype(np.uint8) * 255).save(path)
    return path


def save_text(path: Path, content: Any) -> Path:
    """Write text, or what JSON makes of anything else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def blank() -> np.ndarray:
    """A mask of nothing."""
    return np.zeros(SIZE, dtype=bool)


def block(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """A mask of a block of pixels."""
    mask = blank()
    mask[top:bottom, left:right] = True
    return mask


def coco(annotations: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A COCO file of one image ``a.png`` with categories 1 scratch and 2 dent."""
    rows = [{"id": n, "image_id": 7, "category_id": 1, **row} for n, row in enumerate(annotations, 1)]
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "scratch"}, {"id": 2, "name": "dent"}],
    }
    return content | changes


def labelme(shapes: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A file as LabelMe 5 writes it."""
    rows = [
        {"label": "scratch", "group_id": None, "description": "", "flags": {}, "mask": None} | row for row in shapes
    ]
    content = {
        "version": "5.5.0", "flags": {}, "shapes": rows, "imagePath": "a.png", "imageData": None,
        "imageHeight": SIZE[0], "imageWidth": SIZE[1],
    }  # fmt: skip
    return content | changes


def cvat(shapes: str, *, name: str = "a.png", height: int = SIZE[0], width: int = SIZE[1]) -> str:
    """A file as CVAT writes it for images."""
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>1</id><name>parts</name><mode>annotation</mode><labels><label><name>scratch</name><color>#ff0000</color>
    <type>any</type><attributes></attributes></label></labels></task><dumped>2026-01-01 00:00:00+00:00</dumped></meta>
  <image id="0" name="{name}" width="{width}" height="{height}">
{shapes}
  </image>
</annotations>
"""

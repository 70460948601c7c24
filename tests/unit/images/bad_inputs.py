"""A folder with one input of every odd kind, made here."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32


def ramp(side: int = SIDE) -> np.ndarray:
    """A grey ramp from left to right, (side, side) uint8."""
    return np.tile(np.linspace(0, 255, side).round().astype(np.uint8), (side, 1))


def colours(side: int = SIDE) -> np.ndarray:
    """A picture whose three channels and two directions all differ, (side, side, 3) uint8."""
    grey = ramp(side)
    return np.stack([grey, grey.T, np.full_like(grey, 90)], axis=-1)


def write_readable(folder: Path) -> dict[str, np.ndarray]:
    """Write images of every kind that can be read; return the pixels each must give, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    grey, rgb = ramp(), colours()
    deep = grey.astype(np.uint16) * 256 + 7
    on_three = np.repeat(grey[..., None], 3, axis=-1)
    image = Image.fromarray(rgb)
    for name in ("plain.png", "plain.bmp", "plain.tif", "plain.ppm"):
        image.save(folder / name)
    image.save(folder / "lossless.webp", lossless=True)
    image.save(folder / "upper.PNG")
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    Image.fromarray(grey.astype(np.float32) / 255).save(folder / "float.tif")
    Image.fromarray(grey > 127).save(folder / "bilevel.png")
    palette = image.quantize(32)
    palette.save(folder / "palette.png")
    palette.save(folder / "transparent_palette.png", transparency=b"\x00\x80")
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(grey))
    alpha.save(folder / "alpha.png")
    image.convert("CMYK").save(folder / "cmyk.tif")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter clockwise
    image.save(folder / "rotated.png", exif=exif)
    image.save(folder / "frames.tif", save_all=True, append_images=[Image.fromarray(255 - rgb)])
    quantized = np.array(palette.convert("RGB"))
    return {
        **dict.fromkeys(("plain.png", "plain.bmp", "plain.tif", "plain.ppm", "lossless.webp", "upper.PNG"), rgb),
        **dict.fromkeys(("alpha.png", "cmyk.tif", "frames.tif"), rgb),
        **dict.fromkeys(("grey.png", "deep.png", "deep.tif", "float.tif"), on_three),
        "bilevel.png": np.where(on_three > 127, 255, 0).astype(np.uint8),
        "palette.png": quantized,
        "transparent_palette.png": quantized,
        "rotated.png": np.rot90(rgb, -1),
    }


def write_unreadable(folder: Path) -> dict[str, str]:
    """Write files of every kind that cannot be read; return a part of the reason, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(colours(64))
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    for name in ("cut.png", "cut.jpg", "cut.bmp", "cut.webp", "cut.tif"):
        image.save(folder / name)
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
    Image.fromarray(np.full((SIDE, SIDE), 70_000, np.int32)).save(folder / "integers.tif")
    Image.fromarray(np.full((SIDE, SIDE), np.nan, np.float32)).save(folder / "nan.tif")
    image.resize((8, 64)).save(folder / "thin.png")
    (folder / "bomb.png").write_bytes(blank_png(60_000, 60_000, rows=4))
    return {
        "empty.png": "empty",
        "text.jpg": "not an image",
        **dict.fromkeys(("cut.png", "cut.jpg", "cut.bmp", "cut.webp", "cut.tif"), "damaged"),
        "integers.tif": "no known white",
        "nan.tif": "floating-point",
        "thin.png": "smaller than 16 pixels",
        "bomb.png": "megapixels",
    }


def blank_png(width: int, height: int, *, rows: int | None = None) -> bytes:
    """A grey PNG, packed row by row so that a huge one takes no memory to make; ``rows`` cuts it short."""
    packer = zlib.compressobj(1)
    line = b"\x00" + b"\x80" * width
    body = b"".join(packer.compress(line) for _ in range(rows or height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)

"""Pictures of a sample for a page: thumbnails, and the outline of its mask."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from anomalib_synth.store import StoreError

if TYPE_CHECKING:
    from anomalib_synth.store import Record, SampleStore

    Kind = Literal["image", "source"]

THUMBNAIL = 288
_REMEMBERED = 3000
_STYLES = (("#000", 0.6, 3.4), ("#ff2d78", 1, 1.6))


class Pictures:
    """Makes pictures of a store's samples on request, and caches the last few thousand.

    Whenever a file is read, it is compared with its digest in the manifest.

    Args:
        store: An open store.
    """

    def __init__(self, store: SampleStore) -> None:
        self.store = store
        self.thumbnail = lru_cache(maxsize=_REMEMBERED)(self._draw_thumbnail)
        self.outline = lru_cache(maxsize=_REMEMBERED)(self._draw_outline)

    def original(self, sample: str, kind: Kind) -> bytes:
        """Return the PNG file of a sample's image or source.

        Raises:
            StoreError: If there is no such sample, or its file is missing or damaged. The other methods raise it too.
        """
        record = self.store.get(sample)
        if kind == "source":
            return self.store.check_file(record, record.source_file, record.source_file_hash)
        if not record.image_file:
            msg = f"Sample {record.id} was never drawn: {record.reason}."
            raise StoreError(msg)
        return self.store.check_file(record, record.image_file, record.image_hash)

    def _draw_thumbnail(self, sample: str, kind: Kind, size: int = THUMBNAIL) -> bytes:
        """Return a WebP picture of at most ``size`` pixels a side."""
        pixels = self._read(self.store.get(sample), kind)
        if pixels.ndim == 3:
            pixels = pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3]
        image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
        image.thumbnail((size, size), Image.Resampling.LANCZOS, reducing_gap=2.0)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=82, method=2)
        return buffer.getvalue()

    def _draw_outline(self, sample: str, size: int = THUMBNAIL) -> bytes:
        """Return the border of the mask as SVG, a line whose width does not depend on the zoom."""
        return draw_outline(self.store.read_mask(self.store.get(sample)), size=size)

    def _read(self, record: Record, kind: Kind) -> np.ndarray:
        return self.store.read_source(record) if kind == "source" else self.store.read_image(record)


def draw_outline(mask: np.ndarray, *, size: int) -> bytes:
    """Return the border of a mask as an SVG picture with the mask's proportions.

    Args:
        mask: (H, W), inside where > 0.
        size: The mask is divided into about this many cells per side; a cell with any mask counts as inside.
    """
    height, width = mask.shape[:2]
    step = max(1, -(-max(height, width) // size))
    grid = _pool(mask > 0, step)
    lines = "".join(
        f'<use href="#b" stroke="{colour}" stroke-opacity="{opacity}" stroke-width="{line}"/>'
        for colour, opacity, line in _STYLES
    )
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<defs><path id="b" fill="none" stroke-linecap="round" vector-effect="non-scaling-stroke" '
        f'transform="scale({step})" d="{trace_border(grid)}"/></defs>{lines}</svg>'
    )
    return text.encode()


def trace_border(mask: np.ndarray) -> str:
    """Return the border between the inside and the outside of a mask (H, W), as SVG path data along its pixels' edges.

    Example:
        >>> trace_border(np.array([[True, True]]))
        'M0 0h2M0 1h2M0 0v1M2 0v1'
    """
    padded = np.pad(mask, 1).astype(np.int8)
    rows = _find_runs(np.abs(np.diff(padded, axis=0))[:, 1:-1])
    columns = _find_runs(np.abs(np.diff(padded, axis=1))[1:-1].T)
    return "".join(
        [f"M{start} {row}h{stop - start}" for row, start, stop in rows]
        + [f"M{column} {start}v{stop - start}" for column, start, stop in columns]
    )


def _find_runs(edges: np.ndarray) -> list[list[int]]:
    """Return line, start and stop of each run of ones along the lines of a table."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))), axis=1)
    starts, stops = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return np.column_stack([starts, stops[:, 1]]).tolist()


def _pool(mask: np.ndarray, step: int) -> np.ndarray:
    """Return a mask on a grid of cells of ``step`` pixels: inside where any pixel is."""
    height, width = mask.shape
    padded = np.pad(mask, ((0, -height % step), (0, -width % step)))
    return np.any(padded.reshape(padded.shape[0] // step, step, -1, step), axis=(1, 3))

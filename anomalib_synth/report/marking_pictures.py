"""Pictures of the images to mark, and their thumbnails; images that cannot be read are remembered."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from anomalib_synth.images import ImageReader, UnreadableImageError, allow_large_images, read_bytes
from anomalib_synth.report.marking_outline import outline_map, outline_shape, trace_mask
from anomalib_synth.report.pictures import THUMBNAIL

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.report.image_marks import ImageMarks
    from anomalib_synth.report.marking_files import ImageToMark, MarkedFolder
    from anomalib_synth.report.marking_outline import Proposer

_REMEMBERED = 3000
_DECODED = 2
_LOSSLESS = 2**22  # pixels; larger ones go to the page as JPEG, nearly without loss
_MOST_PIXELS = 2**26  # of a picture on the page
_OUTLINES = 64
_STYLE = 'fill="none" vector-effect="non-scaling-stroke" stroke-linejoin="round"'


class MarkingPictures:
    """Reads the images of a folder, and proposes outlines on them.

    Args:
        folder: The images.
        reader: How they are read.
        proposer: Proposes where a defect may be; None proposes only within marks.

    Attributes:
        unreadable: Id and reason of each image that could not be read so far.
        looked_at: How many images :meth:`look_through` has read.
    """

    def __init__(self, folder: MarkedFolder, reader: ImageReader, proposer: Proposer | None = None) -> None:
        self.folder = folder
        self.proposer = proposer
        self.unreadable: dict[str, str] = {}
        self.looked_at = 0
        self.thumbnail = lru_cache(maxsize=_REMEMBERED)(self._draw_thumbnail)
        self._reader = reader
        self._sizes: dict[str, tuple[int, int]] = {}
        self._decoded: OrderedDict[str, np.ndarray] = OrderedDict()
        self._outlines: OrderedDict[str, np.ndarray | None] = OrderedDict()
        self._reading, self._proposing = threading.Lock(), threading.Lock()

    def look_through(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Read every image once, to make its thumbnail and to find those that cannot be read."""
        for image in self.folder.listed.values():
            if stop():
                return
            with suppress(UnreadableImageError):  # which notes it
                self.thumbnail(image)
            self.looked_at += 1

    def measure(self, image: ImageToMark) -> tuple[int, int]:
        """Return height and width of an image, upright.

        Raises:
            UnreadableImageError: If it cannot be read; :meth:`pixels` and :meth:`picture` raise it too.
        """
        if image.id not in self._sizes:
            self.pixels(image)
        return self._sizes[image.id]

    def pixels(self, image: ImageToMark) -> np.ndarray:
        """Return an image, (H, W, 3) uint8; the last ones are cached."""
        with self._reading:
            if image.id not in self._decoded:
                self._decoded[image.id] = self._read(image)
                while len(self._decoded) > _DECODED:
                    self._decoded.popitem(last=False)
            self._decoded.move_to_end(image.id)
            return self._decoded[image.id]

    def picture(self, image: ImageToMark) -> tuple[bytes, str]:
        """Return an image for the page, and its media type."""
        pixels = self.pixels(image)
        shown = Image.fromarray(pixels)
        count = pixels.shape[0] * pixels.shape[1]
        if count > _MOST_PIXELS:
            scale = (_MOST_PIXELS / count) ** 0.5
            shown = shown.resize((round(shown.width * scale), round(shown.height * scale)), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        if count <= _LOSSLESS:
            shown.save(buffer, "PNG", compress_level=1)
            return buffer.getvalue(), "image/png"
        shown.save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue(), "image/jpeg"

    def outline(self, image: ImageToMark, marks: ImageMarks, shape: int | None) -> np.ndarray | None:
        """Return the outline proposed within a shape or, if that is None, by the proposer: (H, W) bool, or None."""
        key = f"{image.id} {None if shape is None else marks.shapes[shape]['points']}"
        with self._proposing:
            if key not in self._outlines:
                self._outlines[key] = self._find_outline(image, marks, shape)
                while len(self._outlines) > _OUTLINES:
                    self._outlines.popitem(last=False)
            found = self._outlines[key]
        return None if found is None else np.unpackbits(found, axis=1, count=marks.mask.shape[1]).astype(bool)

    def _find_outline(self, image: ImageToMark, marks: ImageMarks, shape: int | None) -> np.ndarray | None:
        """Return a proposed outline, packed into bits."""
        if shape is not None:
            found = outline_shape(self.pixels(image), marks.shapes[shape])
        else:
            found = None if self.proposer is None else outline_map(self.proposer.propose(self.pixels(image)))
        return None if found is None else np.packbits(found, axis=1)

    def _draw_thumbnail(self, image: ImageToMark) -> bytes:
        """Return a WebP picture of at most ``THUMBNAIL`` pixels a side."""
        small = Image.fromarray(self._read(image))
        small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=2.0)
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=82, method=2)
        return buffer.getvalue()

    def _read(self, image: ImageToMark) -> np.ndarray:
        try:
            with allow_large_images():
                pixels = self._reader.decode(read_bytes(image.path))
        except UnreadableImageError as error:
            self.unreadable[image.id] = str(error)
            raise
        self.unreadable.pop(image.id, None)
        self._sizes[image.id] = (pixels.shape[0], pixels.shape[1])
        return pixels


def draw_marks(marks: ImageMarks) -> bytes:
    """Return the marks of an image as an SVG picture with its proportions, for its thumbnail."""
    height, width = marks.mask.shape
    inner = f'<path fill-rule="evenodd" d="{trace_mask(marks.mask, cells=THUMBNAIL)}"/>' + "".join(
        map(_draw, marks.shapes)
    )
    layers = "".join(
        f'<g {_STYLE} stroke="{colour}" stroke-width="{line}" stroke-opacity="{opacity}">{inner}</g>'
        for colour, opacity, line in (("#000", 0.6, 3.4), ("#ff2d78", 1, 1.6))
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return f"{head}{layers}</svg>".encode()


def _draw(shape: dict[str, Any]) -> str:
    """Return a shape as an SVG element."""
    points = [(float(x), float(y)) for x, y in shape["points"]]
    kind = shape.get("shape_type", "polygon")
    if kind in {"rectangle", "mask"} and len(points) == 2:
        (left, top), (right, bottom) = np.min(points, 0).tolist(), np.max(points, 0).tolist()
        return f'<rect x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}"/>'
    if kind == "circle" and len(points) == 2:
        (x, y), edge = points
        return f'<circle cx="{x:g}" cy="{y:g}" r="{np.hypot(edge[0] - x, edge[1] - y):g}"/>'
    if len(points) == 1:
        points = points * 2  # a line without length has round ends, a dot
    tag = "polyline" if kind in {"linestrip", "line", "point", "points"} else "polygon"
    text = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<{tag} stroke-linecap="round" points="{text}"/>'

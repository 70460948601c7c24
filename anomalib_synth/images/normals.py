"""The normal images of a run, and the one way in which they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anomalib_synth.images.digests import hash_bytes
from anomalib_synth.images.formats import MIN_SIDE, UnreadableImageError
from anomalib_synth.images.reading import decode_image, read_bytes
from anomalib_synth.images.white_point import WhitePoint

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from anomalib_synth.images.sizes import ImageSize


@dataclass(frozen=True, kw_only=True)
class Normal:
    """A readable normal image.

    Args:
        path: Its file.
        name: Its path relative to the normals folder, with forward slashes, as seeds and the manifest use it.
        content: Digest of the file's bytes.
    """

    path: Path
    name: str
    content: str


@dataclass(frozen=True)
class ImageReader:
    """How the images of a run are read.

    Args:
        image_size: Size they are resized to; None keeps their own.
        white_point: White point of files of more than 8 bits.
    """

    image_size: ImageSize | None = None
    white_point: WhitePoint = field(default_factory=WhitePoint)

    def decode(self, data: bytes) -> np.ndarray:
        """Return the image of a file's bytes, (H, W, 3) uint8.

        Raises:
            UnreadableImageError: If they are not an image, or one that is too small or too large.
        """
        levels = decode_image(data, image_size=self.image_size, white_point=self.white_point)
        if min(levels.shape[:2]) < MIN_SIDE:
            msg = f"the image is {levels.shape[1]} x {levels.shape[0]}, smaller than {MIN_SIDE} pixels a side"
            raise UnreadableImageError(msg)
        return levels

    def read_unchanged(self, normal: Normal) -> np.ndarray:
        """Read a normal again, (H, W, 3) uint8.

        Raises:
            ValueError: If the file has changed since the normals were listed.
        """
        try:
            data = read_bytes(normal.path)
            if hash_bytes(data) == normal.content:
                return self.decode(data)
            reason = "other content"
        except UnreadableImageError as error:
            reason = str(error)
        msg = (
            f"`normals` must not change while samples are drawn, but {str(normal.path)!r} did ({reason}). "
            "Put the file back and run the command again, or start a new store."
        )
        raise ValueError(msg)

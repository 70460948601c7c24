"""What a build knows about one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(kw_only=True)
class ImageFacts:
    """Facts about one image.

    Args:
        name: Its path within the folder.
        path: Its file.
        content: Digest of its 8-bit pixels; ``""`` if it cannot be read.
        size: Width and height in pixels.
        kind: Depth and colours, such as ``"8-bit RGB"``.
        difference: Why anomalib's reader would read other pixels, ``""`` if it would not.
        brightness: Mean level in [0, 1].
        unreadable: Why it cannot be read, ``""`` if it can.
        thumbnail: Small grey picture, (64, 64) float32 in [0, 1].
        odd: What is odd about it, in words.
    """

    name: str
    path: Path
    content: str = ""
    size: tuple[int, int] = (0, 0)
    kind: str = ""
    difference: str = ""
    brightness: float = 0.0
    unreadable: str = ""
    thumbnail: Any = None
    odd: str = ""

"""What was seen of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(kw_only=True)
class ImageFacts:
    """What one image is.

    Args:
        name: Its path within the folder.
        path: Its file.
        content: Digest of what it shows in 8 bits; ``""`` for one that cannot be read.
        size: Width and height.
        kind: Depth and colours, such as ``"8-bit RGB"``.
        difference: Why anomalib's reader would show it differently, ``""`` if it would not.
        brightness: Mean level in [0, 1].
        unreadable: Why it cannot be read, ``""`` if it can.
        thumbnail: Its small grey picture, levels in [0, 1].
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

"""The size that images are resized to: a long side, or height and width."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LARGEST = 10_000
_PAIR = re.compile(r"(\d+)\s*[xX]\s*(\d+)")


@dataclass(frozen=True)
class ImageSize:
    """A size in pixels.

    Args:
        long_side: Longer side; the aspect ratio is kept. 0 where height and width are given.
        height: Height, whatever the aspect ratio was.
        width: Width, whatever the aspect ratio was.
    """

    long_side: int = 0
    height: int = 0
    width: int = 0

    @classmethod
    def parse(cls, value: int | str | None, *, least: int = 16, argument: str = "image_size") -> ImageSize | None:
        """Read ``512``, ``"512"`` (a long side) or ``"384x512"`` (height x width); None stays None.

        Raises:
            ValueError: If it is none of them, or a side is shorter than ``least``.

        Example:
            >>> ImageSize.parse("384x512")
            ImageSize(long_side=0, height=384, width=512)
            >>> ImageSize.parse(512).of(1000, 2000)
            (256, 512)
        """
        if value is None:
            return None
        text = str(value).strip()
        pair = _PAIR.fullmatch(text)
        sides = [int(side) for side in pair.groups()] if pair else [int(text)] if text.isdecimal() else []
        if isinstance(value, bool) or not sides or min(sides) < least or max(sides) > _LARGEST:
            msg = (
                f"`{argument}` must be a long side in pixels, such as 512, or height x width, such as 384x512, with "
                f"sides >= {least} and <= {_LARGEST}, got {value!r}."
            )
            raise ValueError(msg)
        return cls(long_side=sides[0]) if len(sides) == 1 else cls(height=sides[0], width=sides[1])

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which an image of this height and width is resized."""
        if not self.long_side:
            return self.height, self.width
        scale = self.long_side / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

"""Run lengths, as COCO and CVAT write masks: numbers of pixels that are, by turns, outside and inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from anomalib_synth.defects.shapes import Bitmap, Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.defects.shapes import Bounds

_LOWEST, _HIGHEST = 48, 48 + 63  # the characters of a compressed run length: six bits from "0" on
_MORE, _SIGN, _BITS = 0x20, 0x10, 0x1F
_LONGEST = 8  # characters of one length: 40 bits, more than an image's number of pixels needs


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A mask by run lengths, decoded when it is drawn.

    Args:
        counts: Pixels outside, inside, outside, ...; their sum is ``height * width``.
        height: Rows of the mask.
        width: Columns of the mask.
        left: Column of the image that the mask begins at.
        top: Row of the image that the mask begins at.
        by_columns: Whether the runs go down the columns, as in COCO, and not along the rows, as in CVAT.
    """

    counts: np.ndarray
    height: int
    width: int
    left: int = 0
    top: int = 0
    by_columns: bool = True

    @property
    def bounds(self) -> Bounds:
        """See :class:`.shapes.Shape`."""
        return self.left, self.top, self.left + self.width, self.top + self.height

    def draw(self, height: int, width: int) -> Region:
        """See :class:`.shapes.Shape`."""
        flat = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        pixels = flat.reshape((self.height, self.width), order="F" if self.by_columns else "C")
        return Bitmap(self.left, self.top, pixels).draw(height, width)


def find_fault(counts: Sequence[int], height: int, width: int) -> str:
    """Return what is wrong with the run lengths of a mask of the given size, "" when nothing is."""
    if any(count < 0 for count in counts):
        return "has a negative run length"
    if sum(counts) != height * width:
        return f"has run lengths of {sum(counts)} pixels for a mask of {width} x {height}"
    return "" if any(counts[1::2]) else "marks no pixel"


def decompress(text: str) -> list[int]:
    """Return the run lengths of COCO's compressed form, of five bits a character.

    From the fourth length on the text holds the difference from the length two places before.

    Raises:
        ValueError: If the text ends within a number, or has other characters.

    Example:
        >>> decompress("52203")
        [5, 2, 2, 2, 5]
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - _LOWEST
        if not 0 <= bits <= _HIGHEST - _LOWEST or shift >= 5 * _LONGEST:
            msg = f"has the compressed run lengths {text[:20]!r}, which are damaged at {character!r}"
            raise ValueError(msg)
        value |= (bits & _BITS) << shift
        shift += 5
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        msg = f"has compressed run lengths that end in the middle of a number: {text[-20:]!r}"
        raise ValueError(msg)
    return counts

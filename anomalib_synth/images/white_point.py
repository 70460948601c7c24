"""The white point: which value is white in images of more than 8 bits.

A 16-bit file says little about it, as cameras put 10, 12 or 14 bits into one. A whole folder has one white point, so
that equal values mean equal brightness. It is what the files state: the largest sample or the bits of a TIFF, the
maximum of a PGM. Where they do not all state it, it is that of the lowest usual bit depth that holds the brightest
image, measured by its 99.9 % quantile so that hot pixels do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_synth.images.formats import UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_DEPTHS = (8, 10, 12, 14, 16)
_FLOAT_WHITES = (1.0, *(2.0**depth - 1 for depth in _DEPTHS))
_LARGEST = 2**16 - 1
_QUANTILE = 0.999
_ENOUGH = 2**21  # pixels, for the quantile
_ROUNDING = 1e-3
_OVERSHOOT = 1.25  # what sharpening and resizing may add to floating-point white
_LEAST_OF_255 = 16  # floating-point images brighter than 1 but darker than this have no known white


@dataclass(frozen=True)
class Brightness:
    """How bright one image of more than 8 bits is.

    Args:
        floating: Whether its values are floating-point numbers.
        brightest: The 99.9 % quantile of its values.
        stated: White as the file states it, None if it states none.
    """

    floating: bool
    brightest: float
    stated: float | None = None


@dataclass(frozen=True)
class WhitePoint:
    """The value of white for files of more than 8 bits; None where a folder has no such file.

    Args:
        integer: White of 16- and 32-bit integers, in 255..65535.
        floating: White of floating-point numbers.
    """

    integer: int | None = None
    floating: float | None = None

    @classmethod
    def of_bit_depth(cls, bit_depth: int) -> WhitePoint:
        """Return the white point of a bit depth, for integers and for floating-point numbers on the same scale.

        Raises:
            ValueError: If the depth is not in 8..16.
        """
        if isinstance(bit_depth, bool) or not isinstance(bit_depth, int) or not 8 <= bit_depth <= 16:
            msg = f"`bit_depth` must be in 8..16, got {bit_depth!r}. The camera's manual states it."
            raise ValueError(msg)
        return cls(2**bit_depth - 1, float(2**bit_depth - 1))

    @classmethod
    def of_value(cls, value: float, argument: str = "white_point") -> WhitePoint:
        """Return the white point at a value, such as 4095 for a 12-bit camera.

        A value below 255 is the white point of floating-point numbers alone.

        Raises:
            ValueError: If the value is not in 1..65535.
        """
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 1 <= value <= _LARGEST:
            msg = (
                f"`{argument}` must be the value of white in 1..{_LARGEST}, such as 4095 for 12 bits or 1 for "
                f"floating-point images, got {value!r}."
            )
            raise ValueError(msg)
        return cls(int(value) if value >= _FLOAT_WHITES[1] else None, float(value))

    @classmethod
    def of_host(cls, *, is_grey: bool) -> WhitePoint:
        """Return the white by which anomalib shows a file of more than 8 bits: it clips grey, and colour at 16 bits."""
        return cls(2**8 - 1, _FLOAT_WHITES[1]) if is_grey else cls(_LARGEST)

    @classmethod
    def find(cls, images: Iterable[Brightness | None]) -> WhitePoint:
        """Return the white point of a folder's images; None stands for an 8-bit image."""
        deep = [image for image in images if image is not None]
        integer = _least_white([image for image in deep if not image.floating], list(_FLOAT_WHITES[1:]))
        floating = _least_white([image for image in deep if image.floating], list(_FLOAT_WHITES))
        return cls(None if integer is None else int(integer), floating)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WhitePoint:
        """Return the white point that :meth:`to_dict` wrote.

        Raises:
            ValueError: If the values are not of that form.
        """
        kinds = {"integer": int, "floating": float}
        if not isinstance(values, dict) or not set(values) <= set(kinds):
            raise ValueError(_describe(values))
        for name, kind in kinds.items():
            value = values.get(name)
            if value is not None and not (type(value) in {kind, int} and 1 <= value <= _LARGEST):
                raise ValueError(_describe(values))
        return cls(**values)

    @property
    def value(self) -> float | None:
        """White as one number: that of integers, else that of floating-point numbers, None where there is neither."""
        return self.floating if self.integer is None else self.integer

    @property
    def bit_depth(self) -> int | None:
        """Bit depth that integers have this white of, None if they have none or it is that of no depth."""
        depth = 0 if self.integer is None else (self.integer + 1).bit_length() - 1
        return depth if self.integer == 2**depth - 1 and depth else None

    def completed(self, other: WhitePoint) -> WhitePoint:
        """Return it with the white of another one for the kinds of values that it has none for."""
        return WhitePoint(
            other.integer if self.integer is None else self.integer,
            other.floating if self.floating is None else self.floating,
        )

    def only(self, other: WhitePoint) -> WhitePoint:
        """Return this white point for the kinds of values alone, integer or floating-point, that the other one has."""
        integer = None if other.integer is None else self.integer
        return WhitePoint(integer, None if other.floating is None else self.floating)

    def check_same(self, others: Iterable[tuple[str, WhitePoint]], argument: str) -> None:
        """Refuse to mix images that were read with different white points: brightness would tell them apart.

        Args:
            others: Name and white point of each of the others; one without a white point fits all.
            argument: Name of the argument that brings them, for the error.

        Raises:
            ValueError: If one differs; the message names the first.
        """
        for name, other in others:
            pairs = ((self.integer, other.integer), (self.floating, other.floating))
            if differing := next((pair for pair in pairs if None not in pair and pair[0] != pair[1]), None):
                msg = (
                    f"`{argument}` must show images with the white point of the run, {differing[0]:g}, but {name} has "
                    f"{differing[1]:g}, so brightness would tell them apart. Give {name} `white_point: "
                    f"{differing[0]:g}` (make a store again with that bit depth), or give the run the other one."
                )
                raise ValueError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"integer": self.integer, "floating": self.floating}

    def to_levels(self, samples: np.ndarray) -> np.ndarray:
        """Return samples of more than 8 bits as uint8 levels of the same shape; what is brighter than white is 255.

        Integers keep their high bits, as in decoders that return 8 bits of 16.

        Raises:
            UnreadableImageError: If white is not known for such samples.
        """
        if samples.dtype.kind == "f":
            return self._float_levels(samples)
        if self.integer is None:
            msg = "integers of more than 8 bits whose white is not known; give `bit_depth`"
            raise UnreadableImageError(msg)
        values = np.minimum(samples, self.integer).astype(np.uint32)
        return (values * 256 // (self.integer + 1)).astype(np.uint8)

    def _float_levels(self, samples: np.ndarray) -> np.ndarray:
        if self.floating is None or samples.max() > _LARGEST * _OVERSHOOT:
            msg = (
                "floating-point values whose white is not known; give `bit_depth`, or convert the image to 8 or 16 bits"
            )
            raise UnreadableImageError(msg)
        return (np.clip(samples / self.floating, 0, 1) * 255).round().astype(np.uint8)

    def __str__(self) -> str:
        """Return it in words, ``""`` if there is none."""
        parts = []
        if self.integer is not None:
            parts.append(f"{self.integer} ({(self.integer + 1).bit_length() - 1} bits)")
        if self.floating is not None:
            parts.append(f"{self.floating:g} for floating-point numbers")
        return " and ".join(parts)


def measure_brightness(samples: np.ndarray, stated: float | None) -> Brightness:
    """Measure an image of more than 8 bits: integers or floating-point numbers, any shape.

    Raises:
        UnreadableImageError: If no white makes sense of its values; so it says nothing of the folder's either.
    """
    if samples.dtype.kind == "f":
        if not (np.isfinite(samples).all() and samples.min() >= -_ROUNDING):
            msg = "floating-point values that are negative or no numbers; convert the image to 8 or 16 bits"
            raise UnreadableImageError(msg)
    elif samples.min() < 0 or samples.max() > _LARGEST:
        msg = "integers below 0 or above 65535 have no known white; convert the image to 8 or 16 bits"
        raise UnreadableImageError(msg)
    values = samples.reshape(-1)
    values = values[:: max(1, values.size // _ENOUGH)]
    brightest = float(np.quantile(values, _QUANTILE, method="higher"))
    return Brightness(samples.dtype.kind == "f", brightest, stated)


def _least_white(images: list[Brightness], whites: list[float]) -> float | None:
    """Return the least of the whites that holds the brightest image; None if there is none."""
    if not images:
        return None
    stated = [image.stated for image in images if image.stated and image.brightest <= image.stated]
    if len(stated) == len(images):
        return max(stated)
    overshoot = _OVERSHOOT if images[0].floating else 1.0
    known = [image.brightest for image in images if image.brightest <= whites[-1] * overshoot]
    white = next((white for white in whites if max(known) <= white * overshoot), None) if known else None
    return None if white and whites[0] == 1 < white and max(known) < _LEAST_OF_255 else white


def _describe(values: object) -> str:
    return (
        "The white point of a store's settings must have `integer` and `floating`, numbers in 1..65535 or null, got "
        f"{values!r}. Restore store.json from a copy."
    )

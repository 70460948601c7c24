"""What a family of rule-based defects is: it draws parameters, renders them, and makes a caption from them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from anomalib_synth.functional.layers import Layer, Window

if TYPE_CHECKING:
    import torch

    from anomalib_synth.generators.families.palette import Palette
    from anomalib_synth.generators.seeding import RandomStream

    Draw = Callable[[RandomStream, "Frame"], "Params"]
    Render = Callable[[Window, dict[str, torch.Tensor]], Layer]
    Caption = Callable[["Params"], str]

Params = dict[str, float]
_LEAST_HUE = 0.7
_HUES = re.compile(r"\b(bluish|red|orange|yellow|green|blue|purple|magenta|cyan|pink|brown|rusty)(dish|ish|nish)? ")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The image a defect is drawn for.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        size: Smallest and largest linear size of a defect, as a share of the shorter side.
        palette: The product's colours; None where a defect may have any.
    """

    height: int
    width: int
    size: tuple[float, float]
    palette: Palette | None = None

    @property
    def side(self) -> int:
        """The shorter side in pixels."""
        return min(self.height, self.width)

    def draw_size(self, rng: RandomStream, low: float = 0.0, high: float = 1.0) -> float:
        """Draw a linear size in pixels (>= 2), log-uniform in a part of the size range.

        Args:
            rng: The random stream.
            low: Where that part begins, on a logarithmic scale from 0, the smallest size, to 1, the largest.
            high: Where it ends, on the same scale.
        """
        smallest, largest = self.size
        ratio = largest / smallest
        return max(2.0, self.side * rng.log_uniform(smallest * ratio**low, smallest * ratio**high))

    def draw_length(self, rng: RandomStream, low: float = 0.0, *, longer: float = 3.0) -> float:
        """Draw the length in pixels (>= 4) of a thin defect: ``longer`` times a size, at most as long as the image."""
        return max(4.0, min(longer * self.draw_size(rng, low), float(max(self.height, self.width))))


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of rule-based defects.

    Args:
        name: Name in the registry.
        source: The paper it comes from, or what it looks like on the line.
        draw: ``(rng, frame) -> params``, all plain floats. It must set ``extent_x`` and ``extent_y``, the full width
            and height of the defect's window in pixels, and whatever ``render`` and ``caption`` need.
        render: ``(window, params) -> layer``, where each parameter is a tensor (N, 1, 1, 1).
        caption: ``params -> phrase`` without the contrast, such as "a thin dark scratch".
        physical: True for defects a line engineer names, False for the literature's augmentations.
        needs: What the window must hold: ``"donor"``, ``"texture"``, ``"background"`` (its own colour beside the part)
            or None.
        donor_place: Where in the donor a patch is taken from: the ``"same"`` place or ``"any"``.
        place: ``"inside"``: the defect lies on the part and is cut off at its edge. ``"edge"``: it is centred on the
            part's edge, and may break it.
        regional: True for faint changes of a large region, False for defects with an outline. Models that draw a text
            into an outline learn only the physical families that have one.
    """

    name: str
    source: str
    draw: Draw
    render: Render
    caption: Caption
    physical: bool
    needs: Literal["donor", "texture", "background"] | None = None
    donor_place: Literal["same", "any"] = "any"
    place: Literal["inside", "edge"] = "inside"
    regional: bool = False

    def describe(self, params: Params) -> str:
        """Return the caption, without words for hues if the product's palette left little of the hue (``hue``)."""
        text = self.caption(params)
        return drop_colours(text) if params.get("hue", 1.0) < _LEAST_HUE else text


def size_word(value: float, small: float, large: float, words: tuple[str, str, str]) -> str:
    """Return the first word for a value below ``small``, the last above ``large``, and the middle one in between."""
    return words[0] if value < small else words[2] if value > large else words[1]


def contrast_word(strength: float) -> str:
    """Return the words of a caption for a strength in (0, 1]."""
    return "low contrast" if strength < 0.45 else "high contrast" if strength > 0.75 else "medium contrast"


def phrase(*words: str) -> str:
    """Join words to a phrase with its article, dropping empty ones.

    Example:
        >>> phrase("irregular", "", "stain")
        'an irregular stain'
    """
    text = " ".join(word for word in words if word)
    return ("an " if text[0] in "aeiou" else "a ") + text


def drop_colours(caption: str) -> str:
    """Take the words for hues out of a caption, for images without colour.

    Example:
        >>> drop_colours("an irregular reddish stain with a brown halo")
        'an irregular stain with a halo'
    """
    return _HUES.sub("", caption)

"""The colours of a product, and which colours its defects may have."""

from __future__ import annotations

from dataclasses import dataclass

import torch

MARGIN = 0.05
_MANY = 0.12  # a product whose colours reach farther may be printed in several inks
_SHARE = 0.98
_SAMPLES = 32


@dataclass(frozen=True, kw_only=True)
class Palette:
    """The colours of a product without their luminance (Rec. 601), and how far a defect's colour may be from them.

    A colour that no normal comes near, such as blue on asphalt, looks painted on. So a defect's colour keeps its
    luminance, but its distance to the line from grey to the product's typical colour is limited to what the product's
    own pixels reach, plus a margin.

    Args:
        red: Median of red minus luminance over the product's pixels.
        blue: Median of blue minus luminance.
        reach: Largest distance of a defect's colour to the line from grey to that median, in image units.
    """

    red: float
    blue: float
    reach: float

    @property
    def has_inks(self) -> bool:
        """Whether the product's colours differ enough for a print in several inks."""
        return self.reach > _MANY

    def limit(self, rgb: tuple[float, float, float]) -> tuple[tuple[float, float, float], float]:
        """Return the nearest allowed colour of the same luminance, and the share of the hue that it keeps.

        Args:
            rgb: Red, green and blue in [0, 1].
        """
        grey = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
        red, blue = rgb[0] - grey, rgb[2] - grey
        square = self.red**2 + self.blue**2
        along = min(1.0, max(0.0, (red * self.red + blue * self.blue) / square)) if square > 0 else 0.0
        near_red, near_blue = along * self.red, along * self.blue
        away = ((red - near_red) ** 2 + (blue - near_blue) ** 2) ** 0.5
        if away <= self.reach:
            return rgb, 1.0
        kept = self.reach / away
        red, blue = near_red + kept * (red - near_red), near_blue + kept * (blue - near_blue)
        green = -(0.299 * red + 0.114 * blue) / 0.587
        return (_clip(grey + red), _clip(grey + green), _clip(grey + blue)), kept


def measure_palette(grids: torch.Tensor) -> Palette | None:
    """Measure the palette of one product on (N, C, h, w) in [0, 1], a few thousand pixels; None for one channel."""
    if grids.shape[1] == 1:
        return None
    red, green, blue = (plane.flatten().double() for plane in grids.unbind(1))
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    red, blue = red - grey, blue - grey
    middle = [float(values.sort().values[len(values) // 2]) for values in (red, blue)]
    square = middle[0] ** 2 + middle[1] ** 2
    along = ((red * middle[0] + blue * middle[1]) / square).clamp(0, 1) if square > 0 else torch.zeros_like(red)
    away = ((red - along * middle[0]) ** 2 + (blue - along * middle[1]) ** 2).sqrt().sort().values
    return Palette(red=middle[0], blue=middle[1], reach=float(away[int(_SHARE * (len(away) - 1))]) + MARGIN)


def measure_palettes(images: torch.Tensor) -> list[Palette | None]:
    """Measure the palette of each image of (B, C, H, W) by itself, on about 32 x 32 of its pixels."""
    step = max(1, min(images.shape[-2:]) // _SAMPLES)
    return [measure_palette(image[None, :, ::step, ::step].cpu()) for image in images]


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))

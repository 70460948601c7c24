"""Tones and colours of pasted patches and foreign textures, by kornia's enhancements with our parameters.

A texture is an image of indices into a palette, so kornia only computes the 256 colours of the palette. An image costs
one look-up, whatever the number of steps, and a power has the same bits at every image size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from kornia.color import rgb_to_yuv, yuv_to_rgb
from kornia.enhance import adjust_brightness, adjust_contrast, adjust_gamma, equalize, posterize, solarize

Step = Callable[[torch.Tensor], torch.Tensor]  # from colours (1, 3, 1, K) in [0, 1] to others


def jitter(
    image: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor, chroma: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Jitter contrast, brightness and, where there is colour, saturation and hue, in the planes of YUV.

    Args:
        image: (N, C, h, w) in [0, 1].
        gain: (N, 1, 1, 1) factor of contrast.
        offset: (N, 1, 1, 1) brightness to add, in image units.
        chroma: Two (N, 1, 1, 1): the saturation factor times the cosine, and times the sine, of the angle by which hues
            turn.

    Returns:
        (N, C, h, w); values may leave [0, 1].
    """
    if image.shape[1] != 3:
        return adjust_brightness(adjust_contrast(image, gain, clip_output=False), offset, clip_output=False)
    if image.device.type != "cpu" and len(image) > 1:  # here kornia convolves, which may depend on the batch size
        knobs = zip(image, gain, offset, *chroma, strict=True)
        return torch.cat([jitter(i[None], g[None], o[None], (a[None], b[None])) for i, g, o, a, b in knobs])
    luminance, u, v = rgb_to_yuv(image).split(1, dim=1)
    along, across = gain * chroma[0], gain * chroma[1]
    planes = [luminance * gain + offset, along * u - across * v, across * u + along * v]
    return yuv_to_rgb(torch.cat(planes, dim=1))


def jitter_palette(palette: torch.Tensor, steps: list[Step]) -> torch.Tensor:
    """Apply steps in turn to the colours of a palette (3, K); values stay in [0, 1]."""
    colours = palette[None, :, None]
    for step in steps:
        colours = step(colours)
    return colours[0, :, 0]


def look_up(palette: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Look up an image of indices (h, w) in a palette (C, K) and return the colours (C, h, w)."""
    places = index.flatten().int()
    return torch.stack([colours.index_select(0, places) for colours in palette]).view(len(palette), *index.shape)


def equalise_palette(palette: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the palette (3, K) that equalises the histogram of each channel of an image of indices (h, w)."""
    equalised = equalize(look_up(palette, index)[None])[0]
    result = palette.clone()
    result[:, index.flatten().long()] = equalised.flatten(1)
    return result


def change_gamma(gamma: list[float]) -> Step:
    """Return a step that raises each channel to a power of its own."""
    return partial(adjust_gamma, gamma=torch.tensor([gamma]))


def change_brightness(gain: float, offset: float) -> Step:
    """Return a step that multiplies by ``gain`` and adds ``offset`` in image units."""
    return lambda colours: adjust_brightness(adjust_contrast(colours, gain), offset)


def change_chroma(saturation: float, hue: float) -> Step:
    """Return a step that multiplies saturation and turns hues by an angle in radians."""
    chroma = torch.tensor(saturation * math.cos(hue)), torch.tensor(saturation * math.sin(hue))
    return lambda colours: jitter(colours, torch.tensor(1.0), torch.tensor(0.0), chroma).clamp_(0, 1)


def change_solarisation(threshold: float) -> Step:
    """Return a step that inverts values above a threshold in [0, 1]."""
    return partial(solarize, thresholds=threshold)


def change_depth(bits: int) -> Step:
    """Return a step that keeps the ``bits`` highest of eight bits."""
    return partial(posterize, bits=bits)

"""Tones and colours: against formulas of their own, and the same whatever the batch."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from anomalib_synth.functional.colour import take_colour_out
from anomalib_synth.functional.enhancement import (
    change_brightness,
    change_chroma,
    change_depth,
    change_gamma,
    change_solarisation,
    equalise_palette,
    jitter,
    jitter_palette,
    look_up,
)

RAMP = (torch.arange(256) / 255).expand(3, -1)


def factors(*values: float) -> list[torch.Tensor]:
    return [torch.full((1, 1, 1, 1), value) for value in values]


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_contrast_and_brightness_when_colours_stay(channels: int) -> None:
    image = torch.rand(2, channels, 9, 7)
    gain, offset, along, across = factors(1.1, -0.05, 1.0, 0.0)
    torch.testing.assert_close(jitter(image, gain, offset, (along, across)), 1.1 * image - 0.05, atol=2e-3, rtol=0)


def test_jitter_keeps_luminance_and_turns_the_hue_when_only_chroma_changes() -> None:
    image = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1)
    gain, offset, along, across = factors(1.0, 0.0, -1.0, 0.0)  # half a turn
    turned = jitter(image, gain, offset, (along, across)).flatten()
    assert float(turned @ torch.tensor([0.299, 0.587, 0.114])) == pytest.approx(0.4598, abs=1e-3)
    hue = colorsys.rgb_to_hsv(*turned.tolist())[0]
    assert abs(hue - 0.5) < 0.05  # red became cyan
    grey = torch.full((1, 3, 2, 2), 0.3)
    torch.testing.assert_close(jitter(grey, gain, offset, (along, across)), grey, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (17, 23), (33, 1)])
def test_jitter_has_the_same_bits_when_the_batch_is_another(size: tuple[int, int]) -> None:
    image = torch.rand(5, 3, *size)
    knobs = [torch.rand(5, 1, 1, 1) + 0.5 for _ in range(4)]
    whole = jitter(image, knobs[0], knobs[1], (knobs[2], knobs[3]))
    for n in range(5):
        one = [knob[n : n + 1] for knob in knobs]
        assert torch.equal(jitter(image[n : n + 1], one[0], one[1], (one[2], one[3])), whole[n : n + 1])


def test_palette_follows_each_step_when_they_are_taken_one_by_one() -> None:
    x = RAMP[0].numpy()

    def taken(step) -> np.ndarray:
        return jitter_palette(RAMP, [step]).numpy()

    for row, gamma in zip(taken(change_gamma([0.5, 1.0, 2.0])), (0.5, 1.0, 2.0), strict=True):
        np.testing.assert_allclose(row, x**gamma, atol=1e-5)
    np.testing.assert_allclose(
        taken(change_brightness(1.2, 0.1))[1], np.clip(np.clip(1.2 * x, 0, 1) + 0.1, 0, 1), atol=1e-5
    )
    np.testing.assert_allclose(taken(change_solarisation(0.3))[0], np.where(x < 0.3, x, 1 - x), atol=1e-5)
    assert len(np.unique(taken(change_depth(3))[2])) == 8
    np.testing.assert_allclose(taken(change_chroma(1.5, 2.0))[0], x, atol=2e-3)  # a grey has no hue


def test_look_up_shows_the_colours_of_the_indices() -> None:
    index = torch.randint(0, 256, (5, 7), dtype=torch.uint8)
    palette = torch.rand(3, 256)
    assert torch.equal(look_up(palette, index), palette[:, index.long()])


def test_equalised_palette_uses_the_whole_range_when_the_texture_does_not() -> None:
    index = torch.randint(100, 140, (64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = look_up(equalise_palette(RAMP, index), index)
    assert float(shown.min()) < 0.05
    assert float(shown.max()) > 0.95
    assert (shown[0].flatten().diff().sign() * index.flatten().float().diff().sign() >= 0).all()


def test_colour_goes_by_luminance_when_it_is_taken_out() -> None:
    window = torch.tensor([0.2, 0.6, 1.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    grey = take_colour_out(window, [True, False])
    torch.testing.assert_close(grey[0], torch.full((3, 2, 2), 0.299 * 0.2 + 0.587 * 0.6 + 0.114))
    assert torch.equal(grey[1], window[1])

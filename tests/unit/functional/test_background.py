"""The colour behind the part, as a window shows it."""

from __future__ import annotations

import torch

from anomalib_synth.functional.background import colour_beside, mean_colour

TYPICAL = torch.tensor([0.8, 0.7, 0.6]).view(1, 3, 1, 1)


def windows(beside: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two windows (2, 3, 16, 16), grey parts (.2) on the right of something of one brightness; where the part is."""
    part = torch.zeros(2, 1, 16, 16)
    part[..., 8:] = 1
    return torch.where(part > 0, torch.tensor(0.2), torch.tensor(beside)).expand(2, 3, 16, 16), part


def test_mean_colour_is_that_of_the_mask_and_black_without_one() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, :, 2:5, 3:7] = 1
    mean = mean_colour(images, mask)
    torch.testing.assert_close(mean[0, :, 0, 0], images[0, :, 2:5, 3:7].mean((1, 2)), atol=1e-5, rtol=0)
    assert float(mean[1].abs().max()) == 0
    torch.testing.assert_close(mean_colour(images)[:, :, 0, 0], images.mean((2, 3)), atol=1e-5, rtol=0)


def test_background_is_as_the_window_shows_it() -> None:
    images, part = windows(beside=0.9)
    colour = colour_beside(images, part, 1 - part, TYPICAL)
    torch.testing.assert_close(colour, torch.full((2, 3, 1, 1), 0.9), atol=1e-5, rtol=0)


def test_background_is_typical_when_what_is_beside_looks_more_like_the_part() -> None:
    images, part = windows(beside=0.3)
    assert torch.equal(colour_beside(images, part, 1 - part, TYPICAL), TYPICAL.expand(2, -1, -1, -1))


def test_background_is_typical_when_too_few_pixels_show_it() -> None:
    images, part = windows(beside=0.9)
    beside = torch.zeros_like(part)
    beside[0, :, :5, :3] = 1
    beside[1, :, :4, :4] = 1
    colour = colour_beside(images, part, beside, TYPICAL)
    assert torch.equal(colour[0], TYPICAL[0])
    assert float(colour[1].mean()) > 0.85

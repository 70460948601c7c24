"""Which images have no colour, and how it is taken out."""

from __future__ import annotations

import torch

from anomalib_synth.functional.colour import find_grey, smooth_tint, take_colour_out


def test_image_is_grey_when_its_channels_differ_by_one_level_at_most() -> None:
    images = torch.full((4, 3, 24, 24), 0.5)
    images[1, 0, 8, 16] += 0.999 / 255
    images[2, 2, 16, 8] += 2 / 255
    images[3, 0, 9, 9] += 0.5  # none of the pixels that are looked at
    assert find_grey(images) == [True, True, False, True]
    assert find_grey(torch.rand(2, 1, 16, 16)) == [True, True]


def test_windows_turn_grey_where_the_image_is_grey() -> None:
    target = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    taken = take_colour_out(target, [True, False])
    red, green, blue = target[0]
    torch.testing.assert_close(taken[0], (0.299 * red + 0.587 * green + 0.114 * blue).expand(3, -1, -1))
    assert torch.equal(taken[1], target[1])
    plain = target[:, :1]
    assert take_colour_out(plain, [True, True]) is plain


def test_colour_is_averaged_within_a_mask_and_brightness_stays() -> None:
    images = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(1))
    inside = torch.zeros(2, 1, 20, 24)
    inside[:, :, 4:15, 5:20] = 1
    where = inside.expand_as(images) > 0
    smooth = smooth_tint(images, inside, radius=30)  # one average over the whole mask
    assert torch.equal(smooth[~where], images[~where])
    torch.testing.assert_close(smooth.mean(1), images.mean(1))
    tint, wanted = ((each - each.mean(1, keepdim=True))[:, :, 4:15, 5:20] for each in (smooth, images))
    torch.testing.assert_close(tint, wanted.mean((2, 3), keepdim=True).expand_as(tint), atol=1e-3, rtol=0)


def test_colour_beside_the_mask_has_no_part_in_the_average() -> None:
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    inside = torch.zeros(1, 1, 16, 16)
    inside[..., 4:12, 4:12] = 1
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    one, other = (smooth_tint(torch.where(inside > 0, images, each), inside, radius=3) for each in (red, 1 - red))
    where = inside.expand_as(images) > 0
    assert torch.equal(one[where], other[where])
    assert not torch.equal(one[where], images[where])
    assert torch.equal(smooth_tint(images[:, :1], inside, radius=3), images[:, :1])

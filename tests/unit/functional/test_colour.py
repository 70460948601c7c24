"""Which images have no colour, and how it is taken out."""

from __future__ import annotations

import torch

from anomalib_synth.functional.colour import find_grey, take_colour_out


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

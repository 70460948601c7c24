"""Warps: against an independent implementation, and the same whatever the batch."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage

from anomalib_synth.functional.warping import ELASTIC_FIELDS, displace, elastic_field, shift_planes, turn


def test_displace_agrees_with_scipy_when_moved_by_fractions() -> None:
    rng = np.random.default_rng(0)
    image, dx, dy = rng.random((1, 2, 24, 31)), rng.uniform(-4, 4, (24, 31)), rng.uniform(-4, 4, (24, 31))
    rows, columns = np.mgrid[:24, :31]
    expected = [
        ndimage.map_coordinates(plane, [rows + dy, columns + dx], order=1, mode="nearest") for plane in image[0]
    ]
    moved = displace(*(torch.from_numpy(part).float() for part in (image, dx[None, None], dy[None, None])))
    np.testing.assert_allclose(moved[0].numpy(), expected, atol=1e-5)


def test_turn_shows_the_content_turned_when_the_window_is_square() -> None:
    image = torch.zeros(1, 1, 33, 33)
    image[..., 16, 16:30] = 1.0  # from the centre to the right
    quarter = turn(image, torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(quarter, torch.rot90(image, -1, (2, 3)), atol=1e-5, rtol=0)  # y points down
    angle = math.radians(30)
    tilted = turn(image, torch.full((1, 1, 1, 1), math.cos(angle)), torch.full((1, 1, 1, 1), math.sin(angle)))
    y, x = divmod(int(tilted[0, 0, 20:].argmax()), 33)
    assert math.degrees(math.atan2(y + 4, x - 16)) - 30 < 8


def test_warps_have_the_same_bits_when_the_batch_is_another() -> None:
    image = torch.rand(4, 3, 24, 40)
    cos, sin = torch.rand(4, 1, 1, 1), torch.rand(4, 1, 1, 1)
    dx, dy = torch.rand(4, 1, 24, 40), torch.rand(4, 1, 24, 40)
    which = torch.tensor([0.0, 3.0, 7.0, 15.0]).view(-1, 1, 1, 1)
    turned, moved, field = turn(image, cos, sin), displace(image, dx, dy), elastic_field(which, dx, dy)
    for n in range(4):
        row = slice(n, n + 1)
        assert torch.equal(turn(image[row], cos[row], sin[row]), turned[row])
        assert torch.equal(displace(image[row], dx[row], dy[row]), moved[row])
        assert torch.equal(elastic_field(which[row], dx[row], dy[row]), field[row])


def test_elastic_fields_are_smooth_differ_and_reach_one() -> None:
    place = torch.linspace(-1, 1, 96)
    which = torch.arange(ELASTIC_FIELDS).view(-1, 1, 1, 1)
    x, y = (part.expand(ELASTIC_FIELDS, 1, 96, 96) for part in (place.view(1, -1), place.view(-1, 1)))
    fields = elastic_field(which, x, y)
    assert fields.shape == (ELASTIC_FIELDS, 2, 96, 96)
    torch.testing.assert_close(fields.abs().amax((2, 3)), torch.ones(ELASTIC_FIELDS, 2), atol=1e-2, rtol=0)
    assert float(fields.diff(dim=-1).abs().max()) < 0.35
    assert len({field.numpy().tobytes() for field in fields}) == ELASTIC_FIELDS


def test_displace_and_shift_planes_agree_when_moved_by_whole_pixels() -> None:
    image = torch.rand(1, 3, 9, 11)
    two, one = torch.full((1, 1, 9, 11), 2.0), torch.full((1, 1, 9, 11), -1.0)
    moved = shift_planes(image, two[:, :, :1, :1].expand(1, 3, 1, 1), one[:, :, :1, :1].expand(1, 3, 1, 1))
    torch.testing.assert_close(displace(image, two, one), moved, atol=1e-5, rtol=0)
    assert torch.equal(moved[..., 3, 2], image[..., 2, 4])

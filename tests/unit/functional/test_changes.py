"""Where an edit changed a window: thresholds, sizes and holes, worked by hand."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.functional.changes import fade_border, find_change

NULL = (torch.arange(100.0) / 1000).view(10, 10)  # its 91st level is 0.09, its 100th 0.099


def draw(*regions: tuple[slice, slice, float]) -> torch.Tensor:
    change = torch.zeros(3, 10, 10)
    for rows, columns, level in regions:
        change[1, rows, columns] = -level  # of one channel, and down
    return change


def find(change: torch.Tensor, null: torch.Tensor = NULL) -> tuple[torch.Tensor, float]:
    mask, low = find_change(change, null.expand(3, -1, -1), radius=0)
    assert mask.shape == (1, 1, 10, 10)
    return mask[0, 0], low


def test_part_is_kept_when_it_is_large_and_somewhere_strong() -> None:
    large = (slice(0, 3), slice(0, 4), 0.1)
    strong = (slice(0, 1), slice(0, 1), 0.13)  # more than 1.25 times 0.099
    weak = (slice(6, 10), slice(0, 4), 0.12)
    small = (slice(0, 5), slice(8, 10), 0.2), (slice(5, 6), slice(8, 9), 0.2)  # 11 pixels
    mask, low = find(draw(large, strong, weak, *small))
    assert low == pytest.approx(0.09)
    expected = torch.zeros(10, 10, dtype=torch.bool)
    expected[0:3, 0:4] = True
    assert torch.equal(mask, expected)


def test_pixels_at_the_lower_threshold_are_left_out() -> None:
    mask, _ = find(draw((slice(0, 4), slice(0, 4), 0.2), (slice(4, 6), slice(0, 4), float(NULL[9, 0]))))
    assert int(mask.sum()) == 16


@pytest.mark.parametrize(("level", "count"), [(0.0099, 16), (0.0097, 0)])
def test_thresholds_are_two_grey_levels_when_the_null_edit_changes_nothing(level, count) -> None:
    mask, low = find(draw((slice(0, 4), slice(0, 4), level)), torch.zeros(10, 10))  # 2.5 / 255 is 0.0098
    assert low == pytest.approx(2 / 255)
    assert int(mask.sum()) == count


def test_holes_and_gaps_are_closed() -> None:
    ring = draw((slice(1, 6), slice(1, 6), 0.2))
    ring[:, 2:5, 2:5] = 0
    mask, _ = find(ring)
    assert bool(mask[1:6, 1:6].all())
    gap = draw((slice(3, 7), slice(2, 5), 0.2), (slice(3, 7), slice(6, 9), 0.2))
    assert bool(find(gap)[0][4:6, 2:9].all())


def test_parts_count_as_one_when_they_meet_at_a_corner() -> None:
    mask, _ = find(draw((slice(1, 4), slice(1, 3), 0.2), (slice(4, 7), slice(3, 5), 0.2)))  # six pixels and six
    assert bool(mask[1:4, 1:3].all())
    assert bool(mask[4:7, 3:5].all())


def test_quantiles_are_of_the_null_edit() -> None:
    change = draw((slice(0, 4), slice(0, 4), 0.06))
    found, low = find_change(change, NULL.expand(3, -1, -1), quantiles=(0.2, 0.4), radius=0)
    assert low == pytest.approx(0.02)
    assert int(found.sum()) == 16
    assert not find_change(change, NULL.expand(3, -1, -1), quantiles=(0.2, 1.0), radius=0)[0].any()


@pytest.mark.parametrize("place", range(4))
def test_weight_falls_towards_each_side_where_the_image_goes_on(place) -> None:
    ramp = torch.tensor([0.125, 0.375, 0.625, 0.875, 1, 1, 1, 1])
    weight = fade_border(8, tuple(side == place for side in range(4)), width=4)
    expected = [ramp[:, None], ramp.flip(0)[:, None], ramp[None], ramp.flip(0)[None]][place].expand(8, 8)
    assert torch.equal(weight, expected[None])


def test_weights_of_all_sides_are_multiplied() -> None:
    weight = fade_border(12, (True, True, True, True))
    assert float(weight[0, 0, 0]) == pytest.approx((0.5 / 6) ** 2)
    assert float(weight[0, 1, 8]) == pytest.approx((1.5 / 6) * (3.5 / 6))
    assert torch.equal(fade_border(5, (False,) * 4), torch.ones(1, 5, 5))

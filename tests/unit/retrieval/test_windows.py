"""Where windows are cut, and how large they are."""

from __future__ import annotations

import itertools

import pytest
import torch

from anomalib_synth.retrieval.windows import FilterWindow, WindowPlan


def make_mask(height: int, width: int, top: int, left: int, h: int, w: int) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, top : top + h, left : left + w] = 1
    return mask


@pytest.mark.parametrize(("height", "width"), [(256, 256), (1024, 512), (40, 97), (33, 33), (5, 90), (1, 1)])
def test_sizes_are_few_and_no_further_apart_than_root_two(height, width) -> None:
    sides = WindowPlan(height=height, width=width, context=1.5).sides
    assert sides[-1] == min(height, width)
    assert len(sides) <= 12
    assert all(after / before <= 1.45 for before, after in itertools.pairwise(sides))
    assert sides[0] <= 23 or len(sides) == 1
    assert WindowPlan(height=height, width=width, context=1.5, share=0.5).sides == [max(1, round(sides[-1] / 2))]


@pytest.mark.parametrize(("h", "w"), [(3, 3), (26, 26), (10, 40), (60, 20), (128, 128), (170, 3)])
def test_a_window_is_one_and_a_half_to_about_twice_as_large_as_the_edit_and_holds_it(h, w) -> None:
    plan = WindowPlan(height=256, width=256, context=1.5)
    for top, left in itertools.product((0, 30, 256 - h), (0, 61, 256 - w)):
        side, y, x = plan.find(make_mask(256, 256, top, left, h, w))
        longer = max(h, w)
        assert side >= min(1.5 * longer, 256)
        assert side <= max(16, 1.5 * 2**0.5 * longer + 1)
        assert 0 <= y <= top
        assert 0 <= x <= left
        assert y + side >= top + h
        assert x + side >= left + w
        assert max(y, x) + side <= 256


def test_the_middle_of_a_window_is_that_of_the_edit_where_the_image_goes_on() -> None:
    plan = WindowPlan(height=256, width=256, context=1.5)
    assert plan.find(make_mask(256, 256, 100, 40, 20, 20)) == FilterWindow(32, 94, 34)


def test_a_mask_longer_than_any_window_is_cut_where_most_of_it_lies() -> None:
    plan = WindowPlan(height=64, width=256, context=1.5)
    mask = make_mask(64, 256, 30, 0, 1, 256)
    mask[:, 10:50, 180:220] = 1
    side, top, left = plan.find(mask)
    assert (side, top) == (64, 0)
    assert left <= 180
    assert left + side >= 220


def test_windows_of_images_of_another_size_show_the_same_extent() -> None:
    plan = WindowPlan(height=32, width=32, context=1.0, share=0.5)
    image = torch.zeros(3, 64, 64)
    image[:, :32, 32:] = 1
    assert float(plan.cut(image, FilterWindow(16, 0, 16), 8)[:, 2:6, 2:6].min()) > 0.99
    assert float(plan.cut(image, FilterWindow(16, 16, 0), 8)[:, 2:6, 2:6].max()) < 0.01
    assert plan.cut(image[:1], FilterWindow(16, 0, 0), 8).shape == (3, 8, 8)
    big, small = make_mask(128, 128, 4, 100, 16, 24), make_mask(64, 64, 2, 50, 8, 12)
    plan = WindowPlan(height=64, width=64, context=1.5)
    assert plan.find(big) == plan.find(small)


def test_places_are_spread_bounded_and_the_same_for_the_same_image() -> None:
    plan = WindowPlan(height=96, width=128, context=1.5)
    state = torch.get_rng_state()
    places = [place for number in range(40) for place in plan.scatter(32, number, 8)]
    assert torch.equal(torch.get_rng_state(), state)
    assert len(places) == 40 * 8
    assert places[8:16] == plan.scatter(32, 1, 8) != places[:8]
    seen = torch.zeros(96, 128)
    for side, top, left in places:
        assert 0 <= top <= 96 - side
        assert 0 <= left <= 128 - side
        seen[top : top + side, left : left + side] += 1
    assert float((seen > 0).float().mean()) > 0.95
    assert len(plan.scatter(96, 0, 100)) == 2, "as many as lie half a side apart"
    assert WindowPlan(height=64, width=64, context=1.5).scatter(64, 3, 100) == [FilterWindow(64, 0, 0)]

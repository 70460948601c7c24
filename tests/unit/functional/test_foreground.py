"""Finding the part: each step against hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.functional.foreground import (
    distance_to_background,
    fit_background,
    otsu_threshold,
    refine_part,
    segment_part,
    to_grid,
)


def split_by_hand(values: np.ndarray, bins: int) -> float:
    """Otsu's threshold by trying each: the largest variance between the two classes."""
    counts, edges = np.histogram(values, bins, (0, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    between = []
    for cut in range(1, bins):
        low, high = counts[:cut], counts[cut:]
        means = [np.average(place, weights=count) for place, count in ((centres[:cut], low), (centres[cut:], high))]
        between.append(low.sum() * high.sum() * (means[0] - means[1]) ** 2)
    return (int(np.argmax(between)) + 1) / bins


@pytest.mark.parametrize("seed", range(3))
def test_threshold_is_the_one_that_splits_best_when_all_are_tried(seed) -> None:
    random = np.random.default_rng(seed)
    values = np.concatenate([random.beta(2, 6, 700), random.beta(9, 2, 300 + 400 * seed), np.linspace(0, 1, 64)])
    assert otsu_threshold(torch.from_numpy(values), bins=16) == split_by_hand(values, 16)


def test_threshold_is_just_above_the_lower_class_when_there_is_nothing_between() -> None:
    assert otsu_threshold(torch.tensor([0.2] * 10 + [0.8] * 10)) == 26 / 128


def test_grid_holds_means_of_blocks_and_small_images_as_they_are() -> None:
    image = torch.rand(2, 3, 128, 96, generator=torch.Generator().manual_seed(0))
    grid = to_grid(image.double())
    assert (grid.shape, grid.dtype) == ((2, 3, 64, 64), torch.float32)
    torch.testing.assert_close(grid[..., 1, 2], image[..., 2:4, 3:5].mean((2, 3)))  # 1.5 pixels a cell: 3 to 4.5
    assert torch.equal(to_grid(image[..., :40, :30]), image[..., :40, :30])


def make_surface(height: int, width: int) -> torch.Tensor:
    """Uneven light on two channels."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    first = 0.5 + 0.1 * x - 0.05 * y + 0.08 * x * x - 0.06 * y * y + 0.04 * x * y
    return torch.stack([first, 0.7 - 0.1 * y + 0.03 * x * y])[None]


def test_background_is_uneven_light_when_the_part_does_not_touch_the_border() -> None:
    plain = make_surface(20, 16)
    grid = plain.clone()
    grid[:, 0, 5:12, 4:10] += 0.2
    grid[:, 1, 5:12, 4:10] -= 0.3
    surface, spread = fit_background(grid)
    torch.testing.assert_close(surface, plain, atol=5e-5, rtol=0)
    assert float(spread) < 5e-5
    expected = torch.zeros(1, 1, 20, 16)
    expected[..., 5:12, 4:10] = 0.3  # of the channel that differs most
    torch.testing.assert_close(distance_to_background(grid), expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize(("odd", "spread"), [(9, 0.0), (10, 0.25)])
def test_spread_is_the_85th_percentile_of_the_ring_when_some_of_it_is_no_background(odd, spread, turns) -> None:
    grid = torch.full((1, 1, 16, 16), 0.5)  # a ring of 60 cells: the 51st of them in order
    grid[0, 0, 0, 2 : 2 + odd] = 0.75
    grid = torch.rot90(grid, turns, (2, 3))
    surface, found = fit_background(grid)
    torch.testing.assert_close(surface, torch.full_like(grid, 0.5), atol=5e-5, rtol=0)
    assert float(found) == pytest.approx(spread, abs=5e-5)


def make_ring() -> torch.Tensor:
    """Distances of a part with a hole, which is closed but for a corner."""
    distance = torch.zeros(1, 1, 7, 7)
    distance[..., 2:5, 2:5] = 1
    distance[..., 3, 3] = distance[..., 2, 2] = 0
    return distance


def test_hole_is_part_when_it_meets_the_background_at_a_corner_only() -> None:
    expected = make_ring() > 0.5
    expected[..., 3, 3] = True
    assert torch.equal(segment_part(make_ring(), 0.5), expected)


@pytest.mark.parametrize("side", [(2, 3), (4, 3), (3, 2), (3, 4)])
def test_hole_is_background_when_the_part_is_open_at_a_side(side) -> None:
    distance = make_ring()
    distance[..., side[0], side[1]] = 0.5  # as far as the threshold is near enough
    assert torch.equal(segment_part(distance, 0.5), distance > 0.5)


@pytest.mark.parametrize("turns", range(4))
def test_background_is_found_when_it_touches_one_border_of_the_image(turns) -> None:
    distance = torch.ones(1, 1, 9, 9)
    distance[..., :6, 4] = 0
    distance = torch.rot90(distance, turns, (2, 3))
    assert torch.equal(segment_part(distance, 0.5), distance > 0.5)


def test_background_is_followed_when_its_way_winds() -> None:
    distance = torch.ones(1, 1, 9, 15)
    distance[..., 0, 2] = 0  # the way in
    for number, column in enumerate(range(2, 14, 2)):
        distance[..., 1:8, column] = 0
        distance[..., 1 if number % 2 else 7, column + 1] = 0 if column < 12 else 1
    assert torch.equal(segment_part(distance, 0.5), distance > 0.5)


def test_edge_of_the_part_loses_what_looks_like_background_and_its_middle_does_not() -> None:
    image = torch.full((3, 2, 32, 32), 0.25)
    image[:, 1, 10:22, 10:22] = 0.85
    image[:, 1, 13:19, 13:19] = 0.25
    cells = torch.zeros(3, 1, 32, 32)
    cells[0] = 1
    cells[1, :, 8:24, 8:24] = 1
    refined = refine_part(image, cells, 0.05, 4)
    expected = torch.zeros(32, 32)
    expected[9:23, 9:23] = 1  # one pixel more than the part, by the blur
    assert torch.equal(refined[1, 0], expected)
    assert bool(refined[0].all())  # no background to compare with
    assert not refined[2].any()
    assert float(cells[1].sum()) == 256

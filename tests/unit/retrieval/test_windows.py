"""Where windows are cut."""

from __future__ import annotations

import itertools

import pytest
import torch

from anomalib_synth.retrieval.windows import WindowGrid


@pytest.mark.parametrize(("height", "width", "share"), [(64, 64, 0.5), (40, 97, 0.5), (33, 33, 1.0), (50, 20, 0.3)])
def test_windows_cover_the_image_at_most_half_a_side_apart(height, width, share) -> None:
    grid = WindowGrid(height=height, width=width, share=share)
    seen = torch.zeros(height, width)
    for top, left in grid.corners:
        assert 0 <= top <= height - grid.side
        assert 0 <= left <= width - grid.side
        seen[top : top + grid.side, left : left + grid.side] += 1
    assert bool((seen > 0).all())
    tops = sorted({top for top, _ in grid.corners})
    assert all(after - before <= max(1, grid.side // 2) for before, after in itertools.pairwise(tops))


def test_the_window_that_holds_most_of_the_mask_is_found() -> None:
    grid = WindowGrid(height=64, width=64, share=0.5)
    mask = torch.zeros(1, 64, 64)
    mask[:, 2:10, 50:62] = 1
    assert grid.find(mask) == (0, 32)
    middle = torch.zeros(1, 64, 64)
    middle[:, 30:34, 30:34] = 1  # several hold all of it
    assert grid.find(middle) == (16, 16)
    assert grid.find(torch.nn.functional.interpolate(mask[None], (128, 128))[0]) == (0, 32)


def test_a_small_defect_is_whole_in_its_window() -> None:
    grid = WindowGrid(height=60, width=80, share=0.5)
    for top in range(0, 46, 5):
        for left in range(0, 66, 5):
            mask = torch.zeros(1, 60, 80)
            mask[:, top : top + 14, left : left + 14] = 1
            y, x = grid.find(mask)
            assert float(mask[:, y : y + grid.side, x : x + grid.side].sum()) == 14 * 14


def test_windows_of_images_of_another_size_show_the_same_extent() -> None:
    grid = WindowGrid(height=32, width=32, share=0.5)
    image = torch.zeros(3, 64, 64)
    image[:, :32, 32:] = 1
    assert float(grid.cut(image, (0, 16), 8)[:, 2:6, 2:6].min()) > 0.99
    assert float(grid.cut(image, (16, 0), 8)[:, 2:6, 2:6].max()) < 0.01
    assert grid.cut(image[:1], (0, 0), 8).shape == (3, 8, 8)

"""Where a defect goes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.generators.placement import place_centre, window_side


def at(place: float, place_y: float = 0.25, place_x: float = 0.75) -> dict[str, float]:
    return {"place": place, "place_y": place_y, "place_x": place_x}


@pytest.mark.parametrize(
    ("extent", "limit", "side"),
    [(1, 512, 16), (16, 512, 16), (16.1, 512, 24), (100, 64, 64), (4096, 9000, 4096), (4097, 9000, 9000)],
)
def test_window_has_the_smallest_standard_side_that_holds_the_defect(extent, limit, side) -> None:
    assert window_side(extent, limit) == side


def test_sides_of_windows_stay_as_they_are() -> None:
    """They are in every pixel that was ever drawn."""
    assert sorted({window_side(extent, 10**6) for extent in range(1, 4097)}) == [
        16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768,
        1024, 1536, 2048, 3072, 4096,
    ]  # fmt: skip


def test_centre_is_anywhere_when_no_cells_are_given_or_none_is_left() -> None:
    assert place_centre(at(0.9), None, 40, 80) == (10, 60)
    assert place_centre(at(0.9), np.zeros((2, 4), bool), 40, 80) == (10, 60)


@pytest.mark.parametrize(("place", "row", "column"), [(0.0, 0, 2), (0.34, 1, 1), (0.999, 2, 3)])
def test_centre_lies_in_one_of_the_cells(place, row, column) -> None:
    cells = np.zeros((4, 5), bool)
    cells[0, 2] = cells[1, 1] = cells[2, 3] = True
    assert place_centre(at(place), cells, 40, 100) == pytest.approx(((row + 0.25) * 10, (column + 0.75) * 20))


@pytest.mark.parametrize(("place", "centre"), [(0.0, (0, 60)), (0.25, (39, 60)), (0.5, (10, 0)), (0.99, (10, 79))])
@pytest.mark.parametrize("cells", [None, np.ones((4, 4), bool)])
def test_centre_lies_on_a_border_of_the_image_when_the_part_fills_it(cells, place, centre) -> None:
    assert place_centre(at(place), cells, 40, 80, edge=True) == centre


def test_centre_lies_at_the_edge_of_the_part_when_it_must() -> None:
    cells = np.zeros((7, 7), bool)
    cells[1:6, 1:7] = True  # whose right side is the image's: it ends there too
    found = {
        tuple(int(value) for value in place_centre(at(n / 200, 0.5, 0.5), cells, 7, 7, edge=True)) for n in range(200)
    }
    expected = {(row, column) for row in range(1, 6) for column in range(1, 7)}
    assert found == expected - {(row, column) for row in range(2, 5) for column in range(2, 6)}

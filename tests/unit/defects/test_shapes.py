"""Outlines fill the pixels that independent implementations fill."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from skimage.draw import polygon2mask

from anomalib_synth.defects.shapes import Bitmap, Box, Ellipse, Polygon, Shape
from tests.unit.defects.annotated import SIZE, block


def paint(shape: Shape) -> np.ndarray:
    region = shape.draw(*SIZE)
    canvas = np.zeros(SIZE, dtype=bool)
    canvas[region.rows, region.columns] = region.inside
    return canvas


@settings(max_examples=80, deadline=None)
@given(
    corners=st.lists(
        st.tuples(st.floats(-20, 80, allow_subnormal=False), st.floats(-20, 60, allow_subnormal=False)),
        min_size=3,
        max_size=9,
    )
)
def test_pixels_are_filled_when_their_centres_are_in_the_polygon(corners) -> None:
    polygon = Polygon(np.array(corners))
    expected = polygon2mask(SIZE, np.array(corners)[:, ::-1] - 0.5)
    if polygon.is_flat or not expected.any():
        return
    differs = paint(polygon) != expected
    y, x = np.nonzero(differs)  # only centres that lie on an edge may differ
    starts, ends = np.array(corners), np.roll(corners, -1, axis=0)
    for row, column in zip(y, x, strict=True):
        centre = np.array([column + 0.5, row + 0.5])
        along = ends - starts
        place = np.clip(((centre - starts) * along).sum(1) / np.maximum((along**2).sum(1), 1e-12), 0, 1)
        assert np.linalg.norm(starts + place[:, None] * along - centre, axis=1).min() < 1e-6


def test_a_polygon_is_its_pixels_when_it_follows_their_edges() -> None:
    corners = [3, 4, 9, 4, 9, 5, 4, 5, 4, 20, 3, 20]
    decoded = coco_mask.decode(coco_mask.frPyObjects([[float(value) for value in corners]], *SIZE))[..., 0]
    np.testing.assert_array_equal(paint(Polygon(np.array(corners, float).reshape(-1, 2))), decoded)


def test_a_polygon_is_a_line_of_pixels_when_it_is_thinner_than_one() -> None:
    found = paint(Polygon(np.array([[10.6, 5.0], [10.8, 5.0], [10.7, 24.9]])))
    np.testing.assert_array_equal(found, block(5, 10, 25, 11))


def test_a_polygon_is_cut_off_when_it_leaves_the_image() -> None:
    found = paint(Polygon(np.array([[-30, -30], [20, -30], [20, 10], [-30, 10]], float)))
    np.testing.assert_array_equal(found, block(0, 0, 10, 20))


@pytest.mark.parametrize(
    ("points", "flat"),
    [
        ([[0, 0], [5, 5], [9, 9]], True),
        ([[2, 3], [2, 3], [2, 3]], True),
        ([[0, 0], [5, 5], [9, 9.5]], False),
        ([[0, 0], [9, 9], [9, 0], [0, 9]], False),  # a bow tie, whose signed area is zero
    ],
)
def test_a_polygon_is_flat_when_its_corners_lie_on_a_line(points, flat) -> None:
    assert Polygon(np.array(points, float)).is_flat is flat


def test_a_box_has_every_pixel_it_touches_when_it_is_between_pixels() -> None:
    np.testing.assert_array_equal(paint(Box(3.4, 2.2, 7.5, 4.3)), block(2, 3, 5, 8))
    np.testing.assert_array_equal(paint(Box(2.999, 2.002, 7.004, 3.998)), block(2, 3, 4, 7))  # rounded shares
    np.testing.assert_array_equal(paint(Box(3.1, 3.1, 3.2, 3.2)), block(3, 3, 4, 4))


@pytest.mark.parametrize("angle", [0, 30, 90, 200])
def test_an_ellipse_is_filled_when_it_is_turned(angle) -> None:
    found = paint(Ellipse(30, 20, (12, 6), angle))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    turn = np.exp(-1j * np.radians(angle))
    local = ((x - 30) + 1j * (y - 20)) * turn
    np.testing.assert_array_equal(found, (local.real / 12) ** 2 + (local.imag / 6) ** 2 <= 1)


def test_an_ellipse_is_one_pixel_when_it_is_smaller() -> None:
    np.testing.assert_array_equal(paint(Ellipse(30.1, 20.1, (0.2, 0.2))), block(20, 30, 21, 31))


def test_a_bitmap_is_cut_off_when_it_leaves_the_image() -> None:
    pixels = np.arange(100).reshape(10, 10) % 3 == 0
    found = paint(Bitmap(-4, 35, pixels))
    np.testing.assert_array_equal(found[35:, :6], pixels[:5, 4:])
    assert found.sum() == pixels[:5, 4:].sum()

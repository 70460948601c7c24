"""Proposed outlines, on a surface with a defect whose place is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from anomalib_synth.report import marking_outline
from anomalib_synth.report.marking_outline import outline_map, outline_shape, trace_mask
from tests.unit.report.defect_images import BOX, SPOT, draw_part


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.fixture
def truth() -> np.ndarray:
    mask = np.zeros((120, 160), bool)
    mask[SPOT] = True
    return mask


@pytest.mark.parametrize(
    ("kind", "points"), [("rectangle", BOX), ("linestrip", [[68, 50], [90, 60]]), ("point", [[80, 55]])]
)
def test_outline_is_the_defect_when_it_is_boxed_or_scribbled_on(truth, kind, points) -> None:
    image = draw_part()
    found = outline_shape(image, {"shape_type": kind, "points": points})
    assert overlap(found, truth) > 0.8
    assert np.array_equal(found, outline_shape(image, {"shape_type": kind, "points": points}))


def test_outline_is_right_and_within_its_box_when_the_image_is_large(truth) -> None:
    image = np.asarray(Image.fromarray(draw_part()).resize((3200, 2400), Image.Resampling.BICUBIC))
    box = [[value * 20 for value in point] for point in BOX]
    found = outline_shape(image, {"shape_type": "rectangle", "points": box})
    assert overlap(found, np.kron(truth, np.ones((20, 20), bool))) > 0.8
    rows, columns = np.nonzero(found)
    assert columns.min() >= box[0][0]
    assert columns.max() < box[1][0]
    assert rows.min() >= box[0][1]
    assert rows.max() < box[1][1]


@pytest.mark.parametrize(
    "shape",
    [
        {"shape_type": "rectangle", "points": [[0, 0], [2, 2]]},
        {"shape_type": "rectangle", "points": [[-500, -500], [-400, -400]]},
        {"shape_type": "rectangle", "points": [[0, 0], [1e300, 1e300]]},
        {"shape_type": "rectangle", "points": [[0, 0]]},
        {"shape_type": "polygon", "points": [[0, 0], [9, 0], [9, 9]]},
        {"shape_type": "linestrip", "points": []},
        {"shape_type": "point", "points": [[159, 119]]},
        {"shape_type": "linestrip", "points": [[-1e9, 5], [1e9, 5]]},
    ],
)
def test_outline_is_some_pixels_or_none_when_the_shape_is_odd(shape) -> None:
    found = outline_shape(draw_part(), shape)
    assert found is None or (found.shape == (120, 160) and 0 < found.sum() < found.size)


def test_nothing_is_outlined_when_the_box_holds_noise_alone() -> None:
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(150, 8, (300, 300, 3)).clip(0, 255).astype(np.uint8)
        assert outline_shape(noise, {"shape_type": "rectangle", "points": [[100, 100], [200, 180]]}) is None


def test_outline_goes_by_contrast_when_grabcut_finds_nothing(truth, monkeypatch) -> None:
    monkeypatch.setattr(marking_outline, "_cut", lambda image, *_, **__: np.zeros(image.shape[:2], bool))
    assert overlap(outline_shape(draw_part(), {"shape_type": "rectangle", "points": BOX}), truth) > 0.7


@pytest.mark.parametrize("size", [(16, 16), (16, 400), (1, 30)])
def test_outline_is_some_pixels_or_none_when_the_image_is_small_or_flat(size) -> None:
    flat = np.full((*size, 3), 90, np.uint8)
    for kind, points in (("rectangle", [[0, 0], [size[1], size[0]]]), ("point", [[0, 0]])):
        found = outline_shape(flat, {"shape_type": kind, "points": points})
        assert found is None or found.shape == size


def test_map_is_outlined_where_it_is_above_good_images_when_it_is_anywhere(truth) -> None:
    found = np.where(truth, 0.6, 0.3)
    found[2:4, 2:4] = 0.55  # too small beside the other
    assert np.array_equal(outline_map(found), truth)


def test_map_is_outlined_closely_when_it_is_far_above_good_images(truth) -> None:
    wide = np.zeros_like(truth)
    wide[30:80, 50:110] = True
    assert np.array_equal(outline_map(np.where(truth, 0.95, np.where(wide, 0.7, 0.1))), truth)


def test_map_is_outlined_in_its_top_hundredth_when_it_is_nowhere_above_good_images(truth) -> None:
    found = np.random.default_rng(0).uniform(0, 0.1, truth.shape)
    found[10:20, 10:29] = 0.4
    assert 0 < outline_map(found).sum() <= 0.01 * truth.size + 1
    assert outline_map(np.zeros(truth.shape)) is None


def fill(path: str, size: tuple[int, int]) -> np.ndarray:
    """Fill a path by the even-odd rule, four times as large."""
    inside = np.zeros((size[0] * 4, size[1] * 4), bool)
    for ring in filter(None, path.split("Z")):
        points = [tuple(4 * float(value) for value in each.split()) for each in ring.removeprefix("M").split("L")]
        picture = Image.new("1", (size[1] * 4, size[0] * 4))
        ImageDraw.Draw(picture).polygon(points, fill=1)
        inside ^= np.asarray(picture)
    return inside[2::4, 2::4]


def test_path_fills_the_mask_when_it_has_holes_and_parts(truth) -> None:
    mask = truth.copy()
    mask[50:58, 75:85] = False
    mask[5:7, 5:30] = True
    mask[100, 100] = True
    assert overlap(fill(trace_mask(mask), mask.shape), mask) > 0.97
    assert trace_mask(np.zeros((5, 5), bool)) == ""


def test_path_stays_short_when_the_mask_is_noise() -> None:
    noise = np.random.default_rng(0).random((900, 1200)) > 0.5
    assert len(trace_mask(noise)) < 2_000_000

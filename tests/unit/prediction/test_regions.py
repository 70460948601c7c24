"""Where the most anomalous region is, in the pixels of the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import CenterCrop, Compose, Resize
from torchvision.transforms.v2.functional import rotate

from anomalib_synth.functional.field_of_view import find_view
from anomalib_synth.prediction.detector import DetectorOutput
from anomalib_synth.prediction.regions import PixelBox, lay_on_image, locate_region

WHOLE = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])


def find(values: np.ndarray, *, above: float | None = 0.5) -> DetectorOutput:
    mask = None if above is None else values > above
    return DetectorOutput(score=1.0, is_defect=True, anomaly_map=values.astype(np.float32), mask=mask)


def make_map(*blocks: tuple[int, int, int, int, float], size: tuple[int, int] = (20, 40)) -> np.ndarray:
    """A map of zeros with blocks: top, bottom, left, right, value."""
    values = np.zeros(size)
    for top, bottom, left, right, value in blocks:
        values[top:bottom, left:right] = value
    return values


def test_box_is_in_pixels_of_the_image_when_that_is_larger_than_the_map() -> None:
    values = make_map((4, 8, 10, 20, 0.8), (15, 17, 1, 3, 0.6))
    values[5, 14] = 1.0
    place = locate_region(find(values), WHOLE, (200, 800))
    assert place.box == PixelBox(left=200, top=40, width=200, height=40)
    assert place.peak == (290, 55)
    assert place.outline.sum() == 44, "all that is above the threshold is outlined"


@pytest.mark.parametrize(
    "transform",
    [
        Resize((64, 64)),
        Compose([Resize((80, 80)), CenterCrop((64, 64))]),
        lambda image: rotate(Resize((64, 64))(image), 90),
        lambda image: Resize((64, 64))(image).flip(-1),
        lambda image: image[..., 20:, 30:140],
    ],
)
def test_box_holds_what_is_bright_whatever_the_transform_does(transform) -> None:
    image = torch.zeros(1, 3, 120, 160)
    image[..., 40:70, 60:90] = 1
    place = locate_region(find(transform(image)[0, 0].numpy()), find_view(transform, (120, 160)), (120, 160))
    left, top, width, height = place.box
    assert np.allclose([left, top, left + width, top + height], [60, 40, 90, 70], atol=3)
    assert 60 <= place.peak[0] < 90
    assert 40 <= place.peak[1] < 70
    on_image = lay_on_image(place.outline, find_view(transform, (120, 160)), (120, 160))
    assert on_image[45:65, 65:85].all()
    assert not on_image[:35].any()
    assert not on_image[:, 95:].any()


def test_peak_is_within_the_largest_area_when_the_map_is_cut_off() -> None:
    values = make_map((0, 1, 0, 2, 1.0), (6, 13, 20, 31, 1.0))
    assert locate_region(find(values), WHOLE, (20, 40)).peak == (25, 9)


def test_region_is_found_when_nothing_is_above_the_threshold() -> None:
    values = make_map((4, 8, 10, 20, 0.3), (15, 17, 1, 3, 0.1))
    for above in (0.5, None):
        place = locate_region(find(values, above=above), WHOLE, (20, 40))
        assert place.box == PixelBox(10, 4, 10, 4)
        assert place.outline.sum() == 40


def test_region_is_found_when_nearly_everything_is_above_the_threshold() -> None:
    values = make_map((0, 20, 0, 35, 0.6), (4, 8, 10, 20, 1.0))
    assert locate_region(find(values), WHOLE, (20, 40)).box == PixelBox(10, 4, 10, 4)


@pytest.mark.parametrize(
    ("finding", "view"),
    [
        (find(np.zeros((4, 4))), WHOLE),
        (find(np.full((4, 4), np.nan)), WHOLE),
        (find(make_map((1, 2, 1, 2, 1.0))), None),
        (DetectorOutput(score=1.0, is_defect=True), WHOLE),
    ],
)
def test_there_is_no_place_when_the_map_tells_none(finding, view) -> None:
    assert locate_region(finding, view, (20, 40)) is None

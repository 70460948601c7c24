"""Sizes: a long side, or height and width."""

from __future__ import annotations

import pytest

from anomalib_synth.images import ImageSize


@pytest.mark.parametrize("value", [512, "512", " 512 "])
def test_the_shape_is_kept_when_a_long_side_is_given(value) -> None:
    size = ImageSize.parse(value)
    assert (size.of(6000, 8000), size.of(8000, 6000), size.of(256, 256)) == ((384, 512), (512, 384), (512, 512))


@pytest.mark.parametrize("value", ["384x512", "384X512", "384 x 512"])
def test_height_and_width_are_taken_as_they_are(value) -> None:
    assert ImageSize.parse(value).of(100, 100) == (384, 512)


def test_a_thin_image_keeps_a_pixel() -> None:
    assert ImageSize.parse(64).of(1, 6400) == (1, 64)


@pytest.mark.parametrize("value", [0, 15, -512, "", "x", "512x", "15x512", "1e3", 3.5, True, "5 12"])
def test_what_is_no_size_is_refused(value) -> None:
    with pytest.raises(ValueError, match=r"`image_size` must be a long side in pixels.*got"):
        ImageSize.parse(value)

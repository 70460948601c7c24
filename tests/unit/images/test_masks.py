"""Masks: read at half of their maximum, and refused where they cannot mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from anomalib_synth.images import check_same_aspect, read_mask


def blob(side: int = 64) -> np.ndarray:
    """A disc in a corner, (side, side) bool."""
    y, x = np.mgrid[:side, :side]
    return (y - 20) ** 2 + (x - 24) ** 2 < 81


def test_a_scratch_of_three_pixels_keeps_its_area_when_it_is_a_jpeg(tmp_path) -> None:
    canvas = Image.new("L", (512, 512))
    ImageDraw.Draw(canvas).rectangle((60, 100, 60 + 389, 102), fill=255)
    canvas.save(tmp_path / "m.jpg", quality=75)
    inside = np.asarray(canvas) > 0
    assert (np.asarray(Image.open(tmp_path / "m.jpg")) > 0).sum() > 1.5 * inside.sum()
    read = read_mask(tmp_path / "m.jpg", "masks")
    assert abs(int(read.sum()) - int(inside.sum())) <= 0.02 * inside.sum()


def test_a_smoothed_outline_is_cut_in_its_middle(tmp_path) -> None:
    large = Image.new("L", (640, 640))
    ImageDraw.Draw(large).ellipse((100, 100, 420, 420), fill=255)
    large.resize((80, 80), Image.Resampling.BOX).save(tmp_path / "m.png")
    exact = (np.asarray(large) > 0).sum() / 64
    assert abs(read_mask(tmp_path / "m.png", "masks").sum() - exact) < 0.02 * exact


@pytest.mark.parametrize("quality", [60, 75, 90, 95, 100])
def test_rectangles_keep_their_area_whatever_the_quality_of_the_jpeg(tmp_path, quality) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        top, left, height, width = rng.integers(4, 60, 4)
        mask = np.zeros((160, 160), np.uint8)
        mask[top : top + height, left : left + width] = 255
        Image.fromarray(mask).save(tmp_path / "m.jpg", quality=quality)
        assert abs(int(read_mask(tmp_path / "m.jpg", "masks").sum()) - height * width) <= 0.04 * height * width


@pytest.mark.parametrize(("edge", "expected"), [(slice(51, 131), 1600), (slice(50, 130), 1600)])
def test_few_levels_of_a_smoothed_edge_are_cut_in_its_middle(tmp_path, edge, expected) -> None:
    large = np.zeros((200, 200), np.uint8)
    large[edge, edge] = 255
    Image.fromarray(large).resize((100, 100), Image.Resampling.BOX).save(tmp_path / "m.png")
    assert abs(int(read_mask(tmp_path / "m.png", "masks").sum()) - expected) <= 81


def test_all_colours_mark(tmp_path) -> None:
    colours = [(128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (255, 0, 0), (0, 0, 255)]
    image = np.zeros((64, 160, 3), np.uint8)
    for number, colour in enumerate(colours):
        image[20:40, 4 + 22 * number : 14 + 22 * number] = colour
    Image.fromarray(image).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "masks"), image.any(2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_instances_of_any_number_all_mark(tmp_path, dtype) -> None:
    values = np.zeros((64, 128), dtype)
    for number in range(1, 101):
        row, column = divmod(number, 20)
        values[4 + 10 * row : 9 + 10 * row, 4 + 6 * column : 9 + 6 * column] = number * (1 if dtype == np.uint8 else 3)
    Image.fromarray(values).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "masks"), values > 0)


def test_a_palette_whose_first_colour_is_white_is_read_by_colour(tmp_path) -> None:
    Image.fromarray(blob().astype(np.uint8) * 255).convert("RGB").quantize(2).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "masks"), blob())


def test_a_mask_without_zero_is_refused_unless_its_levels_are_far_apart(tmp_path) -> None:
    Image.fromarray(np.where(blob(), 235, 16).astype(np.uint8)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "masks"), blob())
    Image.fromarray(np.where(blob(), 2, 1).astype(np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="has no zero, but values from 1 to 2"):
        read_mask(tmp_path / "m.png", "foreground", of_defect=False)


@pytest.mark.parametrize("value", [1, 7, 200, 255])
def test_two_levels_mark_what_is_not_zero(tmp_path, value) -> None:
    Image.fromarray(blob().astype(np.uint8) * value).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "masks"), blob())


def test_class_indices_all_mark(tmp_path) -> None:
    values = blob().astype(np.uint8)
    values[40:50, 40:60] = np.arange(1, 21)
    Image.fromarray(values).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "masks"), values > 0)
    palette = Image.fromarray(values, "P")
    palette.putpalette([0, 0, 0] + [0, 0, 1] * 255)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png", "masks"), values > 0)


def test_16_bits_are_not_clipped(tmp_path) -> None:
    soft = np.where(blob(), 40_000, 0).astype(np.uint16)
    soft[20] = np.where(blob()[20], np.linspace(1, 19_000, 64).astype(np.uint16), 0)
    Image.fromarray(soft).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "masks"), soft >= 20_000)


def paint_alpha(path, inside) -> None:
    rgba = np.zeros((*inside.shape, 4), np.uint8)
    rgba[..., 3] = inside * 255
    Image.fromarray(rgba).save(path)


def paint_white(path, inside) -> None:
    Image.fromarray(np.full((*inside.shape, 4), 255, np.uint8)).save(path)


def paint_inverted(path, inside) -> None:
    Image.fromarray((~inside).astype(np.uint8) * 255).save(path)


def paint_border(path, inside) -> None:
    values = inside.astype(np.uint8)
    values[8:40, 10:13] = np.where(values[8:40, 10:13] == 0, 255, values[8:40, 10:13])
    Image.fromarray(values).save(path)


def paint_nothing(path, inside) -> None:
    Image.fromarray(np.zeros(inside.shape, np.uint8)).save(path)


@pytest.mark.parametrize(
    ("paint", "message"),
    [
        (paint_alpha, "alpha channel varies"),
        (paint_white, "marks every pixel"),
        (paint_inverted, "looks inverted"),
        (paint_border, "class indices .* and 255"),
        (paint_nothing, "zero everywhere"),
    ],
)
def test_an_implausible_mask_is_named_on_reading(tmp_path, paint, message) -> None:
    paint(tmp_path / "m.png", blob())
    with pytest.raises(ValueError, match=rf"`masks` needs a usable mask, .*m.png' is none: .*{message}"):
        read_mask(tmp_path / "m.png", "masks")


def test_a_mask_turned_by_exif_is_read_upright(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(blob()[:, :48].astype(np.uint8) * 255).save(tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "masks"), np.rot90(blob()[:, :48], -1))


def test_a_part_may_fill_most_of_the_image(tmp_path) -> None:
    paint_inverted(tmp_path / "m.png", blob())
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "foreground", of_defect=False), ~blob())


def test_another_shape_is_refused_and_a_quarter_turn_named() -> None:
    check_same_aspect((300, 400), (600, 800), "mask")
    with pytest.raises(ValueError, match=r"got 300 x 400 pixels for an image of 800 x 600. It looks turned"):
        check_same_aspect((400, 300), (600, 800), "mask")
    with pytest.raises(ValueError, match=r"mask must have the shape of its image"):
        check_same_aspect((300, 500), (600, 800), "mask")
    check_same_aspect((100, 160), (128, 128), "mask")  # squeezed into the square that a model wants

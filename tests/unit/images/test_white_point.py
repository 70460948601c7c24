"""One white point for the images of more than 8 bits in a folder."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalib_synth.images import UnreadableImageError, WhitePoint, decode_image, find_white_point, measure_image


def ramp(top: int, dtype: type = np.uint16) -> np.ndarray:
    """A ramp from 0 to a brightest value, (32, 64)."""
    return np.tile(np.linspace(0, top, 64).astype(dtype), (32, 1))


def save(array: np.ndarray, suffix: str) -> bytes:
    packed = BytesIO()
    Image.fromarray(array).save(packed, {"png": "PNG", "tif": "TIFF"}[suffix])
    return packed.getvalue()


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_white_is_the_least_depth_that_holds_the_folder_when_files_have_16_bits(tmp_path, bits, suffix) -> None:
    top = 2**bits - 1
    for name, share in (("dark", 0.3), ("bright", 0.9)):
        (tmp_path / f"{name}.{suffix}").write_bytes(save(ramp(int(share * top)), suffix))
    white = find_white_point(sorted(tmp_path.iterdir()))
    assert white == WhitePoint(top, None)
    for name, share in (("dark", 0.3), ("bright", 0.9)):
        levels = decode_image((tmp_path / f"{name}.{suffix}").read_bytes(), white_point=white)
        np.testing.assert_array_equal(levels[..., 0], ramp(int(share * top)) >> (bits - 8))


def test_a_hot_pixel_does_not_make_the_folder_dark(tmp_path) -> None:
    image = np.tile(ramp(4000), (8, 8))
    image[3, 5] = 65535
    (tmp_path / "a.png").write_bytes(save(image, "png"))
    assert find_white_point([tmp_path / "a.png"]).integer == 4095


@pytest.mark.parametrize(("top", "white"), [(1.0, 1.0), (0.3, 1.0), (255.0, 255.0), (200.0, 255.0), (4000.0, 4095.0)])
def test_floats_have_the_least_usual_white_that_holds_them(top, white) -> None:
    data = save(ramp(1, np.float32) * 0 + np.linspace(0, top, 64, dtype=np.float32), "tif")
    measured = measure_image(data)
    assert WhitePoint.find([measured]) == WhitePoint(None, white)
    levels = decode_image(data)
    expected = (np.linspace(0, top, 64, dtype=np.float32) / white * 255).round()
    np.testing.assert_array_equal(levels[0, :, 0], expected)


def test_32_bit_integers_are_read_as_16_bit_ones_when_they_are_no_larger() -> None:
    np.testing.assert_array_equal(decode_image(save(ramp(4095, np.int32), "tif"))[..., 0], ramp(4095) >> 4)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_colours_of_16_bits_are_read_in_full_when_a_camera_fills_12(suffix) -> None:
    colours = np.stack([ramp(4095), ramp(4095)[:, ::-1], ramp(2000)], -1)
    data = cv2.imencode(suffix, colours[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_image(data), colours >> 4)


def test_the_file_decides_when_it_states_its_white(tmp_path) -> None:
    pgm = b"P5 64 32 4095\n" + ramp(900).astype(">u2").tobytes()
    np.testing.assert_array_equal(decode_image(pgm)[..., 0], ramp(900) >> 4)
    (tmp_path / "a.pgm").write_bytes(pgm)
    (tmp_path / "b.png").write_bytes(save(ramp(4000), "png"))
    assert find_white_point(sorted(tmp_path.iterdir())).integer == 4095
    packed = BytesIO()
    Image.fromarray(ramp(900)).save(packed, "TIFF", tiffinfo={281: 4095})
    assert WhitePoint.find([measure_image(packed.getvalue())]).integer == 4095
    Image.fromarray(ramp(9000)).save(packed := BytesIO(), "TIFF", tiffinfo={281: 4095})  # it cannot be
    assert WhitePoint.find([measure_image(packed.getvalue())]).integer == 16383


def test_significant_bits_of_a_png_do_not_change_it_as_its_samples_are_scaled() -> None:
    full = save(ramp(65535), "png")
    chunk = b"sBIT" + bytes([12])
    stated = full[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + full[33:]
    np.testing.assert_array_equal(decode_image(stated), decode_image(full))


@pytest.mark.parametrize(("top", "white"), [(1.05, 1.0), (1.2, 1.0), (260.0, 255.0)])
def test_a_little_overshoot_does_not_make_a_folder_black(top, white) -> None:
    image = np.full((32, 64), 0.5 * white, np.float32)
    image[:8] = top
    assert WhitePoint.find([measure_image(save(image, "tif"))]).floating == white
    assert decode_image(save(image, "tif"))[20, 20, 0] in {127, 128}


def test_floats_between_the_usual_whites_are_refused() -> None:
    with pytest.raises(UnreadableImageError, match="white is not known; give `bit_depth`"):
        decode_image(save(np.full((32, 32), 5, np.float32), "tif"))


def test_tiffs_that_would_be_read_inverted_are_refused(tmp_path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", ramp(4000), photometric="miniswhite")
    with pytest.raises(UnreadableImageError, match="zero is white"):
        decode_image((tmp_path / "a.tif").read_bytes())


def test_colours_in_planes_are_refused_when_they_have_16_bits(tmp_path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 32, 32), np.uint16), photometric="rgb", planarconfig="separate")
    with pytest.raises(UnreadableImageError, match=r"lie in planes|not an image"):
        decode_image((tmp_path / "a.tif").read_bytes())


def test_colours_of_16_bits_are_refused_without_a_decoder_that_speaks_when_they_are_for_print(tmp_path, capfd) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((32, 32, 4), np.uint16), photometric="separated")
    with pytest.raises(UnreadableImageError, match="not RGB"):
        decode_image((tmp_path / "a.tif").read_bytes())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "values", [{"foo": 1}, 5, [1], {"integer": "x"}, {"integer": 0}, {"integer": -1}, {"integer": True}]
)
def test_a_damaged_white_point_is_refused(values) -> None:
    with pytest.raises(ValueError, match="white point of a store's settings must have"):
        WhitePoint.from_dict(values)


@pytest.mark.parametrize("array", [np.full((20, 20), 70_000, np.int32), np.full((20, 20), -3, np.int32)])
def test_integers_without_a_known_white_are_refused(array) -> None:
    for white in (None, WhitePoint(65535, None)):
        with pytest.raises(UnreadableImageError, match="no known white"):
            decode_image(save(array, "tif"), white_point=white)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e6])
def test_floats_without_a_known_white_are_refused(value) -> None:
    array = np.full((20, 20), 0.5, np.float32)
    array[2:9] = value
    for white in (None, WhitePoint(None, 1.0)):
        with pytest.raises(UnreadableImageError, match="floating-point"):
            decode_image(save(array, "tif"), white_point=white)


@pytest.mark.parametrize("depth", [7, 17, 12.5, True, "12"])
def test_a_bit_depth_is_refused_when_it_is_none(depth) -> None:
    with pytest.raises(ValueError, match=r"`bit_depth` must be in 8..16"):
        WhitePoint.of_bit_depth(depth)


@pytest.mark.parametrize(("integer", "depth"), [(None, None), (255, 8), (4095, 12), (65535, 16), (3000, None)])
def test_white_has_a_bit_depth_when_it_is_the_largest_number_of_it(integer, depth) -> None:
    white = WhitePoint(integer, None)
    assert white.bit_depth == depth
    assert white.completed(WhitePoint(1023, 1.0)) == WhitePoint(integer or 1023, 1.0)


@pytest.mark.parametrize("broken", [np.nan, -1.0, np.inf])
def test_an_image_that_cannot_be_read_says_nothing_about_the_white_of_the_others(tmp_path, broken) -> None:
    floats = ramp(1, np.float32)
    (tmp_path / "good.tif").write_bytes(save(floats, "tif"))
    floats = floats * 255
    floats[3, 3] = broken
    (tmp_path / "broken.tif").write_bytes(save(floats, "tif"))
    assert find_white_point(sorted(tmp_path.iterdir())) == WhitePoint(None, 1.0)


def test_floats_under_the_name_of_a_pgm_have_the_white_of_floats() -> None:
    values = np.tile(np.linspace(0, 1, 32, dtype="<f4"), (32, 1))
    levels = decode_image(b"Pf\n32 32\n-1.0\n" + values.tobytes())
    np.testing.assert_array_equal(levels[0, :, 0], (values[0] * 255).round())


def test_nothing_is_said_of_a_large_tiff_whose_tags_lie_at_its_end(tmp_path) -> None:
    image = np.full((200, 300), 900, np.uint16)
    data = bytearray(save(image, "tif"))
    place = int.from_bytes(data[4:8], "little")  # of the tags, which are moved behind the pixels
    pixels = len(data)
    count = int.from_bytes(data[place : place + 2], "little")
    data += data[place : place + 2 + 12 * count] + bytes(4)
    data[4:8] = pixels.to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(data)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert find_white_point([tmp_path / "a.tif"]).integer == 1023
    assert not said


@pytest.mark.parametrize(
    ("white", "words"),
    [
        (WhitePoint(), ""),
        (WhitePoint(integer=4095), "4095 (12 bits)"),
        (WhitePoint(floating=2.5), "2.5 for floating-point numbers"),
        (WhitePoint(integer=65535, floating=1.0), "65535 (16 bits) and 1 for floating-point numbers"),
    ],
)
def test_white_is_said_in_words_for_the_kinds_of_files_that_there_are(white, words) -> None:
    assert str(white) == words

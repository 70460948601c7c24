"""Reading normals of every kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from anomalib_synth.images import (
    ImageReader,
    ImageSize,
    Normal,
    UnreadableImageError,
    WhitePoint,
    allow_large_images,
    decode_image,
    decode_mask,
    digest_image,
    digest_pixels,
    hash_bytes,
    read_bytes,
    read_size,
)
from tests.unit.images.bad_inputs import blank_png, colours, write_readable, write_unreadable

WHITE = WhitePoint(65535, 1.0)


def test_pixels_are_right_when_the_format_is_odd(tmp_path) -> None:
    for name, expected in write_readable(tmp_path).items():
        np.testing.assert_array_equal(decode_image(read_bytes(tmp_path / name)), expected, err_msg=name)


def test_jpegs_are_close_and_upright_when_they_are_rotated_or_cmyk(tmp_path) -> None:
    smooth = Image.fromarray(colours(64))
    exif = Image.Exif()
    exif[0x0112] = 3
    smooth.save(tmp_path / "half_turn.jpg", quality=98, exif=exif)
    smooth.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    turned = decode_image(read_bytes(tmp_path / "half_turn.jpg")).astype(int)
    assert abs(turned - colours(64)[::-1, ::-1].astype(int)).mean() < 3
    cmyk = decode_image(read_bytes(tmp_path / "cmyk.jpg")).astype(int)
    assert abs(cmyk - colours(64).astype(int)).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_a_size_is_that_of_the_upright_image_when_exif_turns_it(tmp_path, suffix, orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a{suffix}"
    Image.fromarray(colours(64)[:40]).save(file, exif=exif)
    _check_size(file, orientation)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_a_size_is_that_of_the_upright_image_when_xmp_turns_it(tmp_path, suffix) -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    said = {".png": {"pnginfo": text}, ".tif": {"tiffinfo": {700: xmp}}}.get(suffix, {"xmp": xmp})
    Image.fromarray(colours(64)[:40]).save(tmp_path / f"a{suffix}", **said)
    _check_size(tmp_path / f"a{suffix}", 6)


def _check_size(file: Path, orientation: int) -> None:
    height, width, turned = read_size(file, "defects")
    assert (height, width) == decode_image(read_bytes(file)).shape[:2] == ((40, 64) if orientation < 5 else (64, 40))
    assert turned is (orientation != 1)


def test_a_size_is_refused_when_the_file_is_no_image(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"`defects` holds an unreadable image, '.*a.png': not an image"):
        read_size(tmp_path / "a.png", "defects")
    with pytest.raises(ValueError, match=r"`defects` holds an unreadable image, '.*b.png': cannot be read"):
        read_size(tmp_path / "b.png", "defects")


def test_a_reason_is_given_when_an_input_cannot_be_read(tmp_path) -> None:
    for name, reason in write_unreadable(tmp_path).items():
        with allow_large_images(), pytest.raises(UnreadableImageError, match=reason):
            ImageReader(white_point=WHITE).decode(read_bytes(tmp_path / name))


def test_a_reason_is_given_when_the_file_cannot_be_opened(tmp_path) -> None:
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        read_bytes(tmp_path / "gone.png")


def test_a_very_small_image_is_read_when_it_is_resized() -> None:
    image = Image.fromarray(colours(8))
    from io import BytesIO

    packed = BytesIO()
    image.save(packed, "PNG")
    assert decode_image(packed.getvalue(), image_size=ImageSize(32)).shape == (32, 32, 3)


def test_a_hundred_megapixels_are_read_in_little_memory_when_they_are_resized(tmp_path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(blank_png(10_000, 10_000))
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from anomalib_synth.images import ImageSize, allow_large_images, decode_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with allow_large_images():\n"
        "    pixels = decode_image(Path(sys.argv[1]).read_bytes(), image_size=ImageSize(64))\n"
        "assert pixels.shape == (64, 64, 3) and (pixels == 128).all()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(path)], capture_output=True, check=True)
    assert int(done.stdout) * 1024 < 8 * 10**8


def test_a_large_jpeg_is_decoded_at_a_reduced_scale_when_it_is_resized(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.images.reading.MAX_NATIVE_PIXELS", 2**12)
    sizes = []
    original = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, *a, **k: sizes.append(self.size) or original(self, *a, **k))
    Image.fromarray(colours(512)).save(tmp_path / "large.jpg", quality=95)
    pixels = decode_image(read_bytes(tmp_path / "large.jpg"), image_size=ImageSize(60)).astype(int)
    assert sizes == [(64, 64)]
    assert abs(pixels - colours(60).astype(int)).mean() < 4


def test_a_changed_file_is_refused_when_it_is_read_again(tmp_path) -> None:
    path = tmp_path / "part.png"
    Image.fromarray(colours()).save(path)
    normal = Normal(path=path, name="part.png", content=hash_bytes(path.read_bytes()))
    assert ImageReader().read_unchanged(normal).shape == (32, 32, 3)
    Image.fromarray(255 - colours()).save(path)
    with pytest.raises(ValueError, match=r"part.png' did \(other content\)"):
        ImageReader().read_unchanged(normal)
    path.unlink()
    with pytest.raises(ValueError, match=r"part.png' did \(cannot be read"):
        ImageReader().read_unchanged(normal)


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_of_a_palette_with_transparency(tmp_path) -> None:
    palette = Image.fromarray(colours()).quantize(32)
    palette.save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert digest_image(tmp_path / "a.png") == digest_pixels(np.asarray(palette.convert("RGB")))
    decode_mask(tmp_path / "a.png", "masks")

"""What anomalib's own reader would show differently is refused; all else is read the same."""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from anomalib.data.utils import read_image
from PIL import Image

from anomalib_synth.images import WhitePoint, check_host_agrees, check_host_masks, digest_image, read_size, read_tensor
from tests.unit.images.bad_inputs import colours, write_readable, write_unreadable

REFUSED = {"deep.png", "deep.tif", "float.tif", "rotated.png"}


def test_what_is_not_refused_is_read_as_anomalib_reads_it(tmp_path) -> None:
    for name in write_readable(tmp_path):
        path = tmp_path / name
        if name in REFUSED:
            with pytest.raises(
                ValueError, match=rf"`data` must hold .*1 of 1 are not .*{name}.*anomalib-synth convert"
            ):
                check_host_agrees([path], "data")
        else:
            check_host_agrees([path], "data")
            theirs = read_image(path, as_tensor=True)
            np.testing.assert_array_equal(np.asarray(read_tensor(path, "data")), np.asarray(theirs), err_msg=name)


def add_chunk(png: bytes, kind: bytes, data: bytes, *, last: bool) -> bytes:
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    place = len(png) - 12 if last else 33
    return png[:place] + chunk + png[place:]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", ["exif", "xmp", "packed xmp"])
def test_an_orientation_is_found_before_and_behind_the_pixels_of_a_png(tmp_path, kind, last) -> None:
    packed = BytesIO()
    Image.fromarray(colours()[:, :24]).save(packed, "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    chunk = {
        "exif": (b"eXIf", exif.tobytes()[6:]),
        "xmp": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "packed xmp": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    }[kind]
    (tmp_path / "a.png").write_bytes(add_chunk(packed.getvalue(), *chunk, last=last))
    upright = np.rot90(colours()[:, :24], -1)
    np.testing.assert_array_equal((read_tensor(tmp_path / "a.png", "x") * 255).round().permute(1, 2, 0), upright)
    assert read_size(tmp_path / "a.png", "x") == (*upright.shape[:2], True)
    with pytest.raises(ValueError, match="EXIF orientation, which anomalib ignores"):
        check_host_agrees([tmp_path / "a.png"], "data")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm"])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_file_that_is_cut_behind_its_header_is_named_before_training(tmp_path, suffix, share) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    check_host_agrees([path], "data")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=rf"1 of 1 are not .*a\.{suffix}': cannot be read \(damaged"):
        check_host_agrees([path], "data")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for check in (check_host_agrees, check_host_masks):
        with pytest.raises(ValueError, match=r"a\.png'.*it is a pipe"):
            check([tmp_path / "a.png"], "data")
    with pytest.raises(ValueError, match="it is a pipe"):
        digest_image(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("most", "is_read_alike"), [(65535, True), (4095, False)])
def test_colours_of_16_bits_are_accepted_where_all_of_them_are_used(tmp_path, channels, most, is_read_alike) -> None:
    samples = np.random.default_rng(0).integers(0, most + 1, (32, 32, channels), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), samples)
    if is_read_alike:
        check_host_agrees([tmp_path / "a.png"], "data")
        theirs = read_image(tmp_path / "a.png", as_tensor=True)
        np.testing.assert_array_equal(np.asarray(read_tensor(tmp_path / "a.png", "data")), np.asarray(theirs))
    else:
        with pytest.raises(ValueError, match="more than 8 bits a channel"):
            check_host_agrees([tmp_path / "a.png"], "data")


@pytest.mark.parametrize("turn", range(2, 9))
def test_turned_tiffs_are_accepted_as_anomalib_turns_them_too(tmp_path, turn) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(colours()[:, :24]).save(tmp_path / "a.tif", exif=exif)
    check_host_agrees([tmp_path / "a.tif"], "data")
    np.testing.assert_array_equal(
        np.asarray(read_tensor(tmp_path / "a.tif", "data")), np.asarray(read_image(tmp_path / "a.tif", as_tensor=True))
    )


def test_an_image_too_small_to_use_is_refused(tmp_path) -> None:
    Image.fromarray(colours(8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="smaller than 16 pixels a side"):
        check_host_agrees([tmp_path / "a.png"], "data")


def test_masks_that_mark_all_or_nothing_are_accepted_where_both_readers_agree(tmp_path) -> None:
    for value in (0, 255):
        Image.fromarray(np.full((32, 32), value, np.uint8)).save(tmp_path / f"{value}.png")
        check_host_masks([tmp_path / f"{value}.png"], "data")


@pytest.mark.parametrize("turn", range(2, 9))
def test_photographs_on_their_side_are_refused(tmp_path, turn) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(colours()).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(ValueError, match="EXIF orientation, which anomalib ignores"):
        check_host_agrees([tmp_path / "a.jpg"], "data")


def test_unreadable_files_are_named_before_training(tmp_path) -> None:
    write_unreadable(tmp_path)
    with pytest.raises(ValueError, match=r"'.*text.jpg': cannot be read \(not an image of a known format\)"):
        check_host_agrees([tmp_path / "text.jpg"], "data")
    with pytest.raises(ValueError, match="cannot be read"):
        check_host_agrees([tmp_path / "gone.png"], "data")


def test_no_program_is_started_when_a_file_is_postscript(tmp_path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n")
    events = []
    sys.addaudithook(lambda event, _: events.append(event))
    with pytest.raises(ValueError, match="not an image of a known format"):
        read_tensor(path, "normals")
    with pytest.raises(ValueError, match="not an image of a known format"):
        check_host_agrees([path], "data")
    assert not {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"} & set(events)


def test_masks_of_many_levels_are_refused_where_anomalib_reads_them(tmp_path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "sharp.png")
    Image.fromarray(mask).save(tmp_path / "soft.jpg", quality=60)
    check_host_masks([tmp_path / "sharp.png"], "data")
    with pytest.raises(ValueError, match=r"pixels instead of \d+ in '.*soft.jpg'.*convert --masks"):
        check_host_masks([tmp_path / "sharp.png", tmp_path / "soft.jpg"], "data")


def test_a_copy_is_the_same_image_whatever_its_name_and_format(tmp_path) -> None:
    image = Image.fromarray(colours())
    for name in ("a.png", "b.bmp", "c.tif", "d.webp"):
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(colours()[::-1, ::-1]).save(tmp_path / "e.png", exif=exif)
    Image.fromarray(colours()[..., 0]).save(tmp_path / "grey.png")
    assert len({digest_image(tmp_path / name) for name in ("a.png", "b.bmp", "c.tif", "d.webp", "e.png")}) == 1
    assert digest_image(tmp_path / "grey.png") != digest_image(tmp_path / "a.png")
    deep = (np.arange(32 * 32).reshape(32, 32) * 60).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    Image.fromarray(deep + np.uint16(1)).save(tmp_path / "other.png")
    assert digest_image(tmp_path / "deep.png") == digest_image(tmp_path / "deep.tif")
    assert digest_image(tmp_path / "deep.png") != digest_image(tmp_path / "other.png")


def test_a_dark_image_of_16_bit_colours_is_read_as_anomalib_does_when_others_use_all_bits(tmp_path) -> None:
    """By a white of its own it would be four times as bright."""
    random = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("bright.png", "dark.png")]
    for path, top in zip(paths, (2**16, 12_000), strict=True):
        cv2.imwrite(str(path), random.integers(0, top, (32, 32, 3)).astype(np.uint16))
    check_host_agrees(paths, "data")
    for path in paths:
        theirs = read_image(path, as_tensor=True)
        np.testing.assert_array_equal(np.asarray(read_tensor(path, "data")), np.asarray(theirs), err_msg=path.name)


def test_a_copy_cannot_be_told_when_a_file_is_gone(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"'.*gone\.png' cannot be read \(No such file.*take it away"):
        digest_image(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (
            WhitePoint(),
            "White of those is 1023 (10 bits). `white_point: 1023` of anomalib_synth.data.SyntheticDataModule",
        ),
        (
            WhitePoint(4095),
            "shown such images by the white 4095 (12 bits), so convert these by that one: add `--bit_depth 12`.",
        ),
        (WhitePoint(3000), "so convert these by that one."),
    ],
)
def test_the_refusal_of_deep_images_says_their_depth_or_that_of_the_model(tmp_path, shown, said) -> None:
    Image.fromarray(np.full((32, 32), 1000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=re.escape(said)):
        check_host_agrees([tmp_path / "a.png"], "data", shown=shown)

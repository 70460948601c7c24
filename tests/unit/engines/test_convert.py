"""Copies that every reader reads the same."""

from __future__ import annotations

import numpy as np
import pytest
from anomalib.data.utils import read_image
from PIL import Image

from anomalib_synth.commands.convert import convert
from anomalib_synth.images import check_host_agrees, check_host_masks
from tests.unit.images.bad_inputs import colours, ramp, write_readable, write_unreadable


def test_copies_are_read_by_anomalib_as_the_originals_are_here(tmp_path, capsys) -> None:
    expected = write_readable(tmp_path / "in" / "good")
    unreadable = write_unreadable(tmp_path / "in" / "bad")
    (tmp_path / "in" / "x.gif").write_bytes(b"GIF89a")
    convert(tmp_path / "in", out=tmp_path / "out")
    check_host_agrees((tmp_path / "out").rglob("*.png"), "data")
    named = {path.name: path for path in (tmp_path / "out" / "good").iterdir()}
    assert len(named) == len(expected)
    for name, pixels in expected.items():
        copy = named.get(f"{name.rpartition('.')[0]}.png") or named[f"{name.replace('.', '_').lower()}.png"]
        np.testing.assert_array_equal((read_image(copy) * 255).round(), pixels, err_msg=name)
    printed = capsys.readouterr().out
    assert all(f"bad/{name}" in printed for name in unreadable)
    assert "Left out x.gif of `images`: the format .gif is not read" in printed
    assert "White is 65535 (16 bits) and 1 for floating-point numbers." in printed


def test_images_to_predict_on_get_the_white_of_the_training_images(tmp_path, capsys) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(ramp().astype(np.uint16) * 4).save(tmp_path / "in" / "dark.png")
    convert(tmp_path / "in", out=tmp_path / "out", bit_depth=12)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "dark.png"))[..., 0], ramp() >> 2)
    assert "White is 4095 (12 bits)" in capsys.readouterr().out


def test_masks_get_two_levels(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "in" / "m.jpg", quality=60)
    convert(masks=tmp_path / "in", out=tmp_path / "out")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "m.png")), mask)
    check_host_masks([tmp_path / "out" / "m.png"], "data")


def test_images_and_the_masks_beside_them_are_told_apart(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "in" / "a_mask.png")
    Image.fromarray(ramp()).save(tmp_path / "in" / "a.png")
    convert(tmp_path / "in", out=tmp_path / "images")
    convert(masks=tmp_path / "in", out=tmp_path / "masks")
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["a.png"]
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a_mask.png"]


def test_masks_that_mark_nothing_stay_so_and_inverted_ones_are_named(tmp_path, capsys) -> None:
    (tmp_path / "in").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    Image.fromarray(mask).save(tmp_path / "in" / "empty.png")
    mask[20:30, 20:40] = 255
    Image.fromarray(255 - mask).save(tmp_path / "in" / "inverted.png")
    Image.fromarray(mask).save(tmp_path / "in" / "good.png")
    convert(masks=tmp_path / "in", out=tmp_path / "out")
    assert not np.asarray(Image.open(tmp_path / "out" / "empty.png")).any()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "good.png")), mask)
    assert not (tmp_path / "out" / "inverted.png").exists()
    printed = capsys.readouterr().out
    assert "Left out inverted.png of `masks`: it marks" in printed
    assert "2 of 3 files were converted" in printed


def test_a_copy_that_is_out_of_date_is_named_and_not_counted(tmp_path, capsys) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(colours()).save(tmp_path / "in" / name)
    convert(tmp_path / "in", out=tmp_path / "out")
    (tmp_path / "in" / "a.png").write_bytes(b"broken")
    convert(tmp_path / "in", out=tmp_path / "out")
    printed = capsys.readouterr().out
    assert (
        "Left out a.png of `images`: not an image of a known format. The copy of an earlier run is still there."
        in printed
    )
    assert "1 of 2 files were converted" in printed
    (tmp_path / "in" / "b.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="`images` must hold a file that can be read"):
        convert(tmp_path / "in", out=tmp_path / "out")


def test_names_that_differ_in_their_suffix_stay_apart(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.bmp", "A.tif", "b.png"):
        Image.fromarray(colours()).save(tmp_path / "in" / name)
    convert(tmp_path / "in", out=tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "A_tif.png",
        "a_bmp.png",
        "a_png.png",
        "b.png",
    ]


def test_a_finished_copy_is_kept_when_the_command_is_given_again(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(colours()).save(tmp_path / "in" / "a.png")
    convert(tmp_path / "in", out=tmp_path / "out")
    before = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    convert(tmp_path / "in", out=tmp_path / "out")
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == before
    assert len(list((tmp_path / "out").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "got neither"),
        ({"images": "in", "masks": "in"}, "got both"),
        ({"masks": "in", "bit_depth": 12}, "`bit_depth` and `image_size` have no effect"),
        ({"images": "in", "out": "in/out"}, "`out` must lie outside"),
        ({"images": "in", "bit_depth": 3}, "`bit_depth` must be in 8..16"),
        ({"images": "in", "image_size": 3}, "`image_size` must be"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, message) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(colours()).save(tmp_path / "in" / "a.png")
    paths = {name: tmp_path / value for name, value in arguments.items() if isinstance(value, str)}
    with pytest.raises(ValueError, match=message):
        convert(**{"out": tmp_path / "out"} | arguments | paths)
    assert not (tmp_path / "out").exists()


def test_names_fit_a_file_system_when_theirs_are_as_long_as_can_be(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    for stem in ("l" * 251, "é" * 125):
        for suffix in (".png", ".jpg"):
            Image.fromarray(ramp()).save(tmp_path / "in" / f"{stem}{suffix}")
    convert(tmp_path / "in", out=tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 4
    assert all(len(name.encode()) <= 255 and name.endswith(".png") for name in names)

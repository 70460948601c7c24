"""Odd images from end to end: one reading for every command, or a refusal before any work."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.data.utils import read_image
from PIL import Image

from anomalib_synth.calibration.held_out import check_normals_not_learned, list_normals
from anomalib_synth.calibration.kept_white_point import read_kept_white_point
from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.cli import main
from anomalib_synth.commands.convert import convert
from anomalib_synth.commands.generate import generate
from anomalib_synth.commands.preview import preview
from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.data.held_out import LEARNED
from anomalib_synth.generators import RuleBasedGenerator, StoredGenerator
from anomalib_synth.images import WhitePoint, digest_file
from anomalib_synth.store import SampleStore
from tests.contract import render_normals
from tests.integration.models import make_engine, make_supersimplenet

if TYPE_CHECKING:
    from pathlib import Path


def levels(count: int = 6, height: int = 64, width: int = 64) -> list[np.ndarray]:
    """Grey parts, (height, width) uint8."""
    return [(image[0].numpy() * 255).round().astype(np.uint8) for image in render_normals(count, 3, height, width)]


def write_deep(folder: Path, bits: int = 12) -> list[np.ndarray]:
    """Write a folder of a camera's 16-bit files and return their high bits."""
    folder.mkdir(parents=True)
    for position, image in enumerate(levels()):
        Image.fromarray(image.astype(np.uint16) << (bits - 8)).save(folder / f"{position:03d}.png")
    return levels()


def write_turned(folder: Path) -> None:
    """Write photographs that lie on their side."""
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    for position, image in enumerate(levels(height=48)):
        Image.fromarray(image).convert("RGB").save(folder / f"{position:03d}.jpg", quality=95, exif=exif)


def fit_on(folder: Path, tmp_path: Path, **options) -> None:
    datamodule = Folder(name="part", normal_dir=folder, val_split_mode="from_train", test_split_mode="none", **options)
    callback = SynthesisCallback(RuleBasedGenerator(["nsa"]))
    make_engine(tmp_path, [callback]).fit(make_supersimplenet(), datamodule=datamodule)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_camera_of_more_than_8_bits_gives_the_same_picture_everywhere(tmp_path, bits, capsys) -> None:
    expected = write_deep(tmp_path / "normals", bits)
    generate(tmp_path / "normals", out=tmp_path / "store", num_samples=6)
    store = SampleStore.open(tmp_path / "store")
    assert store.settings["normals"]["white_point"] == {"integer": 2**bits - 1, "floating": None}
    for record in store.records:
        source = store.read_source(record)
        np.testing.assert_array_equal(source[..., 0], expected[int(record.source[:3])])
    assert f"White is {2**bits - 1} ({bits} bits)" in capsys.readouterr().out
    preview(tmp_path / "normals", tmp_path / "preview.png", generator=RuleBasedGenerator(["nsa"]), image_size=None)
    assert f"White is {2**bits - 1}" in capsys.readouterr().out
    generate(tmp_path / "normals", out=tmp_path / "store", num_samples=8)  # goes on with the white it has
    generate(tmp_path / "normals", out=tmp_path / "store", num_samples=9, bit_depth=bits)  # which may be said


def test_the_user_has_the_last_word_on_white(tmp_path) -> None:
    expected = write_deep(tmp_path / "normals", 12)
    generate(tmp_path / "normals", out=tmp_path / "store", num_samples=1, bit_depth=14)
    store = SampleStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.read_source(store.records[0])[..., 0], expected[0] >> 2)
    with pytest.raises(ValueError, match=r"other settings \(normals.white_point.*integer: 16383 in the store"):
        generate(tmp_path / "normals", out=tmp_path / "store", num_samples=2, bit_depth=12)


@pytest.mark.parametrize("write", [write_deep, write_turned])
def test_training_is_refused_before_it_starts_when_anomalib_reads_another_picture(tmp_path, write) -> None:
    write(tmp_path / "normals")
    with pytest.raises(ValueError, match=r"`data` must hold images that anomalib reads.*anomalib-synth convert"):
        fit_on(tmp_path / "normals", tmp_path)
    base = Folder(name="part", normal_dir=tmp_path / "normals")
    with pytest.raises(ValueError, match=r"`base` must hold images that anomalib reads.*anomalib-synth convert"):
        SyntheticDataModule(base, RuleBasedGenerator(["nsa"]), root=tmp_path / "kept").setup()
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("write", [write_deep, write_turned])
def test_converted_copies_train_on_the_pixels_of_the_store(tmp_path, write) -> None:
    write(tmp_path / "normals")
    convert(tmp_path / "normals", out=tmp_path / "copies")
    generate(tmp_path / "copies", out=tmp_path / "store", num_samples=6)
    served = StoredGenerator(tmp_path / "store", paired=True)
    stored = {str(row.numpy().tobytes()) for row in served(torch.rand(1, 3, *shape_of(tmp_path / "copies"))).source}
    normals = {
        str(np.asarray(read_image(path, as_tensor=True)).tobytes()) for path in (tmp_path / "copies").rglob("*.png")
    }
    assert stored <= normals
    fit_on(tmp_path / "copies", tmp_path)


def shape_of(folder: Path) -> tuple[int, int]:
    width, height = Image.open(next(folder.rglob("*.png"))).size
    return height, width


def test_a_camera_of_12_bits_trains_and_its_white_is_kept_when_the_datamodule_is_given_it(tmp_path) -> None:
    write_deep(tmp_path / "normals", 12)
    base = Folder(name="part", normal_dir=tmp_path / "normals", val_split_mode="none", test_split_mode="none")
    generator = RuleBasedGenerator(["noise", "stain"], strength=(0.9, 1.0))
    datamodule = SyntheticDataModule(base, generator, splits=["val"], root=tmp_path / "kept", white_point="find")
    engine = make_engine(tmp_path, [SynthesisCallback(generator)])
    engine.fit(make_supersimplenet(), datamodule=datamodule)
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert read_kept_white_point(tmp_path / "model.ckpt", checkpoint) == WhitePoint(4095, None)


def test_a_run_neither_trains_on_what_it_holds_out_nor_forgets_the_normals_of_a_store(tmp_path, caplog) -> None:
    (tmp_path / "normals").mkdir()
    for position, image in enumerate(levels(10)):
        Image.fromarray(image).save(tmp_path / "normals" / f"{position:03d}.png")
    generate(tmp_path / "normals", out=tmp_path / "store", num_samples=10, image_size=32)
    base = Folder(name="part", normal_dir=tmp_path / "normals", val_split_mode="none", test_split_mode="none")
    drawing = RuleBasedGenerator(["noise", "stain"], strength=(0.9, 1.0))
    datamodule = SyntheticDataModule(base, drawing, splits=["val"], root=tmp_path / "kept")
    engine = make_engine(tmp_path, [SynthesisCallback(StoredGenerator(tmp_path / "store"))])
    engine.fit(make_supersimplenet(), datamodule=datamodule)
    assert "stored samples show images that this run validates or tests on" in caplog.text
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    learned = set(torch.load(tmp_path / "model.ckpt", weights_only=True)[LEARNED])
    held = {digest_file(path) for path in datamodule.val_data.samples.source_path}
    shown = {digest_file(tmp_path / "normals" / f"{position:03d}.png") for position in range(10)}
    assert len(held) == 2
    assert len(shown & learned) >= 5  # a normal whose draws were all rejected is in no sample
    assert not held & learned
    normals, _ = list_normals(tmp_path / "normals", 10)
    said = f"`normals` must not hold images that the model has learned, got {len(shown & learned)} of 10"
    with pytest.raises(ValueError, match=said):
        check_normals_not_learned(normals, {LEARNED: sorted(learned)})
    with pytest.raises(ValueError, match=said):
        check_normals_not_learned(normals, {"SyntheticDataModule": {LEARNED: sorted(learned)}})


def test_a_cut_image_is_named_before_the_first_batch(tmp_path) -> None:
    (tmp_path / "normals").mkdir()
    for position, image in enumerate(levels()):
        Image.fromarray(image).save(tmp_path / "normals" / f"{position:03d}.png")
    path = tmp_path / "normals" / "002.png"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"1 of 6 are not .*002\.png': cannot be read \(damaged"):
        fit_on(tmp_path / "normals", tmp_path)


def test_photographs_are_upright_in_the_store(tmp_path) -> None:
    write_turned(tmp_path / "normals")
    generate(tmp_path / "normals", out=tmp_path / "store", num_samples=3)
    store = SampleStore.open(tmp_path / "store")
    for record in store.records:
        upright = np.rot90(np.asarray(Image.open(tmp_path / "normals" / record.source)), -1)
        np.testing.assert_array_equal(store.read_source(record), upright)


def test_what_is_no_image_of_the_user_is_left_out_of_every_command(tmp_path, parts_root, capsys) -> None:
    normals = tmp_path / "normals"
    shutil.copytree(parts_root / "train" / "good", normals)
    (normals / "._000.png").write_bytes(b"\x00\x05\x16\x07")
    (normals / ".ipynb_checkpoints").mkdir()
    shutil.copy(normals / "000.png", normals / ".ipynb_checkpoints" / "000-checkpoint.png")
    (normals / "old.gif").write_bytes(b"GIF89a")
    (normals / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    os.mkfifo(normals / "pipe.png")
    whole = (normals / "000.png").read_bytes()
    (normals / "cut.png").write_bytes(whole[: len(whole) // 2])
    (normals / "more").symlink_to(parts_root)
    generate(normals, out=tmp_path / "none", num_samples=12, dry_run=True)
    generate(normals, out=tmp_path / "store", num_samples=12)
    store = SampleStore.open(tmp_path / "store")
    assert {record.source for record in store.records} == {f"{n:03d}.png" for n in range(12)}
    assert set(store.settings["normals"]["unreadable"]) == {"old.gif", "x.png", "pipe.png", "cut.png", "more"}
    main(["preview", f"--normals={normals}", f"--out={tmp_path / 'p.png'}", "--per_family=1"])
    main(["convert", f"--images={normals}", f"--out={tmp_path / 'copies'}"])
    printed = capsys.readouterr().out
    assert printed.count("Left out old.gif of `normals`: the format .gif is not read") == 3
    assert printed.count("Left out pipe.png of `normals`: it is a pipe, and only files are images") == 3
    assert printed.count("Left out more of `normals`: a link to a folder is not followed") == 3
    assert printed.count("Left out more of `images`: a link to a folder is not followed") == 1
    assert "Left out x.png of `normals`: not an image of a known format" in printed
    assert printed.count("cut.png of `normals`: damaged or unsupported") == 3
    assert "._000" not in printed
    with pytest.raises(ValueError, match=r"2 of 14 are not .*cut\.png': cannot be read"):
        list_normals(normals, 100)


def test_the_shape_is_kept_when_a_long_side_is_given(tmp_path) -> None:
    (tmp_path / "normals").mkdir()
    for position, image in enumerate(levels(2, 300, 400)):
        Image.fromarray(image).convert("RGB").save(tmp_path / "normals" / f"{position}.jpg")
    for size, shape in ((128, (96, 128, 3)), ("64x80", (64, 80, 3))):
        generate(tmp_path / "normals", out=tmp_path / f"store{size}", num_samples=2, image_size=size)
        store = SampleStore.open(tmp_path / f"store{size}")
        assert {store.read_source(record).shape for record in store.records} == {shape}
        generate(tmp_path / "normals", out=tmp_path / f"store{size}", num_samples=3, image_size=size)


def test_a_turned_foreground_is_refused(tmp_path) -> None:
    mask = np.zeros((80, 60), np.uint8)
    mask[10:70, 10:50] = 255
    Image.fromarray(mask).save(tmp_path / "part.png")
    generator = RuleBasedGenerator(["nsa"], foreground=tmp_path / "part.png")
    generator(render_normals(1, 3, 160, 120), seeds=[1])
    with pytest.raises(ValueError, match=r"`foreground` mask .* got 60 x 80 pixels .* 120 x 90.* turned by a quarter"):
        generator(render_normals(1, 3, 90, 120), seeds=[1])


def test_soft_masks_are_refused_where_anomalib_would_count_their_shadows(tmp_path, parts_root) -> None:
    root = shutil.copytree(parts_root, tmp_path / "part")
    for mask in (root / "ground_truth" / "spot").iterdir():
        Image.open(mask).save(mask.with_suffix(".jpg"), quality=50)
        mask.unlink()
    base = Folder(
        name="part", root=root, normal_dir="train/good", abnormal_dir="test/spot", mask_dir="ground_truth/spot"
    )
    with pytest.raises(ValueError, match=r"`base` must hold masks that anomalib reads as they are.*convert --masks"):
        SyntheticDataModule(base, RuleBasedGenerator(["nsa"]), root=tmp_path / "kept").setup()

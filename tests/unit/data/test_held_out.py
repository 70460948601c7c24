"""Copies of one image under several names are one image: never trained on and held out at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from anomalib.data import Folder
from PIL import Image

from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.data.held_out import find_learned, remember_learned
from anomalib_synth.generators import RealDefectGenerator, RuleBasedGenerator
from anomalib_synth.images import digest_file, digest_images
from tests.conftest import save_images
from tests.contract import render_normals


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """12 good images, each there twice; test images of which three are copies of training images, one of another."""
    save_images(tmp_path / "good", render_normals(12, 3, 48, 48, seed=1))
    save_images(tmp_path / "test_good", render_normals(5, 3, 48, 48, seed=2))
    save_images(tmp_path / "bad", render_normals(3, 3, 48, 48, seed=3))
    for index in range(12):
        shutil.copy(tmp_path / "good" / f"{index:03d}.png", tmp_path / "good" / f"copy_{index:03d}.png")
    for index in range(3):
        shutil.copy(tmp_path / "good" / f"{index:03d}.png", tmp_path / "test_good" / f"x{index}.png")
    shutil.copy(tmp_path / "test_good" / "000.png", tmp_path / "test_good" / "y.png")
    return tmp_path


def contents(dataset) -> list[str]:
    names = "source_path" if "source_path" in dataset.samples else "image_path"
    return [digest_file(path) for path in dataset.samples[names]]


def wrap(root: Path, splits: list[str], **options) -> SyntheticDataModule:
    base = Folder(name="parts", root=root, normal_dir="good", num_workers=0, **options)
    datamodule = SyntheticDataModule(
        base, RuleBasedGenerator(["cutout"]), splits=splits, root=root / "kept", val_ratio=0.3, test_ratio=0.3
    )
    datamodule.setup()
    return datamodule


@pytest.mark.parametrize("splits", [["val", "test"], ["val"], ["test"], ["train", "val", "test"]])
@pytest.mark.parametrize("own", [False, True], ids=["from the training images", "own test images"])
def test_copies_are_on_one_side_when_a_split_is_drawn(root: Path, splits: list[str], own: bool) -> None:
    options = {"normal_test_dir": "test_good", "abnormal_dir": "bad"} if own and "test" in splits else {}
    options |= {} if "val" in splits else {"val_split_mode": "from_test" if own else "same_as_test"}
    datamodule = wrap(root, splits, **options)
    train = contents(datamodule.train_data)
    assert len(set(train)) == len(train)
    for split in splits:
        if split != "train":
            held_out = contents(getattr(datamodule, f"{split}_data"))
            assert len(set(held_out)) == len(held_out) >= 2
            assert not set(held_out) & set(train)
    if {"val", "test"} <= set(splits):
        assert not set(contents(datamodule.val_data)) & set(contents(datamodule.test_data))


def test_copies_are_counted_when_they_are_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrap(root, ["val", "test"], normal_test_dir="test_good")
    assert "16 images that are copies of others" in caplog.text


def test_unnamed_split_is_left_alone_when_it_holds_copies(root: Path) -> None:
    datamodule = wrap(root, ["val"], normal_test_dir="test_good", abnormal_dir="bad")
    assert len(datamodule.test_data) == 9 + 3


@pytest.mark.parametrize(("splits", "learned"), [(["train"], 3), (["train", "val"], 3), (["val"], 0)])
def test_a_checkpoint_knows_the_real_defects_when_training_images_show_them(root, splits, learned) -> None:
    (root / "marks").mkdir()
    for path in (root / "bad").glob("*.png"):
        mask = np.zeros((48, 48), np.uint8)
        mask[10:30, 10:30] = 255
        Image.fromarray(mask).save(root / "marks" / path.name)
    base = Folder(name="parts", root=root, normal_dir="good", num_workers=0)
    generator = RealDefectGenerator(root / "bad", root / "marks")
    datamodule = SyntheticDataModule(base, generator, splits=splits, root=root / "kept")
    datamodule.setup()
    checkpoint = {"state_dict": {}, "SyntheticDataModule": datamodule.state_dict()}  # as Lightning writes it
    assert len(find_learned(checkpoint)) == learned
    assert find_learned(checkpoint) <= set(digest_images(sorted((root / "bad").glob("*.png"))))
    remember_learned(checkpoint, ["ab"])
    assert len(find_learned(checkpoint)) == learned + 1

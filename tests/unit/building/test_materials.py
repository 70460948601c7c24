"""The folders of a build: only what belongs there, and every reader reads it alike."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.building.looking import look_at
from anomalib_synth.building.materials import lay_out, list_real_defects
from anomalib_synth.building.splitting import Split, split_defects
from anomalib_synth.images import check_host_agrees, list_images


def save(path, seed: int, *, deep: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 255, (32, 32))
    Image.fromarray(levels.astype(np.uint16) * 16 if deep else levels.astype(np.uint8)).save(path)


def split_of(looks, train: int) -> Split:
    contents = sorted(look.content for look in looks.images)
    return Split(train=contents[:train], validation=contents[train : train + 2], calibration=contents[train + 2 :])


def test_files_are_converted_when_anomalib_would_misread_them(tmp_path) -> None:
    for n in range(4):
        save(tmp_path / "good" / f"{n}.png", n)
    for n in range(4, 8):
        save(tmp_path / "good" / "deep" / f"{n}.png", n, deep=True)
    looks = look_at(tmp_path / "good")
    folders = lay_out(looks, split_of(looks, 4), tmp_path / "images")
    paths = [path for part in ("train", "validation", "calibration") for path in list_images(folders.root / part).paths]
    assert len(paths) == 8
    check_host_agrees(paths, "normals")
    levels = [np.asarray(Image.open(path).convert("L")).max() for path in paths if path.parent.name == "deep"]
    assert len(levels) == 4
    assert min(levels) > 200  # by white at 4095, not at 65535


def test_stale_files_are_taken_away_when_the_split_changes(tmp_path) -> None:
    for n in range(8):
        save(tmp_path / "good" / f"{n}.png", n)
    looks = look_at(tmp_path / "good")
    lay_out(looks, split_of(looks, 4), tmp_path / "images")
    folders = lay_out(looks, split_of(looks, 2), tmp_path / "images")
    assert len(list_images(folders.train).paths) == 2
    assert len(list_images(folders.calibration).paths) == 4
    assert len(list_images(tmp_path / "good").paths) == 8


def test_defect_is_refused_when_it_is_among_the_good_images(tmp_path) -> None:
    for n in range(4):
        save(tmp_path / "good" / f"{n}.png", n)
    save(tmp_path / "bad" / "other.png", 3)
    with pytest.raises(ValueError, match=r"`defects` must not hold images that are in `normals`, got 1"):
        list_real_defects(tmp_path / "bad", None, look_at(tmp_path / "good"))


def test_learned_defects_keep_their_masks_when_they_are_converted(tmp_path) -> None:
    from anomalib_synth.defects import list_defects

    for n in range(4):
        save(tmp_path / "good" / f"{n}.png", n, deep=True)
    mask = np.zeros((32, 32), np.uint8)
    mask[4:9, 5:12] = 255
    for n in range(10):
        save(tmp_path / "bad" / f"{n}.png", 20 + n, deep=True)
        Image.fromarray(mask).save(tmp_path / "bad" / f"{n}_mask.png")
    looks = look_at(tmp_path / "good")
    real, _ = list_real_defects(tmp_path / "bad", None, looks)
    learned, judged = split_defects(list(real), 0)
    folders = lay_out(
        looks, split_of(looks, 1), tmp_path / "images", learned=[real[each] for each in learned],
        judged=[real[each] for each in judged],
    )  # fmt: skip
    check_host_agrees([*folders.learned, *list_images(folders.defects).paths], "defects")
    found = list_defects(folders.learned)
    assert [defect.kind for defect in found] == ["mask"] * 5
    assert all((defect.read_marks() > 0).any() for defect in found)

"""The folders of a build: only what belongs there, and every reader reads it alike."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.building.data_folders import lay_out, list_real_defects
from anomalib_synth.building.image_survey import look_at
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
    found = list_real_defects(tmp_path / "bad", None, looks)
    real = found.defects
    learned, judged = split_defects(found.groups, 0)
    folders = lay_out(
        looks, split_of(looks, 1), tmp_path / "images", learned=[real[each] for each in learned],
        judged=[real[each] for each in judged],
    )  # fmt: skip
    check_host_agrees([*folders.learned, *list_images(folders.defects).paths], "defects")
    found = list_defects(folders.learned)
    assert [defect.kind for defect in found] == ["mask"] * 5
    assert all((defect.read_marks() > 0).any() for defect in found)


def test_learned_defects_keep_boxes_clicks_and_types_when_they_are_converted(tmp_path) -> None:
    from anomalib_synth.defects import list_defects

    shapes = {
        "box": {"shape_type": "rectangle", "points": [[4, 5], [12, 15]]},
        "point": {"shape_type": "point", "points": [[20, 8]]},
        "scribble": {"shape_type": "linestrip", "points": [[3, 3], [9, 9], [20, 9]]},
        "mask": {"shape_type": "polygon", "points": [[3, 3], [9, 3], [9, 20]]},
    }
    save(tmp_path / "good" / "0.png", 0, deep=True)
    for n, (kind, shape) in enumerate(shapes.items()):
        save(tmp_path / "bad" / f"{kind}.png", 20 + n, deep=True)
        content = {"shapes": [{"label": f"type {kind}", **shape}]}
        (tmp_path / "bad" / f"{kind}.json").write_text(json.dumps(content))
    save(tmp_path / "bad" / "image.png", 30, deep=True)
    looks = look_at(tmp_path / "good")
    given = [*list_real_defects(tmp_path / "bad", None, looks).defects.values()]
    folders = lay_out(looks, split_of(looks, 1), tmp_path / "images", learned=given)
    check_host_agrees(folders.learned, "defects")
    found = list_defects(folders.learned)
    assert [each.kind for each in found] == [each.kind for each in given]
    assert {each.kind for each in found} == {*shapes, "image"}
    assert [each.family for each in found] == [each.family for each in given]
    for new, old in zip(found, given, strict=True):
        assert (new.read_marks() == old.read_marks()).all()


def test_defects_saved_twice_are_one_group_when_they_are_listed(tmp_path) -> None:
    save(tmp_path / "good" / "0.png", 0)
    for n in range(10):
        save(tmp_path / "bad" / f"{n}.png", 20 + n)
    Image.open(tmp_path / "bad" / "4.png").save(tmp_path / "bad" / "again.jpg", quality=90)
    shutil.copy(tmp_path / "bad" / "5.png", tmp_path / "bad" / "copy.png")
    real = list_real_defects(tmp_path / "bad", None, look_at(tmp_path / "good"))
    assert len(real.defects) == 11
    assert sorted(map(len, real.groups)) == [1] * 9 + [2]
    assert [line.split(" are ")[0] for line in real.odd] == ["1 real defects", "1 real defects"]


def test_good_image_is_found_among_the_defects_when_it_has_more_bits(tmp_path) -> None:
    save(tmp_path / "good" / "3.png", 3, deep=True)
    save(tmp_path / "bad" / "other.png", 3, deep=True)
    levels = np.asarray(Image.open(tmp_path / "bad" / "other.png")).copy()
    levels[0, 0] += 1  # which is no other picture in 8 bits
    Image.fromarray(levels).save(tmp_path / "bad" / "other.png")
    with pytest.raises(ValueError, match=r"`defects` must not hold images that are in `normals`, got 1"):
        list_real_defects(tmp_path / "bad", None, look_at(tmp_path / "good"))


def test_defect_is_named_when_it_is_cut_off(tmp_path) -> None:
    save(tmp_path / "good" / "0.png", 0)
    save(tmp_path / "bad" / "cut.png", 9)
    (tmp_path / "bad" / "cut.png").write_bytes((tmp_path / "bad" / "cut.png").read_bytes()[:400])
    with pytest.raises(ValueError, match=r"`defects` holds an unreadable image, '.*cut.png'"):
        list_real_defects(tmp_path / "bad", None, look_at(tmp_path / "good"))


def test_judged_defect_is_laid_out_when_its_name_is_as_long_as_the_disk_allows(tmp_path) -> None:
    save(tmp_path / "good" / "0.png", 0)
    save(tmp_path / "bad" / f"{'x' * 251}.png", 9)
    save(tmp_path / "bad" / f"{'y' * 251}.png", 8, deep=True)
    looks = look_at(tmp_path / "good")
    real = list_real_defects(tmp_path / "bad", None, looks)
    folders = lay_out(looks, split_of(looks, 1), tmp_path / "images", judged=[*real.defects.values()])
    assert len(list_images(folders.defects).paths) == 2

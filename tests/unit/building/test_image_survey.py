"""What a build says of the images, and of what it says nothing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anomalib_synth.building.image_survey import look_at
from anomalib_synth.building.oddities import find_bright, find_moved, group_near_copies


def draw_part(seed: int, *, right: int = 0, down: int = 0, side: int = 96) -> np.ndarray:
    """A bright part with a dark bar on a grey ground, with noise of its own."""
    random = np.random.default_rng(seed)
    image = np.full((side, side), 90.0)
    image[24 + down : 72 + down, 20 + right : 64 + right] = 200
    place = 27 + 3 * (seed % 13)
    image[place + down : place + 5 + down, 26 + right : 50 + right] = 40
    return (image + random.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


def draw_texture(seed: int, side: int = 96) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (side, side)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3)))


@pytest.fixture
def folder(tmp_path):
    for n in range(12):
        Image.fromarray(draw_part(n)).save(tmp_path / f"{n:02d}.png")
    return tmp_path


def kinds(folder) -> dict[str, list[str]]:
    return {oddity.kind: oddity.names for oddity in look_at(folder).oddities}


def test_nothing_is_odd_when_the_images_are_alike(folder) -> None:
    looks = look_at(folder)
    assert not looks.oddities
    assert [len(group) for group in looks.groups] == [1] * 12


def test_copies_are_one_group_when_they_have_other_names(folder) -> None:
    shutil.copy(folder / "03.png", folder / "other.png")
    looks = look_at(folder)
    assert len(looks.groups) == 12
    assert {oddity.kind: oddity.names for oddity in looks.oddities} == {"copies": ["other.png"]}


def test_near_copies_are_one_group_when_a_picture_was_saved_again(folder) -> None:
    Image.open(folder / "05.png").save(folder / "x.jpg", quality=80)
    looks = look_at(folder)
    assert sorted(map(len, looks.groups)) == [1] * 11 + [2]
    assert {oddity.kind: oddity.names for oddity in looks.oddities} == {"near copies": ["x.jpg"]}


def test_no_near_copies_when_all_images_are_alike() -> None:
    still = draw_part(0, side=96)[:64, :64] / 255
    random = np.random.default_rng(0)
    assert len(group_near_copies([still + random.normal(0, 0.001, still.shape) for _ in range(20)])) == 20


def test_size_and_depth_are_named_when_they_differ(folder) -> None:
    Image.fromarray(draw_part(30)).resize((96, 80)).save(folder / "small.png")
    Image.fromarray(draw_part(31).astype(np.uint16) * 16).save(folder / "deep.png")
    found = kinds(folder)
    assert found["sizes"] == ["small.png"]
    assert found["depths"] == ["deep.png"] or "depths" in found
    texts = [oddity.text for oddity in look_at(folder).oddities]
    assert any("proportions" in text for text in texts)
    assert any("8-bit upright copies" in text for text in texts)


def test_unreadable_file_is_named_and_left_out_when_it_is_broken(folder) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    looks = look_at(folder)
    assert len(looks.images) == 12
    assert [look.name for look in looks.unreadable] == ["broken.png"]


@pytest.mark.parametrize(("value", "found"), [(0.9, [12]), (0.1, [12]), (0.52, [])])
def test_image_is_named_when_it_is_much_brighter_or_darker(value, found) -> None:
    random = np.random.default_rng(0)
    assert find_bright([*(0.5 + random.normal(0, 0.005, 12)), value]) == found


def test_shift_is_told_when_one_part_is_moved(folder) -> None:
    Image.fromarray(draw_part(40, right=18, down=9)).save(folder / "moved.png")
    looks = look_at(folder)
    assert {oddity.kind: oddity.names for oddity in looks.oddities} == {"moved": ["moved.png"]}
    odd = next(look.odd for look in looks.images if look.name == "moved.png")
    assert odd == "the part lies 19% right and 9% down"


def test_nothing_is_said_of_moves_when_the_images_are_textures() -> None:
    assert find_moved([draw_texture(n)[:64, :64] / 255 for n in range(12)]) == {}


def test_images_are_copies_when_they_differ_in_what_8_bits_do_not_show(tmp_path) -> None:
    levels = np.random.default_rng(0).integers(0, 4096, (32, 32)).astype(np.uint16) // 16 * 16
    for n in range(3):
        Image.fromarray(levels + np.uint16(n)).save(tmp_path / f"{n}.png")
    looks = look_at(tmp_path)
    assert len({look.content for look in looks.images}) == 1
    assert looks.groups == [[looks.images[0].content]]


def test_images_are_read_by_the_bit_depth_when_one_is_given(tmp_path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 1024, (32, 32)).astype(np.uint16)).save(tmp_path / "a.png")
    looks = look_at(tmp_path, bit_depth=12)
    assert looks.white_point.integer == 4095
    assert looks.images[0].brightness < 0.25 < look_at(tmp_path).images[0].brightness


def test_contents_change_when_another_image_changes_the_white_point(tmp_path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 1024, (32, 32)).astype(np.uint16)).save(tmp_path / "a.png")
    before = look_at(tmp_path).images[0].content
    Image.fromarray(np.full((32, 32), 60000, np.uint16)).save(tmp_path / "b.png")
    assert look_at(tmp_path).images[0].content != before


@pytest.mark.parametrize("at_once", [1, 5, 512])
def test_near_copies_are_the_same_when_fewer_images_are_compared_at_a_time(at_once, monkeypatch) -> None:
    random = np.random.default_rng(0)
    thumbnails = [random.random((64, 64)).astype(np.float32) for _ in range(12)]
    thumbnails += [thumbnails[3] + np.float32(0.001), thumbnails[9] + np.float32(0.001), thumbnails[3]]
    monkeypatch.setattr("anomalib_synth.building.oddities._AT_ONCE", at_once, raising=False)
    groups = group_near_copies(thumbnails)
    assert [group for group in groups if len(group) > 1] == [[3, 12, 14], [9, 13]]
    assert sorted(n for group in groups for n in group) == list(range(15))

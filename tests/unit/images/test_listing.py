"""One listing for every command."""

from __future__ import annotations

import os
import sys

import pytest

from anomalib_synth.images import IS_MASK, find_images, list_images, list_masks


def test_hidden_files_and_copies_of_notebooks_are_left_out(tmp_path) -> None:
    for name in ("a/000.png", "a/._000.png", "a/.ipynb_checkpoints/000.png", "__MACOSX/000.png", ".cache/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert list(list_images(tmp_path).files) == ["a/000.png"]


def test_a_folder_within_a_hidden_one_is_listed(tmp_path) -> None:
    folder = tmp_path / ".data" / "good"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(b"x")
    assert list(list_images(folder).files) == ["0.png"]


def test_a_mask_beside_its_image_is_no_image(tmp_path) -> None:
    for name in ("a/000.jpg", "a/000_mask.png", "b/000_mask.png", "face_mask.png", "c/000.gif", "c/000_mask.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listing = list_images(tmp_path, "images")
    assert list(listing.files) == ["a/000.jpg", "b/000_mask.png", "face_mask.png"]
    assert listing.notes()[-1] == f"Left out a/000_mask.png and c/000_mask.png of `images`: {IS_MASK}."
    masks = list_masks(tmp_path)
    assert list(masks.files) == ["a/000_mask.png", "b/000_mask.png", "c/000_mask.png", "face_mask.png"]
    assert "masks here end in `_mask`" in masks.foreign["a/000.jpg"]


@pytest.mark.parametrize("names", [("a.heic", "a_mask.png"), ("a.png", "a_mask.gif"), ("n/a.png", "n/a_mask.png")])
def test_no_image_is_a_mask_where_one_mask_lies_beside_its_image(tmp_path, names) -> None:
    for name in ("other.png", "m/000.png", *names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    masks = list_masks(tmp_path)
    assert set(masks.files) <= {names[1]}
    assert {"other.png", "m/000.png"} <= set(masks.foreign)
    assert ("a_mask.gif" in masks.foreign) == (names[1] == "a_mask.gif")


def test_a_folder_of_masks_alone_is_listed_whole(tmp_path) -> None:
    for name in ("000.png", "001_mask.png"):
        (tmp_path / name).write_bytes(b"x")
    assert list(list_masks(tmp_path).files) == ["000.png", "001_mask.png"]


def test_other_formats_are_counted_and_named(tmp_path) -> None:
    for name in ("a.png", "b.gif", "c.JP2", "d.gif", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_images(tmp_path)
    assert list(listing.foreign) == ["b.gif", "c.JP2", "d.gif"]
    assert listing.notes() == [
        "Left out b.gif and d.gif of `normals`: the format .gif is not read; convert it to PNG.",
        "Left out c.JP2 of `normals`: the format .jp2 is not read; convert it to PNG.",
    ]


def test_the_error_counts_other_formats_when_there_is_nothing_else(tmp_path) -> None:
    (tmp_path / "b.gif").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"`masks` must be .* which holds none\. Left out b\.gif of `masks`: the"):
        list_images(tmp_path, "masks")


def test_a_folder_called_like_an_image_is_no_image(tmp_path) -> None:
    (tmp_path / "parts.png").mkdir()
    (tmp_path / "parts.png" / "0.png").write_bytes(b"x")
    assert list(list_images(tmp_path).files) == ["parts.png/0.png"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch) -> None:
    for name in ("a/0.png", "b/0.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    original = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = list_images(tmp_path)
    assert list(listing.files) == ["a/0.png"]
    assert listing.foreign == {"b": "the folder cannot be read (Permission denied)"}


def test_folder_is_no_image_in_another_format_when_it_is_not_there(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"which is no folder\.$"):
        list_images(tmp_path / "nowhere")


def test_link_to_a_folder_is_named_when_it_is_not_followed(tmp_path) -> None:
    for name in ("elsewhere/b.png", "good/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "good" / "more").symlink_to(tmp_path / "elsewhere")
    listing = find_images(tmp_path / "good")
    assert list(listing.files) == ["a.png"]
    assert listing.foreign == {"more": "a link to a folder is not followed; name that folder, or copy it here"}
    assert listing.notes() == [f"Left out more of `normals`: {listing.foreign['more']}."]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_left_out_and_named_when_it_is_called_like_an_image(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "d.png").symlink_to("/dev/zero")
    listing = find_images(tmp_path)
    assert list(listing.files) == ["a.png"]
    pipe, device = (f"it is a {kind}, and only files are images" for kind in ("pipe", "device"))
    assert listing.foreign == {"b.png": pipe, "c.png": pipe, "d.png": device}
    assert listing.notes() == [
        f"Left out b.png and c.png of `normals`: {pipe}.",
        f"Left out d.png of `normals`: {device}.",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_no_file_is_lost_when_two_names_are_written_alike(tmp_path) -> None:
    for name in (b"a\xff.png", b"a\\udcff.png", b"b.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(name)
    files = list_images(tmp_path).files
    assert list(files) == ["a\\udcff.png", "a\\udcff~.png", "b.png"]
    assert len({path.read_bytes() for path in files.values()}) == 3


def test_a_link_that_leads_to_itself_is_left_out_and_named(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    listing = find_images(tmp_path)
    assert list(listing.files) == ["a.png"]
    assert listing.foreign == {"loop.png": "it is a link that leads to itself, and only files are images"}

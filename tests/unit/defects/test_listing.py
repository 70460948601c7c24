"""Defects are listed with their marks wherever people keep them; what belongs to no image, or to two, is named."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.defects import RealDefect, list_defects
from tests.unit.defects.annotated import SIZE, block, coco, cvat, labelme, save_image, save_mask, save_text

BLOCK = block(5, 10, 15, 30)


@pytest.mark.parametrize(
    ("image", "mask", "defects"),
    [
        ("test/dent/a.png", "ground_truth/dent/a_mask.png", "test"),
        ("test/dent/a.png", "ground_truth/dent/a.png", "test/dent"),
        ("test/dent/a.png", "ground_truth/dent/a_mask.png", ""),
        ("images/dent/a.jpg", "masks/dent/a.png", "images"),
        ("dent/a.png", "dent/masks/a.png", "dent"),
        ("dent/a.png", "masks/dent/a.png", ""),
        ("dent/a.png", "dent/a_mask.png", ""),
        ("dent/images/a.png", "dent/masks/a_mask.bmp", ""),
    ],
)
@pytest.mark.parametrize("how", ["folder", "file", "files"])
def test_a_mask_is_found_when_it_lies_beside(tmp_path, image, mask, defects, how) -> None:
    save_image(tmp_path / "part" / image)
    save_mask(tmp_path / "part" / mask, BLOCK)
    file = tmp_path / "part" / image
    given = {"folder": tmp_path / "part" / defects, "file": str(file), "files": [file]}[how]
    (defect,) = list_defects(given)
    assert defect == RealDefect(image=file, family=file.parent.name, kind="mask")
    assert defect.files == (file, tmp_path / "part" / mask)
    np.testing.assert_array_equal(defect.read_marks(), BLOCK * 255)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", labelme([{"shape_type": "point", "points": [[1, 1]]}]), "point"),
        ("a.txt", "0 0.5 0.5 0.1 0.1", "box"),
        ("annotations.json", coco([{"bbox": [1, 1, 5, 5]}]), "box"),
        ("instances_val.json", coco([{"bbox": [1, 1, 5, 5]}]), "box"),
        ("annotations.xml", cvat('<box label="x" xtl="1" ytl="1" xbr="9" ybr="9"/>'), "box"),
    ],
)
def test_annotations_are_found_when_their_folder_is_given(tmp_path, name, content, kind, flat) -> None:
    image = save_image(tmp_path / "shots" / "dent" / "a.png")
    is_single = name.startswith("a.")
    save_text(tmp_path / "marks" / ("" if flat or not is_single else "dent") / name, content)
    for given in (tmp_path / "shots", [image]):
        (defect,) = list_defects(given, marks=tmp_path / "marks")
        assert defect.kind == kind


def test_nothing_beside_counts_when_marks_are_given(tmp_path) -> None:
    save_image(tmp_path / "test" / "dent" / "a.png")
    save_mask(tmp_path / "ground_truth" / "dent" / "a_mask.png", BLOCK)
    (tmp_path / "mine").mkdir()
    assert [defect.kind for defect in list_defects(tmp_path / "test", marks=tmp_path / "mine")] == ["image"]


def test_good_images_and_masks_are_left_out_when_they_lie_among_defects(tmp_path) -> None:
    for name in ("good/a.png", "dent/a.png", "dent/good/b.png", "dent/c.png", "top.png"):
        save_image(tmp_path / "part" / name)
    save_mask(tmp_path / "part" / "dent" / "a_mask.png", BLOCK)
    save_mask(tmp_path / "part" / "masks" / "dent" / "c.png", BLOCK)
    found = list_defects(tmp_path / "part")
    assert [(defect.image.name, defect.family, defect.kind) for defect in found] == [
        ("a.png", "dent", "mask"),
        ("c.png", "dent", "mask"),
        ("top.png", "part", "image"),
    ]


@pytest.mark.parametrize(("folder", "text"), [("masks", None), ("labels", "0 0.5 0.5 0.1 0.1")])
@pytest.mark.parametrize("below", ["", "dent"])
def test_marks_beside_are_those_of_the_images_when_there_are_such(tmp_path, folder, text, below) -> None:
    for name in ("images", "defects"):
        save_image(tmp_path / name / below / "000.png")
    if text is None:
        save_mask(tmp_path / folder / below / "000.png", BLOCK)
    else:
        save_text(tmp_path / folder / below / "000.txt", text)
    for how in (lambda place: place, lambda place: [place / below / "000.png"]):
        (of_images,) = list_defects(how(tmp_path / "images"))
        (of_defects,) = list_defects(how(tmp_path / "defects"))
        assert (of_images.kind, of_defects.kind) == ("mask" if text is None else "box", "image")


@pytest.mark.parametrize(
    ("marks", "text"),
    [("masks/{}000.png", None), ("labels/{}000.txt", "0 0.5 0.5 0.1 0.1"), ("masks/{}000.json", labelme([]))],
)
@pytest.mark.parametrize("below", ["", "dent/"])
@pytest.mark.parametrize("as_file", [False, True])
def test_marks_are_refused_when_they_fit_images_of_two_folders_beside_them(
    tmp_path, marks, text, below, as_file
) -> None:
    """Nothing says whether they are those of `photos` or of `defects`."""
    for name in ("photos", "defects"):
        save_image(tmp_path / name / below / "000.png")
    path = tmp_path / marks.format(below)
    save_mask(path, BLOCK) if text is None else save_text(path, text)
    given = [tmp_path / "defects" / below / "000.png"] if as_file else tmp_path / "defects"
    with pytest.raises(ValueError, match=r"must belong to one image each, but '.*' fits '.*photos.*' and '.*defects"):
        list_defects(given)
    if text != labelme([]):
        assert list_defects(given, marks=path.parent)[0].kind != "image"


def test_marks_are_those_of_another_folder_when_only_that_has_the_images(tmp_path) -> None:
    save_image(tmp_path / "photos" / "000.png")
    save_image(tmp_path / "defects" / "001.png")
    save_mask(tmp_path / "masks" / "000.png", BLOCK)
    assert [defect.kind for defect in list_defects(tmp_path / "defects")] == ["image"]
    assert [defect.kind for defect in list_defects(tmp_path / "photos")] == ["mask"]


@pytest.mark.parametrize("other", ["good", "normals", "OK"])
def test_a_mask_is_the_defects_when_the_folder_beside_holds_good_images(tmp_path, other) -> None:
    for name in (other, "defects"):
        save_image(tmp_path / name / "000.png")
    save_mask(tmp_path / "masks" / "000.png", BLOCK)
    assert [defect.kind for defect in list_defects([tmp_path / "defects" / "000.png"])] == ["mask"]


def test_ground_truth_is_that_of_the_test_images_when_training_has_the_same_names(tmp_path) -> None:
    for name in ("train", "test"):
        save_image(tmp_path / name / "dent" / "000.png")
    save_mask(tmp_path / "ground_truth" / "dent" / "000_mask.png", BLOCK)
    assert [defect.kind for defect in list_defects(tmp_path / "train")] == ["image"]
    assert [defect.kind for defect in list_defects(tmp_path / "test")] == ["mask"]


def test_a_mask_is_the_defects_when_a_good_image_has_the_same_name(tmp_path) -> None:
    for name in ("good", "dent"):
        save_image(tmp_path / "test" / name / "000.png")
    save_mask(tmp_path / "masks" / "000.png", BLOCK)
    (defect,) = list_defects(tmp_path / "test", marks=tmp_path / "masks")
    assert (defect.family, defect.kind) == ("dent", "mask")


def test_files_keep_their_order_and_come_once_when_given_twice(tmp_path, monkeypatch) -> None:
    first, second = (save_image(tmp_path / name / "a.png") for name in ("scratch", "dent"))
    monkeypatch.chdir(tmp_path)
    found = list_defects([second, first, "dent/a.png"])
    assert [defect.family for defect in found] == ["dent", "scratch"]


def test_a_relative_folder_is_read_when_it_is_the_current_one(tmp_path, monkeypatch) -> None:
    save_image(tmp_path / "test" / "dent" / "a.png")
    save_mask(tmp_path / "ground_truth" / "dent" / "a_mask.png", BLOCK)
    monkeypatch.chdir(tmp_path / "test" / "dent")
    (defect,) = list_defects(".")
    assert (defect.family, defect.kind) == ("dent", "mask")


def test_a_mask_is_upright_when_its_image_is_turned(tmp_path) -> None:
    save_image(tmp_path / "dent" / "a.jpg", SIZE[::-1], orientation=6)
    save_mask(tmp_path / "dent" / "a_mask.png", BLOCK)
    (defect,) = list_defects(tmp_path / "dent")
    np.testing.assert_array_equal(defect.read_marks(), BLOCK * 255)


@pytest.mark.parametrize("orientation", [2, 3, 6])
@pytest.mark.parametrize("name", ["annotations.json", "annotations.xml", "labels/a.txt"])
def test_annotations_are_refused_when_the_image_is_turned_by_exif(tmp_path, name, orientation) -> None:
    save_image(tmp_path / "dent" / "a.jpg", SIZE[::-1] if orientation == 6 else SIZE, orientation=orientation)
    content = coco([{"bbox": [1, 1, 5, 5]}])
    content["images"][0]["file_name"] = "a.jpg"
    texts = {
        "annotations.json": content,
        "annotations.xml": cvat('<box label="x" xtl="1" ytl="1" xbr="9" ybr="9"/>', name="a.jpg"),
        "labels/a.txt": "0 0.5 0.5 0.1 0.1",
    }
    save_text(tmp_path / "dent" / name, texts[name])
    with pytest.raises(
        ValueError, match=r"a.jpg' is turned by its EXIF orientation, .* `anomalib-synth convert --images"
    ):
        list_defects(tmp_path / "dent")


@pytest.mark.parametrize("name", ["annotations.json", "annotations.xml"])
def test_annotations_are_refused_when_the_image_has_another_size(tmp_path, name) -> None:
    save_image(tmp_path / "dent" / "a.png", (80, 120))
    content = {"annotations.json": coco([{"bbox": [1, 1, 5, 5]}])}.get(name) or cvat('<tag label="x"/>')
    save_text(tmp_path / "dent" / name, content)
    with pytest.raises(ValueError, match=r"with 60 x 40 pixels, and the file has 120 x 80. Mark this very image"):
        list_defects(tmp_path / "dent")


def spoil(folder, name: str):
    """Make one fault; return the arguments."""
    part = folder / "part"
    save_image(part / "test" / "dent" / "a.png")
    mask = save_mask(part / "ground_truth" / "dent" / "a_mask.png", BLOCK)
    if name == "empty mask":
        save_mask(mask, BLOCK & False)
    elif name == "mask of another size":
        save_mask(mask, np.eye(9, dtype=bool))
    elif name == "mask without an image":
        save_mask(mask.with_name("b_mask.png"), BLOCK)
    elif name == "mask beside no image":
        save_mask(part / "test" / "dent" / "b_mask.png", BLOCK)
    elif name == "LabelMe without an image":
        save_text(part / "test" / "dent" / "b.json", labelme([]))
    elif name == "YOLO without an image":
        save_text(part / "test" / "labels" / "dent" / "b.txt", "0 0.5 0.5 0.1 0.1")
    elif name == "two masks":
        save_mask(part / "test" / "dent" / "a_mask.png", BLOCK)
    elif name == "mask and box":
        save_text(
            part / "annotations.xml", cvat('<box label="x" xtl="1" ytl="1" xbr="9" ybr="9"/>', name="test/dent/a.png")
        )
    elif name == "one mask for two":
        save_image(part / "test" / "dent" / "a.jpg")
    elif name == "unreadable image":
        (part / "test" / "dent" / "a.png").write_bytes(b"no image")
    elif name == "too many boxes":
        mask.unlink()
        shapes = [
            {"shape_type": "rectangle", "points": [[x % 50, x // 50], [x % 50 + 2, x // 50 + 2]]} for x in range(254)
        ]
        save_text(part / "test" / "dent" / "a.json", labelme(shapes))
    elif name == "broken JSON":
        save_text(part / "test" / "dent" / "a.json", "{")
    return part / "test"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty mask", "`marks` needs a usable mask, '.*a_mask.png' is none: it is zero everywhere"),
        ("mask of another size", r"a_mask.png' is 9 x 9 pixels and '.*a.png' is 60 x 40. Export the mask"),
        ("mask without an image", "there is none for '.*ground_truth/dent/b_mask.png'. Put the image there"),
        ("mask beside no image", "there is none for '.*test/dent/b_mask.png'. Put the image there"),
        ("LabelMe without an image", "there is none for '.*test/dent/b.json'. Put the image there"),
        ("YOLO without an image", "there is none for '.*test/labels/dent/b.txt'. Put the image there"),
        ("two masks", "must say once where the defect of '.*a.png' is, but '.*a_mask.png' and '.*a_mask.png' both do"),
        ("mask and box", "must say once .*a_mask.png' and '.*annotations.xml' both do. Keep one, or name"),
        ("one mask for two", "'.*a_mask.png' fits '.*a.jpg' and '.*a.png'. Lay the marks out in folders"),
        ("unreadable image", "`defects` holds an unreadable image, '.*a.png': .* Replace it"),
        ("too many boxes", "must have at most 253 boxes an image, but '.*a.png' has 254. Draw fewer"),
        ("broken JSON", "a.json' is no JSON: .* in line 1"),
    ],
)
def test_a_folder_is_refused_when_its_marks_cannot_be_meant(tmp_path, name, message) -> None:
    with pytest.raises(ValueError, match=message):
        list_defects(spoil(tmp_path, name))


def test_253_boxes_are_numbered_when_there_are_as_many(tmp_path) -> None:
    save_image(tmp_path / "a.png")
    shapes = [
        {"shape_type": "rectangle", "points": [[2 * (n % 30), 2 * (n // 30)], [2 * (n % 30) + 2, 2 * (n // 30) + 2]]}
        for n in range(253)
    ]
    save_text(tmp_path / "a.json", labelme(shapes))
    (defect,) = list_defects(tmp_path)
    assert np.unique(defect.read_marks()).tolist() == list(range(254))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "`defects` must be a folder with images of real defects, got '.*nowhere'. Give"),
        ("empty", "`defects` must be a folder with images .* which holds none"),
        ("good", r"holds no image of a defect .*a folder `good` does not count"),
        ([], "`defects` holds no image of a defect"),
        (["lost.png"], "but '.*lost.png' is not there. Give the images one by one"),
        (["empty"], "but '.*empty' is a folder"),
        (["notes.md"], "but '.*notes.md' is no image"),
    ],
)
def test_defects_are_refused_when_there_are_none(tmp_path, given, message) -> None:
    (tmp_path / "empty").mkdir()
    save_image(tmp_path / "good" / "good" / "a.png")
    save_text(tmp_path / "notes.md", "none")
    with pytest.raises(ValueError, match=message):
        list_defects([tmp_path / name for name in given] if isinstance(given, list) else tmp_path / given)


def test_marks_are_refused_when_they_are_not_there(tmp_path) -> None:
    save_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"`masks` must be a folder with masks of the defects, got '.*lost'"):
        list_defects(tmp_path, marks=tmp_path / "lost", argument="masks")


def test_a_subset_is_taken_when_a_file_names_more_images(tmp_path) -> None:
    content = coco([{"bbox": [1, 1, 5, 5]}, {"bbox": [1, 1, 5, 5], "image_id": 8}])
    content["images"].append({"id": 8, "file_name": "b.png"})
    save_text(tmp_path / "annotations.json", content)
    for name in "ab":
        save_image(tmp_path / "images" / f"{name}.png")
    assert [defect.kind for defect in list_defects([tmp_path / "images" / "b.png"])] == ["box"]
    assert len(list_defects(tmp_path)) == 2


def test_a_file_above_is_not_used_when_it_names_other_images(tmp_path, caplog) -> None:
    save_text(tmp_path / "work" / "annotations.json", coco([{"bbox": [1, 1, 5, 5]}]))
    save_image(tmp_path / "work" / "real" / "test" / "dent" / "b.png")
    assert [defect.kind for defect in list_defects(tmp_path / "work" / "real" / "test")] == ["image"]
    assert "annotations.json' lies above the images and names none of them, so it is not used" in caplog.text
    with pytest.raises(ValueError, match=r"marks 'a.png', which is not there"):
        list_defects(tmp_path / "work")

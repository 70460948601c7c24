"""Edits on the disk: what is saved, undone, and refused when somebody else was there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.images import read_mask
from anomalib_synth.report.marking_session import UnknownImageError
from anomalib_synth.report.review_session import OutdatedError
from tests.unit.report.defect_images import BOX, SPOT, draw_part, make_parts
from tests.unit.report.person import Person, open_session


@pytest.fixture
def person(tmp_path) -> Person:
    return Person(open_session(make_parts(tmp_path)))


def test_box_is_a_labelme_file_and_an_accepted_outline_a_mask_when_saved(person) -> None:
    person.do(kind="box", points=BOX, type_name="crack")
    saved = json.loads(person.image.document.read_bytes())
    assert (saved["imagePath"], saved["imageHeight"], saved["imageWidth"]) == ("a.png", 120, 160)
    assert [(each["shape_type"], each["label"], each["points"]) for each in saved["shapes"]] == [
        ("rectangle", "crack", BOX)
    ]
    shown = person.do(kind="accept", shape=0)
    assert (shown["shapes"], shown["mask_type"]) == ([], "crack")
    mask = read_mask(person.image.mask, "masks")
    truth = np.zeros_like(mask)
    truth[SPOT] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    assert json.loads(person.image.document.read_bytes())["flags"] == {"type": "crack"}


def test_only_the_mask_is_written_when_its_folder_names_the_type(person) -> None:
    person.do(kind="brush", points=[[20, 20]], radius=4, erase=False)
    assert set(person.files()) == {"a_mask.png"}
    person.do(kind="brush", points=[[20, 20]], radius=9, erase=True)
    assert person.files() == {}


def test_everything_is_as_before_when_undone_and_as_after_when_done_again(person) -> None:
    states = [person.files()]
    for edit in (
        {"kind": "box", "points": BOX},
        {"kind": "accept", "shape": 0},
        {"kind": "scribble", "points": [[1, 1], [9, 9]]},
        {"kind": "brush", "points": [[20, 20]], "radius": 4, "erase": False},
        {"kind": "remove", "shape": None, "at": None},
    ):
        person.do(**edit)
        states.append(person.files())
    for state in reversed(states[:-1]):
        person.step(back=True)
        assert person.files() == state
    assert (person.shown["undoable"], person.shown["redoable"]) == (0, 5)
    for state in states[1:]:
        person.step(back=False)
        assert person.files() == state
    person.step(back=True)
    person.do(kind="box", points=BOX)
    assert person.shown["redoable"] == 0


def test_no_defect_is_remembered_when_the_server_starts_again(person, tmp_path) -> None:
    assert person.do(kind="no_defect", value=True)["no_defect"]
    assert person.files() == {}
    again = Person(open_session(tmp_path))
    assert again.shown["no_defect"]
    again.do(kind="no_defect", value=False)
    assert not (tmp_path / ".no_defect.json").exists()
    person.look()
    with pytest.raises(OutdatedError, match="nothing to take back"):
        person.step(back=True)


def test_edit_is_refused_when_somebody_else_was_faster(person, tmp_path) -> None:
    other = Person(open_session(tmp_path))
    other.do(kind="box", points=BOX)
    before = person.files()
    with pytest.raises(OutdatedError, match="Somebody else has changed this image") as refused:
        person.do(kind="box", points=[[1, 1], [20, 20]])
    assert person.files() == before
    assert refused.value.present["version"] == other.shown["version"]
    person.look()
    assert len(person.do(kind="box", points=[[1, 1], [20, 20]])["shapes"]) == 2
    with pytest.raises(OutdatedError):
        other.step(back=True)
    other.look()
    with pytest.raises(OutdatedError, match="nothing to take back"):
        other.step(back=True)
    assert len(person.look()["shapes"]) == 2


def test_undo_ends_where_somebody_else_came_in_between(person, tmp_path) -> None:
    person.do(kind="box", points=BOX)
    other = Person(open_session(tmp_path))
    other.do(kind="remove", shape=0, at=None)
    person.look()
    person.do(kind="box", points=[[1, 1], [20, 20]])
    assert person.shown["undoable"] == 1
    assert person.step(back=True)["shapes"] == []


def test_mask_made_elsewhere_is_shown_and_comes_back_when_undone(tmp_path) -> None:
    make_parts(tmp_path)
    mask = np.zeros((120, 160), np.uint8)
    mask[10:20, 10:20] = 7
    file = tmp_path / "dent" / "a_mask.bmp"
    Image.fromarray(mask).save(file)
    person = Person(open_session(tmp_path))
    assert person.shown["mask"].startswith("M")
    old = person.files()
    person.do(kind="brush", points=[[60, 60]], radius=4, erase=False)
    assert set(person.files()) == {"a_mask.png"}
    assert read_mask(person.image.mask, "masks")[10:20, 10:20].all()
    person.step(back=True)
    assert person.files() == old


def test_labelme_file_made_elsewhere_keeps_what_is_not_ours_when_edited(tmp_path) -> None:
    make_parts(tmp_path)
    polygon = {"label": "crack", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon", "group_id": 4}
    text = json.dumps({"version": "4.2.0", "shapes": [polygon], "imagePath": "a.png", "reviewer": "Ann"})
    (tmp_path / "dent" / "a.json").write_text(text)
    person = Person(open_session(tmp_path))
    assert person.shown["shapes"] == [{"kind": "polygon", "label": "crack", "points": polygon["points"]}]
    person.do(kind="brush", points=[[60, 60]], radius=4, erase=False)
    person.do(kind="box", points=BOX)
    saved = json.loads(person.image.document.read_bytes())
    assert (saved["shapes"][0], saved["reviewer"], saved["version"]) == (polygon, "Ann", "4.2.0")
    person.step(back=True)
    person.step(back=True)
    assert person.image.document.read_text() == text


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b"{}", "Nothing is written over it"),
        ("a.json", b"", "Nothing is written over it"),
        ("a.json", b'{"shapes": [], "imageHeight": 1, "imageWidth": 2}', "is for an image of 2 x 1 pixels"),
        ("a_mask.png", b"no image", "is none: not an image"),
        ("a_mask.png", b"", "is none: the file is empty"),
        ("a_mask.png", None, "has 30 x 20 pixels, but the upright image has 160 x 120"),
    ],
)
def test_problem_is_told_and_nothing_overwritten_when_a_file_is_not_of_this_image(
    tmp_path, name, data, message
) -> None:
    file = make_parts(tmp_path) / "dent" / name
    if data is None:
        Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(file)
    else:
        file.write_bytes(data)
    before = file.read_bytes()
    person = Person(open_session(tmp_path))
    assert message in person.shown["problem"]
    with pytest.raises(ValueError, match=r"Nothing is written over it|is none|has 30 x 20 pixels|is for an image"):
        person.do(kind="box", points=BOX)
    assert file.read_bytes() == before


def test_two_masks_of_one_image_are_a_problem_when_found(tmp_path) -> None:
    make_parts(tmp_path)
    for suffix in (".png", ".bmp"):
        Image.fromarray(np.eye(120, 160, dtype=np.uint8)).save(tmp_path / "dent" / f"a_mask{suffix}")
    assert "several masks" in Person(open_session(tmp_path)).shown["problem"]


def test_marks_are_of_the_upright_image_when_it_lies_on_its_side(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(draw_part()).save(tmp_path / "a.jpg", exif=exif, quality=95)
    person = Person(open_session(tmp_path))
    assert (person.shown["width"], person.shown["height"]) == (120, 160)
    person.do(kind="brush", points=[[100, 150]], radius=4, erase=False)
    assert read_mask(person.image.mask, "masks").shape == (160, 120)


def test_mask_that_could_not_be_read_back_is_not_saved_when_everything_is_painted(person) -> None:
    with pytest.raises(ValueError, match="Nothing was saved, as the mask"):
        person.do(kind="brush", points=[[0, 0], [160, 120], [0, 120], [160, 0]], radius=120, erase=False)
    assert person.files() == {}


def test_the_mask_that_was_looked_at_is_shown_when_its_file_changes_meanwhile(person) -> None:
    person.do(kind="brush", points=[[20, 20]], radius=5, erase=False)
    session = open_session(person.session.folder.images)  # which has decoded nothing yet
    state = session.states.look(person.image)
    person.do(kind="brush", points=[[90, 90]], radius=5, erase=False)
    shown = session.states.decode(person.image, state).mask
    assert (bool(shown[20, 20]), bool(shown[90, 90])) == (True, False)


def test_image_is_unknown_when_it_is_not_listed(person) -> None:
    for key in ("none", "../a", ""):
        with pytest.raises(UnknownImageError):
            person.session.describe(key)

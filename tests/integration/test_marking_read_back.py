"""What is marked in the browser is what training reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from anomalib_synth.defects import DEFECT, GOOD, UNKNOWN, list_defect_images, list_defects
from anomalib_synth.images import read_mask
from anomalib_synth.report.marking_list import MarkingList
from tests.unit.report.defect_images import BOX, make_parts
from tests.unit.report.person import Person, open_session

if TYPE_CHECKING:
    from pathlib import Path

NAMES = tuple(f"dent/{name}.png" for name in ("accepted", "box", "click", "line", "nothing", "said_good"))


def mark_all(session) -> None:
    """Mark each image as its name says."""
    people = {image.path.stem: Person(session, place) for place, image in enumerate(session.folder.listed.values())}
    for name in ("accepted", "box"):
        people[name].do(kind="box", points=BOX, type_name="crack")
    people["accepted"].do(kind="accept", shape=0)
    people["click"].do(kind="scribble", points=[[80, 55]])
    people["line"].do(kind="scribble", points=[[70, 50], [90, 60]])
    people["said_good"].do(kind="no_defect", value=True)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_marks_are_read_as_they_were_drawn(tmp_path: Path, elsewhere: bool) -> None:
    images = make_parts(tmp_path / "parts", NAMES)
    out = tmp_path / "marks" if elsewhere else None
    mark_all(open_session(images, out))
    found = {defect.image.stem: defect for defect in list_defects(images, marks=out)}
    assert {name: defect.kind for name, defect in found.items()} == {
        "accepted": "mask", "box": "box", "click": "point", "line": "scribble", "nothing": "image",
    }  # fmt: skip
    assert {name: defect.family for name, defect in found.items()} == {
        "accepted": "crack", "box": "crack", "click": "dent", "line": "dent", "nothing": "dent",
    }  # fmt: skip
    marks = {name: defect.read_marks() for name, defect in found.items()}
    saved = read_mask((out or images) / "dent" / "accepted_mask.png", "masks")
    np.testing.assert_array_equal(marks["accepted"], np.where(saved, DEFECT, GOOD))
    (left, top), (right, bottom) = BOX
    expected = np.zeros((120, 160), dtype=np.uint8)
    expected[top:bottom, left:right] = 1
    np.testing.assert_array_equal(marks["box"], expected)
    assert marks["click"][55, 80] == DEFECT
    assert marks["line"][55, 80] == DEFECT
    assert marks["click"][0, 0] == UNKNOWN
    assert (marks["nothing"] == 1).all()


def say_good(images: Path, name: str, out: Path | None = None) -> None:
    """Say on the page that an image has no defect."""
    session = open_session(images, out)
    (place,) = (place for place, image in enumerate(session.folder.listed.values()) if image.name == name)
    Person(session, place).do(kind="no_defect", value=True)


@pytest.mark.parametrize(
    ("opened", "out", "trained"),
    [
        ("part/test", "part/ground_truth", "part/test"),
        ("part/test", "part/ground_truth", "part/test/dent"),
        ("part/test", "part/ground_truth", "part"),
        ("part/test", None, "part/test/dent"),
        ("part", None, "part/test/dent"),
        ("part/test/dent", None, "part"),
        ("part/test/dent", "part/test/masks", "part/test"),
    ],
)
@pytest.mark.parametrize("as_files", [False, True])
def test_an_image_without_a_defect_is_left_out_when_it_is_listed_from_elsewhere(
    tmp_path: Path, opened: str, out: str | None, trained: str, as_files: bool
) -> None:
    images = make_parts(tmp_path / "part" / "test", ("dent/a.png", "dent/b.png", "scratch/b.png"))
    name = (images / "dent" / "b.png").relative_to(tmp_path / opened).as_posix()
    say_good(tmp_path / opened, name, out and tmp_path / out)
    given = sorted((tmp_path / trained).rglob("*.png")) if as_files else tmp_path / trained
    kept = {defect.image.relative_to(images).as_posix() for defect in list_defects(given)}
    assert kept == {"dent/a.png", *(["scratch/b.png"] if trained != "part/test/dent" else [])}
    if not as_files:
        assert {each.relative_to(images).as_posix() for each in list_defect_images(given)} == kept


def test_an_image_without_a_defect_is_left_out_when_marks_are_given(tmp_path: Path) -> None:
    images = make_parts(tmp_path / "real", ("dent/a.png", "dent/b.png"))
    say_good(images, "dent/b.png", tmp_path / "marks")
    (tmp_path / "marks" / "dent").mkdir(exist_ok=True)
    for given, marks in ((images, "marks"), (images / "dent", "marks/dent"), ([*images.rglob("*.png")], "marks")):
        assert [defect.image.name for defect in list_defects(given, marks=tmp_path / marks)] == ["a.png"]


def test_an_image_is_not_told_from_another_when_the_folder_that_was_opened_is_lost(tmp_path: Path) -> None:
    images = make_parts(tmp_path / "real", ("dent/a.png", "scratch/a.png"))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / ".no_defect.json").write_text('{"no_defect": ["a.png"]}')
    with pytest.raises(ValueError, match=r"no_defect\.json' names 'a.png', which fits '.*a.png' and '.*a.png'"):
        list_defects(images, marks=tmp_path / "masks")


def test_boxes_are_found_when_they_are_saved_among_masks(tmp_path: Path) -> None:
    images = make_parts(tmp_path / "part" / "test", ("dent/a.png",))
    Person(open_session(images, tmp_path / "part" / "ground_truth")).do(kind="box", points=BOX)
    for given in (images, images / "dent", tmp_path / "part", [images / "dent" / "a.png"]):
        assert [defect.kind for defect in list_defects(given)] == ["box"]


@pytest.mark.parametrize("made", ["mask", "box"])
def test_marks_win_when_they_are_made_after_the_word_that_there_is_no_defect(tmp_path: Path, made: str) -> None:
    images = make_parts(tmp_path, ("dent/a.png",))
    say_good(images, "dent/a.png")
    said = (images / ".no_defect.json").read_bytes()
    Person(open_session(images)).do(kind="box", points=BOX)
    if made == "mask":
        Person(open_session(images)).do(kind="accept", shape=0)
    (images / ".no_defect.json").write_bytes(said)  # as after marking in another program
    assert [defect.kind for defect in list_defects(images)] == [made]
    assert list_defect_images(images) == [images / "dent" / "a.png"]
    session = open_session(images)
    assert not Person(session).shown["no_defect"]
    assert MarkingList(session.folder).describe({})["images"][0]["state"] == "marked"


@pytest.mark.parametrize("foreign", [{"reviewer": "Ann"}, {"flags": {"checked": True}}])
def test_an_image_is_not_marked_when_its_last_shape_is_deleted(tmp_path: Path, foreign: dict) -> None:
    images = make_parts(tmp_path, ("dent/a.png",))
    person = Person(open_session(images))
    person.do(kind="box", points=BOX)
    person.image.document.write_text(json.dumps({**json.loads(person.image.document.read_bytes()), **foreign}))
    person.look()
    person.do(kind="remove", shape=0, at=None)
    assert foreign.items() <= json.loads(person.image.document.read_bytes()).items()
    assert not person.shown["no_defect"]
    assert [defect.kind for defect in list_defects(images)] == ["image"]
    person.do(kind="box", points=BOX)
    assert [defect.kind for defect in list_defects(images)] == ["box"]
    person.step(back=True)
    person.do(kind="no_defect", value=True)
    with pytest.raises(ValueError, match="holds no image of a defect"):
        list_defects(images)


@pytest.mark.parametrize("foreign", [{}, {"reviewer": "Ann"}])
def test_the_page_says_no_defect_when_an_empty_file_of_labelme_says_so(tmp_path: Path, foreign: dict) -> None:
    images = make_parts(tmp_path, ("dent/a.png", "dent/b.png"))
    text = json.dumps({"version": "5.5.0", "flags": {}, "shapes": [], "imagePath": "b.png", **foreign})
    (images / "dent" / "b.json").write_text(text)
    person = Person(open_session(images), 1)
    states = MarkingList(person.session.folder)
    assert person.shown["no_defect"]
    assert [each["state"] for each in states.describe({})["images"]] == ["unmarked", "no_defect"]
    assert [defect.image.name for defect in list_defects(images)] == ["a.png"]
    person.do(kind="no_defect", value=False)
    assert not person.shown["no_defect"]
    assert [each["state"] for each in states.describe({})["images"]] == ["unmarked", "unmarked"]
    assert [defect.image.name for defect in list_defects(images)] == ["a.png", "b.png"]
    person.step(back=True)
    assert (person.image.document.read_text(), person.shown["no_defect"]) == (text, True)

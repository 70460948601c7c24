"""Which images are marked, and where their marks go."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.report.marking_files import MarkedFolder
from anomalib_synth.report.marking_list import MarkingList
from tests.unit.report.defect_images import make_parts


def names(folder: MarkedFolder) -> list[str]:
    return [image.name for image in folder.listed.values()]


def test_masks_and_good_images_are_not_listed_when_they_lie_among_the_images(tmp_path) -> None:
    make_parts(tmp_path, ("dent/a.png", "dent/a_mask.png", "good/b.png", "masks/c.png", "d.png", "d.jpg"))
    (tmp_path / "x.gif").write_bytes(b"GIF")
    folder = MarkedFolder.open(tmp_path)
    assert names(folder) == ["d.jpg", "dent/a.png"]
    assert folder.left_out["d.png"] == "it would share its marks with 'd.jpg'; rename one of them"
    assert "`good`" in folder.left_out["good/b.png"]
    assert "convert it to PNG" in folder.left_out["x.gif"]


def test_files_that_count_as_masks_are_named_when_there_is_nothing_else(tmp_path) -> None:
    for name in ("a_mask.png", "masks/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"has none\. 2 of its files count as masks by name or folder; rename"):
        MarkedFolder.open(tmp_path)


def test_marks_lie_as_the_images_do_when_they_go_elsewhere(tmp_path) -> None:
    images = make_parts(tmp_path / "images")
    folder = MarkedFolder.open(images, tmp_path / "new" / "marks")
    image = next(iter(folder.listed.values()))
    assert image.mask == tmp_path / "new" / "marks" / "dent" / "a_mask.png"
    assert image.document == tmp_path / "new" / "marks" / "dent" / "a.json"
    assert image.folder_type == "dent"


def test_marks_are_not_listed_as_images_when_their_folder_lies_within(tmp_path) -> None:
    images = make_parts(tmp_path, ("a.png", "marks/b.png"))
    assert names(MarkedFolder.open(images, tmp_path / "marks")) == ["a.png"]


def test_folder_is_refused_when_its_masks_are_elsewhere(tmp_path) -> None:
    images = make_parts(tmp_path / "test")
    make_parts(tmp_path / "ground_truth", ("dent/a_mask.png",))
    with pytest.raises(ValueError, match=r"`out` must be given: .*ground_truth.*Give `--out` that folder"):
        MarkedFolder.open(images)
    with pytest.raises(ValueError, match="`out` must be given"):
        MarkedFolder.open(images / "dent")
    assert len(MarkedFolder.open(images, tmp_path / "ground_truth").listed) == 3
    assert len(MarkedFolder.open(images / "scratch").listed) == 1


def test_mask_with_the_images_name_is_read_when_the_folder_is_one_of_masks(tmp_path) -> None:
    images = make_parts(tmp_path / "images", ("a.png",))
    make_parts(tmp_path / "masks", ("a.png",))
    for out, is_read in ((tmp_path / "masks", True), (tmp_path / "others", False)):
        image = next(iter(MarkedFolder.open(images, out).listed.values()))
        assert (out / "a.png" in image.masks) == is_read


def test_folder_is_refused_when_it_holds_nothing_to_mark(tmp_path) -> None:
    with pytest.raises(ValueError, match="`images` must be a folder with images"):
        MarkedFolder.open(tmp_path / "none")
    make_parts(tmp_path, ("good/a.png",))
    with pytest.raises(ValueError, match=r"which has none\. Left out good/a\.png of `images`"):
        MarkedFolder.open(tmp_path)


def test_folder_is_refused_when_no_mark_can_be_saved_there(tmp_path) -> None:
    images = make_parts(tmp_path / "images")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="`out` must be a folder that can be written to"):
        MarkedFolder.open(images, tmp_path / "file")


@pytest.mark.parametrize("text", ["{", "[]", '{"no_defect": 1}', '{"no_defect": [1]}'])
def test_folder_is_refused_when_what_it_remembers_is_damaged(tmp_path, text) -> None:
    (make_parts(tmp_path) / ".no_defect.json").write_text(text)
    with pytest.raises(ValueError, match=r"\.no_defect\.json.*Take it away"):
        MarkedFolder.open(tmp_path)


def test_nothing_is_written_when_a_link_leads_out_of_the_folder(tmp_path) -> None:
    images = make_parts(tmp_path / "images")
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dent").symlink_to(tmp_path / "outside")
    folder = MarkedFolder.open(images, tmp_path / "out")
    image = next(iter(folder.listed.values()))
    with pytest.raises(ValueError, match="is a link that leads out of"):
        folder.write(image, {image.mask: b"x"})
    assert not list((tmp_path / "outside").iterdir())


def test_list_counts_masks_shapes_and_words_when_they_are_there(tmp_path) -> None:
    images = make_parts(tmp_path, ("dent/a.png", "dent/b.png", "dent/c.png", "dent/d.png", "dent/e.png"))
    Image.fromarray(np.eye(9, dtype=np.uint8) * 255).save(images / "dent" / "a_mask.png")
    shape = {"label": "crack", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"}
    (images / "dent" / "b.json").write_text(json.dumps({"shapes": [shape]}))
    (images / ".no_defect.json").write_text('{"no_defect": ["dent/c.png"]}')
    folder = MarkedFolder.open(images)
    last = list(folder.listed)[-1]
    listed = MarkingList(folder)
    answer = listed.describe({last: "damaged"})
    assert [each["state"] for each in answer["images"]] == ["marked", "marked", "no_defect", "unmarked", "unreadable"]
    assert answer["images"][-1]["reason"] == "damaged"
    assert answer["counts"] == {"unmarked": 1, "marked": 2, "no_defect": 1, "unreadable": 1}
    assert answer["types"] == ["dent", "crack"]
    (images / "dent" / "b.json").unlink()
    assert listed.describe({})["counts"]["marked"] == 1

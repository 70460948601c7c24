"""The folder of a prediction: whose it is, and that nothing in it is lost."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

from anomalib_synth.images import WhitePoint
from anomalib_synth.prediction.detector import DetectorInfo
from anomalib_synth.prediction.journal import Journal
from anomalib_synth.store import StoreError

if TYPE_CHECKING:
    from pathlib import Path


def about(content: str = "one", **changes: Any) -> DetectorInfo:
    usual = {"path": "model.ckpt", "kind": "checkpoint", "model": "Padim", "threshold": 0.5, "raw_threshold": 3.0}
    return DetectorInfo(**{**usual, "content": content, **changes})


def open_journal(out: Path, detector: DetectorInfo | None = None, white: WhitePoint | None = None) -> Journal:
    return Journal(out, detector or about(), white or WhitePoint())


def row(file: str, verdict: str = "good", content: str = "c", **more: Any) -> dict[str, Any]:
    return {"file": file, "content": content, "verdict": verdict, "score": 0.25, "box": [1, 2, 3, 4], **more}


def read_table(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_are_known_when_the_folder_is_opened_again(tmp_path) -> None:
    journal = open_journal(tmp_path / "out")
    with journal.opened():
        journal.add([row("a.png"), row("b.png", "defect", picture="pictures/b.jpg")])
        journal.add([row("c.png", "unreadable", reason="cut")])
    again = open_journal(tmp_path / "out")
    with again.opened():
        assert again.find_verdict("a.png", "c") == "good"
        assert again.find_verdict("b.png", "c") == "defect"
        assert again.find_verdict("a.png", "other content") == again.find_verdict("c.png", "c") == ""
        assert again.has_failed("c.png", "c", "cut")
    table = read_table(tmp_path / "out")
    assert [(each["file"], each["verdict"], each["width"]) for each in table][:2] == [
        ("a.png", "good", "3"),
        ("b.png", "defect", "3"),
    ]


def test_table_has_every_row_when_a_run_was_killed_between_the_two_files(tmp_path) -> None:
    journal = open_journal(tmp_path)
    with journal.opened():
        journal.add([row("a.png")])
    with (tmp_path / "predictions.jsonl").open("a") as file:
        file.write(json.dumps(row("b.png")) + "\n" + '{"file": "c.p')
    again = open_journal(tmp_path)
    with again.opened():
        again.add([row("d.png")])
    assert [each["file"] for each in read_table(tmp_path)] == ["a.png", "b.png", "d.png"]
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["a.png", "b.png", "d.png"]


@pytest.mark.parametrize("other", [about("two"), about(inference="precision 16")])
def test_verdicts_of_another_detector_are_refused(tmp_path, other) -> None:
    with open_journal(tmp_path).opened():
        pass
    with pytest.raises(ValueError, match="holds the verdicts of another detector"):
        open_journal(tmp_path, other)
    with open_journal(tmp_path, about(path="moved.ckpt")).opened():
        pass


def test_white_point_may_be_given_later_but_not_changed(tmp_path) -> None:
    twelve = WhitePoint.of_bit_depth(12)
    with open_journal(tmp_path).opened():
        pass
    with open_journal(tmp_path, white=twelve).opened():
        pass
    for other in (WhitePoint(), WhitePoint.of_bit_depth(10)):
        with pytest.raises(ValueError, match="for white at 4095"):
            open_journal(tmp_path, white=other)


def test_file_of_another_program_is_not_touched(tmp_path) -> None:
    (tmp_path / "predictions.csv").write_text("mine")
    with pytest.raises(ValueError, match="no prediction wrote it"):
        open_journal(tmp_path)
    assert (tmp_path / "predictions.csv").read_text() == "mine"


@pytest.mark.parametrize("line", ['{"file": "a.png"}', "no JSON", '{"file": 3, "content": "c", "verdict": "good"}'])
def test_damaged_row_is_named(tmp_path, line) -> None:
    with open_journal(tmp_path).opened():
        pass
    (tmp_path / "predictions.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"predictions.jsonl', line 1"), open_journal(tmp_path).opened():
        pass


@pytest.mark.parametrize(
    "text", ["", "[]", '{"content": "one"}', '{"content": "one", "inference": "", "white_point": 3}']
)
def test_damaged_settings_are_named(tmp_path, text) -> None:
    (tmp_path / "detector.json").write_text(text)
    with pytest.raises(ValueError, match=r"detector.json' cannot be read"):
        open_journal(tmp_path)


def test_second_run_is_kept_out_while_one_is_at_work(tmp_path) -> None:
    with (
        open_journal(tmp_path).opened(),
        pytest.raises(StoreError, match="Another run"),
        open_journal(tmp_path).opened(),
    ):
        pass


def test_every_picture_has_a_name_of_its_own(tmp_path) -> None:
    journal = open_journal(tmp_path)
    names = [
        journal.name_picture(file, content, "pictures", ".jpg")
        for file, content in (("a.png", "1" * 32), ("a.jpg", "1" * 32), ("a.png", "2" * 32), ("x/a.png", "1" * 32))
    ]
    assert names == ["pictures/a.jpg", "pictures/a-11111111.jpg", "pictures/a-22222222.jpg", "pictures/x/a.jpg"]
    assert journal.name_picture("a.png", "2" * 32, "pictures", ".jpg") == names[2]
    with journal.opened():
        journal.add([row("a.png", content="1" * 32, picture=names[0])])
    again = open_journal(tmp_path)
    with again.opened():
        assert again.name_picture("a.png", "3" * 32, "pictures", ".jpg") == "pictures/a-33333333.jpg"
        assert again.name_picture("a.png", "1" * 32, "pictures", ".jpg") == names[0]


@pytest.mark.parametrize("name", ["pictures", "crops"])
def test_folder_is_refused_when_its_pictures_are_no_predictions(name, tmp_path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"holds {name}, but no prediction wrote it"):
        open_journal(tmp_path)

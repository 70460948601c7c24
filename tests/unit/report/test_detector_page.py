"""The page of a calibration: the verdict first, and nothing that a browser would run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from anomalib_synth.calibration.result import evaluate
from anomalib_synth.calibration.scoring import Item, Row
from anomalib_synth.report.detector_page import describe_calibration, write_page

ATTACK = "<script>alert(1)</script>"


class Plan:
    def draw_again(self, rows):
        mask = torch.zeros(1, 40, 40)
        mask[:, 4:9, 6:12] = 1
        return {id(row): Item(row=row, image=torch.full((3, 40, 40), 0.5), mask=mask) for row in rows}


def make_calibration(found: float, tmp_path) -> SimpleNamespace:
    from anomalib_synth.report.pictures import Image

    path = tmp_path / "good.png"
    Image.new("RGB", (40, 30), (90, 120, 90)).save(path)
    place = (0.25, 0.5)
    rows = [
        Row(role=role, path=str(path), score=n / 20, place=place) for role in ("choose", "measure") for n in range(20)
    ]
    for family in ("scratch", ATTACK):
        for strength in (0.5, 1.0):
            for n in range(10):
                score = 2.0 if n < 10 * found * strength else 0.1
                row = Row(role="synthetic", path=str(path), family=family, strength=strength, score=score)
                row.visibility, row.area = 3.0 + n, 0.01
                rows.append(row)
    rows += [Row(role="real", path=str(path), score=2.0, place=place)] * 3
    outcome = evaluate(rows, 0.1, min_recall=0.5)
    settings = {"model": "Padim", "generator": {"class_path": ATTACK}}
    return SimpleNamespace(outcome=outcome, rows=rows, settings=settings, notes=[ATTACK], plan=Plan())


@pytest.mark.parametrize(("found", "verdict"), [(0.9, "Fit to deploy"), (0.2, "Not fit to deploy"), (0.0, "Not fit")])
def test_verdict_is_first_when_a_page_is_written(found, verdict, tmp_path) -> None:
    page = describe_calibration(make_calibration(found, tmp_path))
    write_page(page, tmp_path / "page.html", title=ATTACK)
    text = (tmp_path / "page.html").read_text()
    body = text[text.index("<body>") :]
    assert body.index(verdict) < body.index("What it misses")
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert "marginal: it holds on average over which normals set the threshold" in body
    assert page["fit"] is (found == 0.9)


def test_worst_family_is_first_and_pictures_show_what_was_missed(tmp_path) -> None:
    page = describe_calibration(make_calibration(0.9, tmp_path))
    words = [[picture["caption"] for picture in family["pictures"]] for family in page["families"]]
    assert all({"missed at 1", "found at 0.5"} <= set(each) for each in words)
    assert page["families"][0]["reached"].startswith("Found: half from strength")
    assert page["faintest"]["caption"].startswith(("scratch at strength", ATTACK))
    assert len(page["near"]) == 8
    assert page["near"][0]["ring"] == {"x": 25.0, "y": 50.0}
    assert page["real"]["found"]["count"] == 3


def test_picture_is_left_out_when_its_file_is_gone(tmp_path) -> None:
    calibration = make_calibration(0.9, tmp_path)
    (tmp_path / "good.png").unlink()
    page = describe_calibration(calibration)
    assert page["near"] == []
    write_page(page, tmp_path / "page.html", title="x")


@pytest.mark.parametrize("found", [0.9, 0.3])
def test_names_of_options_are_code_when_a_text_has_them_in_backticks(found, tmp_path) -> None:
    write_page(describe_calibration(make_calibration(found, tmp_path)), tmp_path / "page.html", title="x")
    text = (tmp_path / "page.html").read_text()
    assert "<code>min_recall</code>" in text
    assert "`" not in text[text.index("<body>") :]


@pytest.mark.parametrize(("strongest", "warned"), [(2, True), (80, False)])
def test_page_warns_when_few_defects_decide(strongest, warned, tmp_path) -> None:
    page = describe_calibration(make_calibration(0.9, tmp_path))
    page["undecided"] = warned
    page["strongest"] = {**page["strongest"], "of": strongest}
    write_page(page, tmp_path / "page.html", title="x")
    text = (tmp_path / "page.html").read_text()
    assert (f"Only {strongest} defects of the highest strength were visible" in text) is warned
    assert "set for 10 % at most" in text

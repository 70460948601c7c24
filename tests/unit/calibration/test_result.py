"""What scores say, on scores made up for the purpose."""

from __future__ import annotations

import json
import math

import pytest

from anomalib_synth.calibration.real_defects import judge_real_defects
from anomalib_synth.calibration.result import evaluate
from anomalib_synth.calibration.scoring import Row
from anomalib_synth.report.calibration_files import print_results, write_results
from anomalib_synth.report.recall_plot import draw_calibration


def make_rows(*, maps: bool = True) -> list[Row]:
    """19 + 20 normals with scores 1..19 and 0.5..19.5, and scratches whose score is 40 times their strength."""

    def peak(score: float) -> float:
        return 2 * score if maps else math.nan

    rows = [Row(role="choose", path=f"c{n}", score=n, peak=peak(n)) for n in range(1, 20)]
    rows += [Row(role="measure", path=f"m{n}", score=n + 0.5, peak=peak(n + 0.5)) for n in range(20)]
    for strength in (0.25, 0.5, 1.0):
        for n in range(10):
            score = 40 * strength - 5 + n
            row = Row(role="synthetic", path="m0", family="scratch", strength=strength, score=score, peak=peak(score))
            row.visibility, row.area, row.inside = 10 * strength, 0.01, peak(score - 4)
            row.visible = strength > 0.25 or n < 4
            rows.append(row)
    return rows


def test_thresholds_and_shares_are_right_when_counted_by_hand() -> None:
    outcome = evaluate(make_rows(), 0.1)
    assert outcome.image.threshold == 18.0  # rank ceil(20 * 0.9) of 19
    assert outcome.pixel.threshold == 36.0
    assert (outcome.alarms.count, outcome.alarms.of) == (2, 20)  # 18.5 and 19.5
    assert (outcome.pixel_alarms.count, outcome.pixel_alarms.of) == (2, 20)
    # scores 5..8 of the visible; 15..24; 35..44
    assert [(recall.found.count, recall.found.of, recall.drawn) for recall in outcome.recalls] == [
        (0, 4, 10),
        (6, 10, 10),
        (10, 10, 10),
    ]
    assert [recall.located.count for recall in outcome.recalls] == [0, 2, 10]  # score - 4 above 18
    assert [recall.visibility for recall in outcome.recalls] == [2.5, 5.0, 10.0]
    assert outcome.faintest("scratch", 0.5).strength == pytest.approx(0.25 + 0.25 * 0.5 / 0.6)
    assert outcome.faintest("scratch", 0.9).strength == pytest.approx(0.5 + 0.5 * 0.3 / 0.4)


def test_intervals_are_wider_when_scores_of_groups_go_together() -> None:
    alone, together = make_rows(), make_rows()
    for row in together:
        if row.role in {"choose", "measure"}:
            row.group = str(int(row.score) // 5)
    known, wide = evaluate(alone, 0.1), evaluate(together, 0.1)
    assert (wide.alarms.count, wide.image) == (known.alarms.count, known.image)
    assert wide.alarms.design > 3  # groups of five to ten, whose scores are nearly the same
    assert wide.alarms.high > known.alarms.high
    assert wide.likely_rate > known.likely_rate
    assert wide.expected[1] > known.expected[1]
    assert "so the 20 tell as much as" in wide.guarantee
    assert "independent" not in known.guarantee
    assert wide.to_dict()["expected_false_alarms"]["of"] == 50


def test_range_leaves_out_what_was_not_scored() -> None:
    rows = make_rows()
    rows[-1].visible, rows[-1].score = False, math.nan
    outcome = evaluate(rows, 0.1)
    assert (outcome.image.low, outcome.image.high) == (0.5, 43.0)
    assert outcome.pixel is not None


def test_no_pixel_threshold_when_the_model_gives_no_map() -> None:
    outcome = evaluate(make_rows(maps=False), 0.1)
    assert outcome.pixel is None
    assert outcome.recalls[0].located is None
    assert evaluate(make_rows(), 0.1, with_pixels=False).pixel is None


def test_kind_without_strengths_has_no_faintest() -> None:
    rows = make_rows()
    for row in rows:
        row.strength = None
    outcome = evaluate(rows, 0.1)
    assert len(outcome.recalls) == 1
    assert outcome.faintest("scratch", 0.5) is None


@pytest.mark.parametrize(
    ("scores", "alike", "said"),
    [
        ([2.0, 3.0, 1.0, 2.5, 4.0, 3.5], False, "UNLIKE the synthetic ones: lower than 100% of them"),
        ([60.0, 70.0, 65.0, 80.0, 62.0, 90.0], False, "UNLIKE the synthetic ones: higher than 100% of them"),
        ([15.5, 22.5, 36.5, 40.5, 6.0], True, "score like the synthetic ones"),
        ([2.0], False, "too few to be sure"),
    ],
)
def test_real_defects_are_judged_when_given(scores, alike, said) -> None:
    outcome = evaluate(make_rows(), 0.1)
    real = judge_real_defects(scores, outcome.recalls, outcome.image)
    assert real.alike == alike
    assert said in real.message
    assert f"{sum(score > 18 for score in scores)} of {len(scores)} real defects are found" in real.message


def test_nearest_cell_is_named_when_real_defects_score_like_it() -> None:
    outcome = evaluate(make_rows(), 0.1)
    real = judge_real_defects([36.5, 38.5, 41.5], outcome.recalls, outcome.image)
    assert (real.nearest.family, real.nearest.strength) == ("scratch", 1.0)
    assert "Most alike: scratch at strength 1" in real.message


def test_real_defects_are_not_called_alike_when_there_is_nothing_to_compare() -> None:
    outcome = evaluate(make_rows(), 0.1)
    assert not judge_real_defects([20.0], [], outcome.image).alike


@pytest.mark.parametrize("strengths", [True, False])
def test_files_are_written_when_some_cells_are_empty(tmp_path, capsys, strengths) -> None:
    rows = make_rows()
    for row in rows:
        row.visible = row.visible and row.strength != 0.25
        row.strength = row.strength if strengths else None
    rows += [Row(role="real", path="r0", score=21.0, peak=30.0)]
    outcome = evaluate(rows, 0.1)
    write_results(outcome, rows, {"model": "M"}, tmp_path)
    draw_calibration(outcome, "M", [1.0, 2.0], [21.0], tmp_path / "recall.png")
    print_results(outcome, ["mind the [gap]"], tmp_path / "of [camera]")
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert content["image_threshold"] == 18.0
    assert content["false_alarms"]["count"] == 2
    assert content["guarantee"].startswith("The target of 10 % is marginal: it holds on average")
    assert content["likely_false_alarm_rate"] == pytest.approx(0.2263, abs=1e-4)  # 19 normals, rank 18: Beta(2, 18)
    assert len((tmp_path / "recall.csv").read_text().splitlines()) == 1 + len(outcome.recalls)
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + len(rows)
    assert (tmp_path / "recall.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "scratch" in printed
    assert "mind the [gap]" in printed
    assert "of [camera]" in printed  # no markup of rich, which would take it away
    assert "of those that 19 normals set, 95 % stay below 22.6 %" in " ".join(printed.split())

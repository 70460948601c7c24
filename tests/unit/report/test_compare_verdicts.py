"""Verdicts as data and in words: which arms they are corrected for is said, and how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anomalib_synth.comparison.summary import ComparisonSummary, summarise_rows
from anomalib_synth.report.compare_files import make_markdown, make_page
from anomalib_synth.report.compare_verdicts import describe_family, describe_verdicts

GAINS = {"base": [0.0] * 4, "clear": [2.0, 2.4, 1.6, 2.1], "slight": [1.0, 2.6, 1.2, 0.4], "late": None}


def summarise(*arms: str) -> ComparisonSummary:
    trials: list[dict[str, Any]] = [
        {"arm": arm, "model": arm, "data": "part", "seed": seed, "config_hash": f"{arm}{seed}", "steps": 5}
        for seed in range(4)
        for arm in arms
    ]
    rows = [
        {**trial, "batches": 5, "test_defects": 50, "image_auroc": 0.5 + GAINS[trial["arm"]][trial["seed"]] / 100}
        for trial in trials
        if GAINS[trial["arm"]] is not None
    ]
    return summarise_rows(rows, trials, baseline="base", metric="image_auroc")


def test_every_planned_arm_is_one_of_the_family() -> None:
    alone, three = summarise("base", "slight"), summarise("base", "slight", "clear", "late")
    assert alone.compared[0].verdict.word == "better"
    assert {arm.name: arm.verdict.word for arm in three.compared} == {
        "slight": "no evidence of benefit", "clear": "better", "late": "cannot be told"
    }  # fmt: skip
    assert "(95 % over 3 arms, by Holm, adjusted p 0.071)" in three.compared[0].verdict.sentence


def test_family_is_named_in_the_data_the_table_and_the_page() -> None:
    summary = summarise("base", "slight", "clear", "late")
    said = json.loads(json.dumps(describe_verdicts(summary), allow_nan=False))
    assert (said["family"], said["baseline"], said["metric"]) == (["slight", "clear", "late"], "base", "image_auroc")
    assert (said["correction"], said["level"]) == ("Holm 1979", 0.95)
    slight, clear, late = (arm["differences"]["image_auroc"] for arm in said["arms"])
    assert (clear["level_divided_by"], slight["level_divided_by"], late["level_divided_by"]) == (3, 2, 3)
    assert slight["adjusted_p"] == pytest.approx(2 * 0.0357, abs=1e-3)
    assert clear["adjusted_p"] < 0.01
    assert late["value"] is late["low"] is late["adjusted_p"] is None
    assert slight["bonferroni_low"] < slight["low"] < 0 < slight["high"] < slight["bonferroni_high"]
    assert (clear["bonferroni_low"], clear["bonferroni_high"]) == (clear["low"], clear["high"])
    settings = {"title": "T", "failed": [], "trials": summary.rows, "metric": "image_auroc"}
    sentence = "corrected for the 3 arms that are compared with base (slight, clear, late) by Holm"
    assert sentence in make_markdown(summary, settings)
    page = make_page(summary, settings, {}, "")
    assert sentence in page
    assert "corrected for 3 arms (Holm)." in page


def test_nothing_is_corrected_when_one_arm_is_compared() -> None:
    summary = summarise("base", "slight")
    assert "no correction is needed" in describe_family(summary)
    assert "95 % interval" in summary.compared[0].verdict.sentence
    assert "Holm" not in summary.compared[0].verdict.sentence

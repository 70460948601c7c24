"""The rows of a comparison on the disk: replaced, half-written, damaged."""

from __future__ import annotations

import json
import math

import pytest

from anomalib_synth.comparison.trial_log import TrialLog
from anomalib_synth.store import StoreError

TRIALS = [{"config_hash": name} for name in ("a", "b", "c", "d")]


def test_last_row_of_a_run_counts_when_it_was_run_again(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    log = TrialLog(path)
    for row in (
        {"config_hash": "c", "score": 1},
        {"config_hash": "a", "error": "no luck"},
        {"config_hash": "b", "error": "no luck"},
        {"config_hash": "a", "score": 2, "file": tmp_path},
        {"config_hash": "other", "score": 3},
    ):
        log.append(row)
    again = {"config_hash": "a", "score": 2, "file": str(tmp_path)}
    for each in (log, TrialLog(path)):
        assert each.done(TRIALS) == [again, {"config_hash": "c", "score": 1}]
        assert each.failed(TRIALS) == [{"config_hash": "b", "error": "no luck"}]
    assert len(path.read_text().splitlines()) == 5


def test_half_a_row_is_set_aside_when_its_writer_was_killed(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b'{"config_hash": "a"}\n{"config_ha')
    log = TrialLog(path)
    log.append({"config_hash": "b"})
    assert TrialLog(path).done(TRIALS) == [{"config_hash": "a"}, {"config_hash": "b"}]


@pytest.mark.parametrize("line", [b"5\n", b'{"score": 1}\n', b'{"config_hash": 5}\n'])
def test_whole_line_is_named_when_it_is_no_row(line, tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b'{"config_hash": "a"}\n' + line)
    with pytest.raises(StoreError, match=r"line 2.*delete that line: only its run is done again"):
        TrialLog(path)


def test_row_is_plain_json_when_its_texts_are_odd(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    log = TrialLog(path)
    log.append({"config_hash": "a", "error": "é \udcff"})
    assert json.loads(path.read_text(encoding="utf-8"))["error"] == "é ?"
    assert log.failed(TRIALS) == TrialLog(path).failed(TRIALS)
    with pytest.raises(ValueError, match="JSON compliant"):
        log.append({"config_hash": "b", "score": math.nan})

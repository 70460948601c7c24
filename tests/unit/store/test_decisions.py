"""Nobody's decision is overruled unseen, whoever writes to the log."""

from __future__ import annotations

import json

import pytest

from anomalib_synth.store import OutdatedDecisionError, SampleStore
from tests.unit.store.samples import make_store


def test_a_decision_is_refused_when_another_was_made_since_it_was_seen(tmp_path) -> None:
    mine = make_store(tmp_path / "s", 2)
    theirs = SampleStore.open(mine.path)
    first, second = (record.id for record in mine.records)
    mine.decide([first], accepted=True, seen={first: 0})
    with pytest.raises(OutdatedDecisionError, match="Somebody else has decided about this sample") as error:
        theirs.decide([second, first], accepted=False, seen={first: 0, second: 0})
    assert error.value.samples == [first]
    assert theirs.decisions == {first: True}  # what is on the disk is known now
    theirs.decide([first], accepted=False, seen={first: theirs.versions[first]})
    with pytest.raises(OutdatedDecisionError):  # the same word as before, but it is not the same decision any more
        mine.decide([first], accepted=True, seen={first: 1})
    assert SampleStore.open(mine.path).decisions == {first: False}


def test_the_last_word_is_written_when_no_version_is_named(tmp_path) -> None:
    mine = make_store(tmp_path / "s", 1)
    theirs = SampleStore.open(mine.path)
    sample = mine.records[0].id
    mine.decide([sample], accepted=True)
    theirs.decide([sample], accepted=False)
    mine.decide([sample], accepted=True)
    assert SampleStore.open(mine.path).decisions == {sample: True}


def test_a_row_says_which_decision_it_was_made_on(tmp_path) -> None:
    store = make_store(tmp_path / "s", 2)
    first, second = (record.id for record in store.records)
    store.decide([first, second], accepted=True)
    store.decide([first], accepted=None)
    store.decide([first], accepted=None)  # is decided that way already
    rows = [json.loads(line) for line in (store.path / "decisions.jsonl").read_text().splitlines()]
    assert [(row["id"], row["accepted"], row["after"]) for row in rows] == [
        (first, True, 0), (second, True, 0), (first, None, 1),
    ]  # fmt: skip
    assert store.versions == {first: 3, second: 2}
    assert store.version == 3


def test_all_are_compared_when_the_version_of_all_is_named(tmp_path) -> None:
    store = make_store(tmp_path / "s", 3)
    first, second, third = (record.id for record in store.records)
    store.decide([first], accepted=True)
    seen = store.version
    store.decide([second], accepted=True)
    with pytest.raises(OutdatedDecisionError) as error:
        store.decide_each(dict.fromkeys([first, second, third], False), seen_all=seen)
    assert error.value.samples == [second]
    store.decide_each(dict.fromkeys([first, third], False), seen_all=seen)
    assert store.decisions == {first: False, second: True, third: False}

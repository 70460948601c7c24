"""Pages, decisions and undo, on stores of a few samples."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from anomalib_synth.report.review_session import OutdatedError, ReviewSession, UnknownSampleError
from anomalib_synth.store import SampleStore
from tests.unit.store.samples import make_record, make_store, reject


@pytest.fixture
def store(tmp_path) -> SampleStore:
    """12 samples, qualities 0 to .9 and then 0 and .1, scratch and stain in turn; the last was never drawn."""
    store = make_store(tmp_path / "store", 11)
    with store.writing():
        store.append(reject(make_record(store, 11)))
    return store


@pytest.fixture
def session(store) -> ReviewSession:
    return ReviewSession(store)


def indices(session: ReviewSession, query: str) -> list[int]:
    return [sample["index"] for sample in session.page(query)["samples"]]


def test_pages_follow_the_query(session) -> None:
    assert indices(session, "family=stain") == [1, 3, 5, 7, 9]
    assert indices(session, "range=quality:0.7:") == [7, 8, 9]
    assert indices(session, "sort=quality&order=desc&per_page=3") == [9, 8, 7]
    assert indices(session, "sort=quality&per_page=3") == [0, 10, 1]
    assert indices(session, "find=GOOD/7.png") == [7]
    assert indices(session, "per_page=5&offset=10") == [10, 11]
    assert indices(session, "decision=out") == [11]


def test_what_was_never_drawn_has_no_scores_and_comes_last(session) -> None:
    for order in ("asc", "desc"):
        page = session.page(f"sort=visibility&order={order}")["samples"]
        assert page[-1]["index"] == 11
        assert set(page[-1]["scores"].values()) == {None}


def test_facets_count_what_the_other_filters_leave(session) -> None:
    page = session.page("family=stain&range=quality:0.5:")
    assert {each["name"]: each["count"] for each in page["facets"]["family"]} == {"": 0, "scratch": 2, "stain": 3}
    assert page["matching"] == 3


def test_histogram_counts_every_sample_with_the_score_once(session, store) -> None:
    histogram = session.page("score=quality&range=quality:0.5:")["histogram"]
    assert sum(histogram["kept"]) == 11
    session.decide([store.records[0].id], accepted=False)
    histogram = session.page("score=quality")["histogram"]
    assert (sum(histogram["kept"]), sum(histogram["out"])) == (10, 1)
    assert histogram["edges"] == sorted(histogram["edges"])


def test_the_next_page_is_right_while_decisions_empty_the_filter(session, store) -> None:
    first = session.page("decision=undecided&per_page=4")["samples"]
    session.decide([sample["id"] for sample in first], accepted=False)
    assert indices(session, f"decision=undecided&per_page=4&after={first[-1]['id']}") == [4, 5, 6, 7]
    assert indices(session, f"decision=undecided&per_page=4&before={store.records[8].id}") == [4, 5, 6, 7]


def test_decisions_are_in_the_store_and_undone_in_order(session, store) -> None:
    ids = [record.id for record in store.records]
    session.decide(ids[:2], accepted=False)
    session.decide(ids[1:3], accepted=True)
    assert SampleStore.open(store.path).decisions == {ids[0]: False, ids[1]: True, ids[2]: True}
    assert session.undo()["states"][ids[1]] == {"decision": False, "kept": False}
    assert SampleStore.open(store.path).decisions == {ids[0]: False, ids[1]: False}
    session.undo()
    assert SampleStore.open(store.path).decisions == {}
    assert session.undo()["changed"] == 0


def test_undo_leaves_what_somebody_else_decided_since(session, store) -> None:
    ids = [record.id for record in store.records[:2]]
    session.decide(ids, accepted=False)
    SampleStore.open(store.path).decide(ids[:1], accepted=True)
    answer = session.undo()
    assert (answer["changed"], answer["skipped"]) == (1, 1)
    assert SampleStore.open(store.path).decisions == {ids[0]: True}


def test_unknown_and_undrawn_samples(session, store) -> None:
    with pytest.raises(UnknownSampleError):
        session.decide([store.records[0].id, "nothing"], accepted=False)
    assert SampleStore.open(store.path).decisions == {}
    answer = session.decide([store.records[11].id], accepted=True)
    assert (answer["changed"], answer["skipped"]) == (0, 1)
    with pytest.raises(UnknownSampleError):
        session.detail("nothing")


def test_a_decision_on_all_that_match_wants_their_number(session, store) -> None:
    with pytest.raises(OutdatedError, match="5 samples now, not 4"):
        session.decide_matching("family=stain", accepted=False, expected=4)
    assert session.decide_matching("family=stain", accepted=False, expected=5)["changed"] == 5
    assert sorted(SampleStore.open(store.path).decisions) == sorted(record.id for record in store.records[1:11:2])


def test_samples_that_are_still_being_made_turn_up(session, store) -> None:
    assert session.page("")["matching"] == 12
    writer = SampleStore.open(store.path)
    with writer.writing():
        writer.append(make_record(writer, 12))
    assert session.page("")["matching"] == 13


def test_detail_keeps_every_digit_of_the_seed(tmp_path) -> None:
    store = SampleStore.create(tmp_path / "store", {})
    with store.writing():
        store.append(replace(make_record(store, 0), seed=2**62 + 1))
    assert ReviewSession(store).detail(store.records[0].id)["seed"] == str(2**62 + 1)


def test_decisions_of_many_at_once_are_all_kept(session, store) -> None:
    ids = [record.id for record in store.records[:11]]
    threads = [threading.Thread(target=session.decide, args=([each],), kwargs={"accepted": False}) for each in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert SampleStore.open(store.path).decisions == dict.fromkeys(ids, False)

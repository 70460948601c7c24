"""What samples cost."""

from __future__ import annotations

import pytest

from anomalib_synth.store import SampleStore, describe_costs, measure_costs
from anomalib_synth.store.cost import name_generator
from tests.unit.store.samples import make_record, make_store, reject

RULES = {"class_path": "anomalib_synth.generators.RuleBasedGenerator", "init_args": {}}
FILTERED = {"class_path": "anomalib_synth.generators.FilteredGenerator", "init_args": {"generator": RULES}}


@pytest.fixture
def store(tmp_path) -> SampleStore:
    store = SampleStore.create(tmp_path / "store", {})
    with store.writing():
        for index in range(3):
            store.append(make_record(store, index, generator=RULES, seconds=0.5))
        for index in range(3, 7):
            record = make_record(store, index, generator=FILTERED, seconds=2.0)
            store.append(reject(record) if index == 3 else record)
    return store


def test_costs_are_added_up_by_generator_with_those_that_failed(store) -> None:
    kept = [store.is_accepted(record) for record in store.records]
    filtered, rules = measure_costs(store.records, kept, price_per_hour=3.6)
    assert (filtered.generator, filtered.samples, filtered.accepted) == ("FilteredGenerator(RuleBasedGenerator)", 4, 3)
    assert (filtered.device_seconds, filtered.seconds) == (8.0, 2.0)
    assert filtered.seconds_per_accepted == pytest.approx(8 / 3)
    assert filtered.price_per_accepted == pytest.approx(8 / 3 / 1000)
    assert (rules.samples, rules.accepted, rules.seconds_per_accepted) == (3, 3, 0.5)


def test_what_people_leave_out_makes_the_rest_dearer(store) -> None:
    store.decide([store.records[0].id, store.records[1].id], False)
    kept = [store.is_accepted(record) for record in store.records]
    assert measure_costs(store.records, kept)[1].seconds_per_accepted == 1.5


def test_where_nothing_is_accepted_there_is_no_cost_of_it(store) -> None:
    cost = measure_costs(store.records, [False] * 7, price_per_hour=1)[0]
    assert cost.seconds_per_accepted is None
    assert cost.price_per_accepted is None
    assert describe_costs([cost]).splitlines()[1].split()[-2:] == ["-", "-"]


def test_the_price_is_shown_where_it_is_known(store) -> None:
    costs = measure_costs(store.records, [True] * 7)
    assert "price" not in describe_costs(costs)
    assert describe_costs(measure_costs(store.records, [True] * 7, price_per_hour=7.2)).splitlines()[2].split() == [
        "RuleBasedGenerator", "3", "3", "0.500", "1.5", "0.500", "0.001",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="`price_per_hour` must be >= 0, got -1"):
        measure_costs([], [], price_per_hour=-1)


def test_generators_are_named_with_what_they_wrap() -> None:
    control = {**FILTERED, "init_args": {"generator": RULES, "mode": "random_keep"}}
    assert name_generator(control) == "FilteredGenerator[random_keep](RuleBasedGenerator)"
    assert name_generator({"class_path": "", "init_args": None}) == "unknown"


def test_a_filters_verdicts_count_until_a_person_decides(tmp_path) -> None:
    store = make_store(tmp_path / "store", 4)
    ids = [record.id for record in store.records]
    other = SampleStore.open(store.path)
    store.write_filter_results(
        {ids[0]: {"similarity": 0.4, "reason": "similarity 0.4 below 0.9"}, ids[1]: {"reason": ""}}, {}
    )
    other.refresh()
    for each in (store, other, SampleStore.open(store.path)):
        assert [each.is_accepted(record) for record in each.records] == [False, True, True, True]
    store.decide([ids[0]], True)
    store.decide([ids[1]], False)
    assert [store.is_accepted(record) for record in store.records] == [True, False, True, True]
    store.write_filter_results({ids[2]: {"reason": "too odd"}}, {})
    assert [store.is_accepted(record) for record in store.records] == [True, False, False, True]
    (store.path / "filter.json").write_text("{")
    with pytest.raises(ValueError, match=r"filter.json' is damaged.*run `anomalib-synth filter` again"):
        SampleStore.open(store.path)

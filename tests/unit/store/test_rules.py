"""Every field of every record is checked when it is read; what is wrong is one kind of error, with file and line."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from anomalib_synth.store import Record, SampleStore, StoreError
from anomalib_synth.store.record import RECORD
from anomalib_synth.store.rules import FieldRule, RecordSchema, is_plain, is_text, whole
from tests.unit.store.samples import make_store

HUGE = 10**400
WRONG = {
    "id": ["../../x", "/tmp/x", "A" * 32, "a" * 31, 5, None],
    "index": [-1, "0", True, 0.0, None],
    "split": ["all", 1, ["train"]],
    "source": ["/etc/passwd", "../x.png", "a/../../x.png", "", "x\0", "\ud800", 3],
    "source_hash": ["/tmp/x", "../x", "", 7],
    "image_file": [
        "images/ab/../../../x.png",
        "masks/ab/" + "ab" * 16 + ".png",
        "images/ba/" + "ab" * 16 + ".png",
        None,
    ],
    "mask_file": ["", "/x.png"],
    "source_file": ["", 5],
    "image_hash": ["", "x", 1],
    "mask_hash": ["", ["a" * 32]],
    "source_file_hash": ["", None],
    "generator": [
        5,
        {},
        {"class_path": 5},
        {"class_path": "x", "init_args": []},
        {"class_path": "x", "more": [float("inf")]},
    ],
    "prepare_digest": ["x", None],
    "files_digest": ["x", 0],
    "weights_hash": ["x", False],
    "seed": [-1, 1.5, "7", HUGE],
    "attempt": [-2, "0", None],
    "prompt": [None, 5, "\ud800"],
    "caption": [["x"], None],
    "family": [{}, 1],
    "params": [[], "x", {"a": float("nan")}, {"a": HUGE}],
    "strength": ["0.5", -1, float("inf"), True],
    "area": [1.5, -0.1, "0", None, True],
    "visibility": [float("nan"), -1, "3"],
    "agreement": [2, None],
    "foreground": [-1, "1"],
    "quality": ["1", 1.01, float("inf"), False],
    "scores": [{"a": "x"}, {"a": True}, [], {"a": float("nan")}],
    "accepted": ["false", "true", 0, 1, None],
    "reason": [None, 5],
    "seconds": [-1, "1", float("nan")],
    "version": [1, None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_row_is_refused_when_a_field_holds_something_else(tmp_path, name, value) -> None:
    store = make_store(tmp_path / "s", 2)
    first, second = (record.to_dict() for record in store.records)
    lines = [json.dumps(first), json.dumps({**second, name: value})]
    (tmp_path / "s" / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(StoreError, match=r"manifest.jsonl', line 2, .*check --store .* --repair"):
        SampleStore.open(tmp_path / "s")


def test_every_field_has_a_rule() -> None:
    assert set(RECORD.rules) == {each.name for each in fields(Record)} == set(WRONG)


@pytest.mark.parametrize(
    "row",
    [
        5, None, [], "x", {}, {"id": "x", "accepted": True, "time": 1},
        {"id": "a" * 32, "accepted": "false", "time": 1},
        {"id": "a" * 32, "accepted": 1, "time": 1}, {"id": "a" * 32, "accepted": True, "time": float("nan")},
        {"id": "a" * 32, "accepted": True}, {"id": ["a"], "accepted": True, "time": 1},
        {"id": "a" * 32, "accepted": True, "time": 1, "after": -1},
        {"id": "a" * 32, "accepted": True, "time": 1, "by": "x"},
    ],
)  # fmt: skip
def test_a_decision_is_refused_when_it_is_none(tmp_path, row) -> None:
    store = make_store(tmp_path / "s", 2)
    store.decide([store.records[0].id], accepted=True)
    with (tmp_path / "s" / "decisions.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(StoreError, match=r"decisions.jsonl', line 2, "):
        SampleStore.open(tmp_path / "s")


def test_an_old_decision_without_a_version_is_read(tmp_path) -> None:
    store = make_store(tmp_path / "s", 1)
    row = {"id": store.records[0].id, "accepted": False, "time": 1.5}
    (tmp_path / "s" / "decisions.jsonl").write_text(json.dumps(row) + "\n")
    assert SampleStore.open(tmp_path / "s").decisions == {row["id"]: False}


@pytest.mark.parametrize(
    "content",
    [
        5, [], {}, {"samples": []}, {"samples": {"x": {"reason": ""}}}, {"samples": {"a" * 32: "x"}},
        {"samples": {"a" * 32: {}}}, {"samples": {"a" * 32: {"reason": None}}},
        {"samples": {"a" * 32: {"reason": "", "similarity": "0.5"}}},
        {"samples": {"a" * 32: {"reason": "", "similarity": float("inf")}}},
    ],
)  # fmt: skip
def test_verdicts_are_refused_when_they_are_none(tmp_path, content) -> None:
    make_store(tmp_path / "s", 1)
    (tmp_path / "s" / "filter.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"filter.json' is damaged: it "):
        SampleStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    "head",
    [
        5, [], {"format": "1", "settings": {}}, {"format": True, "settings": {}}, {"format": 1},
        {"format": 1, "settings": []},
        {"format": 1, "settings": {"seed": "0"}}, {"format": 1, "settings": {"generator": "x"}},
        {"format": 1, "settings": {"image_size": 0.5}}, {"format": 1, "settings": {"split": "all"}},
        {"format": 1, "settings": {"weights_hash": "../x"}}, {"format": 1, "settings": {"normals": 5}},
        {"format": 1, "settings": {"normals": {"digest": 5}}},
        {"format": 1, "settings": {"normals": {"unreadable": ["x"]}}},
        {"format": 1, "settings": {"defect_digests": ["x"]}}, {"format": 1, "settings": {"defect_digests": {"x": 5}}},
        {"format": 1, "settings": {"more": float("nan")}},
    ],
)  # fmt: skip
def test_a_head_is_refused_when_a_setting_is_something_else(tmp_path, head) -> None:
    make_store(tmp_path / "s", 1)
    (tmp_path / "s" / "store.json").write_text(json.dumps(head))
    with pytest.raises(StoreError, match=r"store.json' is damaged"):
        SampleStore.open(tmp_path / "s")


@pytest.mark.parametrize("name", ["manifest.jsonl", "decisions.jsonl", "filter.json", "store.json"])
@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"{" * 9 + b"\n", b"\xff\xfe\n", b'{"a": 1' + b"0" * 5000 + b"}\n"]
)
def test_garbage_is_one_kind_of_error(tmp_path, name, content) -> None:
    make_store(tmp_path / "s", 1)
    (tmp_path / "s" / name).write_bytes(content + b"\n")
    with pytest.raises(StoreError):
        SampleStore.open(tmp_path / "s")


def test_what_could_not_be_read_again_is_not_written(tmp_path) -> None:
    store = make_store(tmp_path / "s", 1)
    other = make_store(tmp_path / "other", 2).records[1]
    for changes in ({"quality": float("nan")}, {"caption": "\ud800"}, {"scores": {"x": float("inf")}}):
        with store.writing(), pytest.raises(StoreError, match="It was not written"):
            store.append(Record(**{**other.to_dict(), **changes}))
    with pytest.raises(StoreError, match="Nothing was written"):
        store.write_filter_results({store.records[0].id: {"reason": "", "similarity": float("nan")}}, {})
    assert len(SampleStore.open(tmp_path / "s").records) == 1


def test_a_form_with_room_for_more_wants_it_plain() -> None:
    schema = RecordSchema(name="a thing", rules={"a": FieldRule("text", is_text)}, open_ended=True)
    assert schema.find_fault({"a": "x", "b": [1, {"c": None}]}) == ""
    assert "must be plain" in schema.find_fault({"a": "x", "b": float("nan")})
    assert "missing ['a']" in schema.find_fault({"b": 1})
    nested: list = []
    for _ in range(40):
        nested = [nested]
    assert not is_plain(nested)


def test_both_ends_are_named_when_a_number_has_two() -> None:
    assert whole(1, 65536).says == "a whole number from 1 to 65536"
    assert whole(1).says == "a whole number >= 1"

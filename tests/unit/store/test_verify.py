"""What is damaged is put aside, what is sound stays, and the command that an error names does it."""

from __future__ import annotations

import json
import os

import pytest

from anomalib_synth.commands.check import check
from anomalib_synth.comparison.trial_log import TrialLog
from anomalib_synth.store import SampleStore, StoreError
from anomalib_synth.store.files import append_lines
from benchmarks.fuzz_stores import fuzz
from tests.unit.store.samples import make_record, make_store

COUNT = 5
EDITS = {
    "cut": lambda lines, n: [*lines[:n], lines[n][:40] + b"\n", *lines[n + 1 :]],
    "blank": lambda lines, n: [*lines[:n], b"\n", *lines[n:]],
    "doubled": lambda lines, n: [*lines[:n], lines[n], *lines[n:]],
    "garbage": lambda lines, n: [*lines[:n], b"\x00\xff garbage\n", *lines[n:]],
    "another value": lambda lines, n: [*lines[:n], b"5\n", *lines[n:]],
    "glued": lambda lines, n: [*lines[:n], lines[n][:40] + lines[n], *lines[n + 1 :]],
}


@pytest.mark.parametrize("where", [0, 2, COUNT - 1])
@pytest.mark.parametrize("how", EDITS)
def test_the_named_command_repairs_when_a_line_is_bad(tmp_path, capsys, how, where) -> None:
    path = make_store(tmp_path / "s", COUNT).path
    manifest = path / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    edited = b"".join(EDITS[how](lines, where))
    manifest.write_bytes(edited)
    if how != "blank":  # says nothing, so it is no error
        with pytest.raises(StoreError, match=rf"line {where + 1 + (how == 'doubled')}, .* --repair"):
            SampleStore.open(path)
        with pytest.raises(ValueError, match="1 problems"):
            check(path)
    capsys.readouterr()
    check(path, repair=True)
    kept = [line for n, line in enumerate(lines) if n != where or how != "cut"]
    said = capsys.readouterr().out
    assert f"{len(kept)} samples, sound" in said
    assert manifest.read_bytes().splitlines(keepends=True) == kept
    assert [record.index for record in SampleStore.open(path).records] == [json.loads(line)["index"] for line in kept]
    aside = path / "manifest.removed.jsonl"
    if how != "blank":
        assert f"manifest.jsonl, line {where + 1 + (how == 'doubled')}, " in said
        assert "manifest.removed.jsonl" in said
        removed = aside.read_bytes().splitlines()
        assert all(
            line in kept or line.rstrip(b"\n") in removed for line in edited.splitlines(keepends=True) if line.strip()
        )
    before = manifest.read_bytes()
    check(path, repair=True)
    assert manifest.read_bytes() == before


@pytest.mark.parametrize("name", ["decisions.jsonl", "quarantine.jsonl", "normals.jsonl"])
@pytest.mark.parametrize("garbage", [b"garbage\n", b"5\n", b'{"id": "x"}\n', b'{"id": "half\n', b"\x00\x00\n"])
def test_the_other_logs_are_repaired_when_a_line_is_bad(tmp_path, name, garbage) -> None:
    store = make_store(tmp_path / "s", 3)
    store.decide([store.records[0].id], accepted=False)
    store.decide([store.records[1].id], accepted=True)
    store.quarantine("a.png", "empty")
    store.quarantine("b.png", "empty")
    rows = [{"name": f"{n}.png", "content": "a" * 32, "reason": ""} for n in range(2)]
    (store.path / "normals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = store.path / name
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + garbage + second)
    with pytest.raises(ValueError, match="--repair"):
        check(store.path)
    check(store.path, repair=True)
    assert path.read_bytes() == first + second
    assert (store.path / name.replace(".jsonl", ".removed.jsonl")).read_bytes() == garbage
    again = SampleStore.open(store.path)
    assert again.decisions == {store.records[0].id: False, store.records[1].id: True}
    assert set(again.quarantined) == {"a.png", "b.png"}


def test_judgements_are_repaired_one_by_one(tmp_path) -> None:
    store = make_store(tmp_path / "s", 2)
    sound = {"reason": "too odd", "similarity": 0.5}
    content = {"facts": {}, "samples": {store.records[0].id: sound, store.records[1].id: {"reason": 5}}}
    (store.path / "filter.json").write_text(json.dumps(content))
    check(store.path, repair=True)
    assert SampleStore.open(store.path).judgements == {store.records[0].id: sound}
    assert json.loads((store.path / "filter.removed.json").read_bytes()) == content
    (store.path / "filter.json").write_text("{")
    check(store.path, repair=True)
    assert SampleStore.open(store.path).judgements == {}
    assert json.loads((store.path / "filter.removed.json").read_bytes()) == content
    assert (store.path / "filter.removed.2.json").read_text() == "{"


def test_a_row_that_names_the_files_of_another_sample_is_taken_out(tmp_path) -> None:
    store = make_store(tmp_path / "s", 2)
    row = json.loads((store.path / "manifest.jsonl").read_bytes().splitlines()[0])
    other = {**row, "id": "a" * 32, "index": 7}
    append_lines(store.path / "manifest.jsonl", json.dumps(other).encode() + b"\n")
    check(store.path, repair=True)
    assert [record.index for record in SampleStore.open(store.path).records] == [0, 1]


@pytest.mark.parametrize("name", ["manifest.jsonl", "decisions.jsonl", "quarantine.jsonl"])
@pytest.mark.parametrize("torn", [b'{"id": "half', b"\x00\x00\x00"])
def test_a_torn_line_swallows_nothing_when_more_is_appended(tmp_path, name, torn) -> None:
    store = make_store(tmp_path / "s", 3)
    store.decide([store.records[0].id], accepted=False)
    store.quarantine("a.png", "empty")
    path = store.path / name
    with path.open("ab") as file:
        file.write(torn)
    for _ in range(2):  # the third run was the first to be refused
        store = SampleStore.open(store.path)
        with store.writing():
            store.quarantine("b.png", "empty")
            if len(store.records) == 3:
                store.append(make_record(store, 3))
        store.decide([store.records[1].id], accepted=False)
    again = SampleStore.open(store.path)
    assert len(again.records) == 4
    assert set(again.quarantined) == {"a.png", "b.png"}
    assert set(again.decisions) == {record.id for record in again.records[:2]}
    assert (store.path / name.replace(".jsonl", ".removed.jsonl")).read_bytes() == torn + b"\n"
    assert again.verify() == []


def test_a_row_that_only_lacks_its_line_end_is_kept(tmp_path) -> None:
    store = make_store(tmp_path / "s", 3)
    store.decide([store.records[0].id], accepted=False)
    for name in ("manifest.jsonl", "decisions.jsonl"):
        path = store.path / name
        path.write_bytes(path.read_bytes().rstrip(b"\n"))
    again = SampleStore.open(store.path)
    assert (len(again.records), len(again.decisions)) == (3, 1)
    again.decide([store.records[1].id], accepted=False)
    with again.writing():
        again.append(make_store(tmp_path / "other", 4).records[3])
    for reader in (again, SampleStore.open(store.path)):
        reader.refresh()
        assert (len(reader.records), len(reader.decisions), reader.version) == (4, 2, 2)


def test_a_comparisons_log_goes_on_on_a_fresh_line(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    log = TrialLog(path)
    log.append({"config_hash": "a", "value": 1})
    with path.open("ab") as file:
        file.write(b'{"config_hash": "torn')
    log.append({"config_hash": "b", "value": 2})
    assert [json.loads(line)["config_hash"] for line in path.read_bytes().splitlines()] == ["a", "b"]
    path.write_text('{"config_hash": ["a"]}\n')
    with pytest.raises(StoreError, match=r"runs.jsonl', line 1, has `config_hash`"):
        TrialLog(path)


@pytest.mark.parametrize("name", ["normals.jsonl", "quarantine.jsonl", "manifest.jsonl"])
def test_a_row_is_put_aside_when_a_text_in_it_is_no_utf8(tmp_path, name) -> None:
    path = make_store(tmp_path / "s", 3).path
    rows = [{"name": f"{n}.png", "content": "ab" * 16, "reason": ""} for n in range(3)]
    (path / "normals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    SampleStore.open(path).quarantine("bad.png", "the file is empty")
    lines = (path / name).read_bytes().splitlines(keepends=True)
    first = lines[0][: lines[0].index(b":")]
    bad = first + b': "\x82", ' + lines[0][1:]  # the first key twice: the sound value is the one that counts
    (path / name).write_bytes(bad + b"".join(lines[1:]))
    store = SampleStore.open(path, strict=False)
    assert any(f"{name}', line 1, is not JSON ('utf-8'" in problem for problem in store.verify())
    store.repair()
    assert store.verify() == []
    assert (path / name).read_bytes() == b"".join(lines[1:])
    assert bad in (path / name.replace(".jsonl", ".removed.jsonl")).read_bytes()


def test_a_link_in_a_store_is_never_followed_out_of_it(tmp_path) -> None:
    store = make_store(tmp_path / "s", 2)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "log").write_text("precious\n")
    (store.path / "decisions.jsonl").symlink_to(outside / "log")
    with pytest.raises(StoreError, match=r"is a link|line 1"):
        store.decide([store.records[0].id], accepted=False)
    os.rename(store.path / "images", tmp_path / "images")  # noqa: PTH104
    (store.path / "images").symlink_to(outside, target_is_directory=True)
    with pytest.raises(StoreError, match="leads out of the store"):
        SampleStore(store.path).put("images", "ab" * 16, b"data")
    assert (outside / "log").read_text() == "precious\n"
    assert [path.name for path in outside.iterdir()] == ["log"]


def test_nothing_is_lost_written_elsewhere_or_a_traceback_when_stores_are_edited_at_random(tmp_path) -> None:
    counts = fuzz(tmp_path, 150)
    bad = {name: counts.outcomes[name] for name in ("tracebacks", "outside", "lost", "unmended")}
    assert bad == dict.fromkeys(bad, 0), counts.faults[:3]
    assert counts.outcomes["edits"] >= 100
    assert counts.outcomes["refused"] >= 30

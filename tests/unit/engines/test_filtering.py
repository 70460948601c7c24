"""``anomalib-synth filter``: verdicts on the samples of a store, and the report."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.cli import main
from anomalib_synth.commands.filter import filter_store
from anomalib_synth.commands.generate import generate
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.report.catalogue import Catalogue
from anomalib_synth.report.review_session import ReviewSession
from anomalib_synth.report.static_page import write_static
from anomalib_synth.retrieval import FilterSettings
from anomalib_synth.store import SampleStore
from tests.unit.retrieval.small import write_bundle


@pytest.fixture
def settings(tmp_path) -> FilterSettings:
    return FilterSettings(embedder=write_bundle(tmp_path / "bundle"), quantile=0.5)


@pytest.fixture
def store(parts_root, tmp_path):
    generator = RuleBasedGenerator(["cutout", "scratch", "noise"])
    generate(parts_root / "train" / "good", out=tmp_path / "store", generator=generator, num_samples=24)
    return tmp_path / "store"


def test_what_is_refused_is_left_out_with_scores_and_a_reason(store, parts_root, settings, capsys) -> None:
    filter_store(store, normals=parts_root / "train" / "good", retrieval=settings)
    opened = SampleStore.open(store)
    kept = [opened.is_accepted(record) for record in opened.records]
    assert 0 < sum(kept) < 24
    printed = capsys.readouterr().out
    assert f"Kept {sum(kept)} of 24 drawn samples" in printed
    assert f"all         24        {sum(kept):2}" in printed
    with (store / "filter" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [not row["reason"] for row in rows] == kept
    facts = json.loads((store / "filter.json").read_text())["facts"]
    for row in rows:
        if "visibility" not in row["reason"]:
            lower = facts["bounds"][row["window"]]["lower"]
            assert (float(row["similarity"]) < lower) == row["reason"].startswith("similarity")
            assert (float(row["loss_of_similarity"]) > 0.2) or not row["reason"].startswith("loss")
    with Image.open(store / "filter" / "scores.png") as picture:
        assert picture.width > 500
    catalogue = Catalogue(opened)
    assert catalogue.kept.tolist() == kept
    np.testing.assert_allclose(catalogue.scores["similarity"], [float(row["similarity"]) for row in rows])
    shown = [catalogue.describe(row)["reason"] for row in range(24)]
    assert shown == [row["reason"] for row in rows]
    assert "similarity … below …" in catalogue.labels["reason"][0]


def test_a_person_goes_before_the_filter_and_a_new_run_before_an_old_one(store, parts_root, settings) -> None:
    opened, session = SampleStore.open(store), ReviewSession(SampleStore.open(store))
    first = opened.records[0].id
    session.decide([first], True)
    strict = FilterSettings(embedder=settings.embedder, min_visibility=1e6)
    filter_store(store, normals=parts_root / "train" / "good", retrieval=strict)
    opened.refresh()
    assert [record.id for record in opened.records if opened.is_accepted(record)] == [first]
    page = session.page("")
    assert (page["counts"]["kept"], page["counts"]["rejected"]) == (1, 0)
    assert page["costs"][0]["accepted"] == 1
    filter_store(store, normals=parts_root / "train" / "good", retrieval=settings, dry_run=True)
    opened.refresh()
    assert sum(map(opened.is_accepted, opened.records)) == 1
    filter_store(store, normals=parts_root / "train" / "good", retrieval=settings)
    assert session.page("")["counts"]["kept"] > 1


def test_random_keep_keeps_as_many_others(store, parts_root, settings) -> None:
    normals, kept = parts_root / "train" / "good", []
    for mode, seed in (("filter", 0), ("random_keep", 0), ("random_keep", 1), ("random_keep", 0)):
        filter_store(store, normals=normals, retrieval=settings, mode=mode, seed=seed)
        opened = SampleStore.open(store)
        kept.append([opened.is_accepted(record) for record in opened.records])
    assert len({sum(each) for each in kept}) == 1
    assert kept[1] == kept[3]
    assert len({tuple(each) for each in kept}) == 3


def test_the_command_line_takes_the_settings(store, parts_root, settings, tmp_path, capsys) -> None:
    main([
        "filter", f"--store={store}", f"--normals={parts_root}/train/good", f"--out={tmp_path / 'report'}",
        f"--retrieval.embedder={settings.embedder}", "--retrieval.max_normals=6",
    ])  # fmt: skip
    printed = capsys.readouterr().out
    assert "compared with 6 normals" in printed
    assert " px: similarity at least " in printed
    assert len(list((tmp_path / "report" / "index").iterdir())) == 1
    with pytest.raises(SystemExit, match=r"`normals` must be a folder with images"):
        main(["filter", f"--store={store}", f"--normals={tmp_path / 'none'}"])
    with pytest.raises(SystemExit, match="is no store"):
        main(["filter", f"--store={tmp_path / 'none'}", f"--normals={parts_root}"])


def test_generate_and_review_say_what_samples_cost(parts_root, tmp_path, capsys) -> None:
    arguments = [f"--normals={parts_root}/train/good", f"--out={tmp_path / 'store'}", "--num_samples=2"]
    main(["generate", *arguments, "--price_per_hour=3"])
    head, row = capsys.readouterr().out.splitlines()[-3:-1]
    assert head.split()[-1] == "price/accepted"
    assert row.split()[:2] == ["RuleBasedGenerator", "2"]
    page = tmp_path / "page.html"
    write_static(SampleStore.open(tmp_path / "store"), page, price_per_hour=3)
    assert "<td>RuleBasedGenerator</td><td>2</td>" in page.read_text()
    with pytest.raises(SystemExit, match="`price_per_hour` must be >= 0, got -1"):
        main(["generate", *arguments, "--price_per_hour=-1"])


def test_filtered_samples_go_into_a_store_with_their_scores(parts_root, settings, tmp_path) -> None:
    main([
        "generate", f"--normals={parts_root}/train/good", f"--out={tmp_path / 'store'}", "--num_samples=8",
        "--generator=FilteredGenerator", "--generator.generator=RuleBasedGenerator",
        f"--generator.retrieval.embedder={settings.embedder}", "--generator.retrieval.quantile=0.5",
        "--generator.budget=2",
    ])  # fmt: skip
    opened = SampleStore.open(tmp_path / "store")
    assert {record.generator["class_path"].rpartition(".")[2] for record in opened.records} == {"FilteredGenerator"}
    for record in opened.records:
        assert record.accepted == ("similarity" in record.scores)
    assert "similarity" in Catalogue(opened).scores

"""The specification of a comparison, its rows, and what is measured of a run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from anomalib_synth.comparison.from_config import build_callbacks, build_model
from anomalib_synth.comparison.spec import ComparisonSpec
from anomalib_synth.comparison.summary import summarise_rows
from anomalib_synth.comparison.trial_data import check_images, digest_data, digest_generators
from anomalib_synth.comparison.trial_log import TrialLog

DRAW = {
    "class_path": "anomalib_synth.callbacks.SynthesisCallback",
    "init_args": {"generator": {"class_path": "anomalib_synth.generators.RuleBasedGenerator"}},
}
FAINT = {**DRAW, "init_args": {**DRAW["init_args"], "probability": 0.3}}
FOLDER = {
    "class_path": "anomalib.data.Folder",
    "init_args": {"name": "part", "normal_dir": "good", "val_split_mode": "from_train", "seed": 0},
}
ON_SYNTHETIC = {
    "class_path": "anomalib_synth.data.SyntheticDataModule",
    "init_args": {
        "base": FOLDER,
        "generator": {"class_path": "anomalib_synth.generators.RuleBasedGenerator"},
        "splits": ["test"],
    },
}
BASE: dict[str, Any] = {
    "models": {
        "padim": {"class_path": "anomalib.models.Padim"},
        "realnet": {"class_path": "anomalib_synth.models.RealNet"},
    },
    "synthesis": {"none": [], "rules": [DRAW]},
    "data": {"part": FOLDER},
    "arms": [["padim", "none"], ["realnet", "rules"]],
    "baseline": ["padim", "none"],
    "seeds": [0, 1],
    "steps": 10,
    "image_size": 64,
}


def make_spec(**changes: Any) -> ComparisonSpec:
    return ComparisonSpec(**{**copy.deepcopy(BASE), **changes})


def data_with(**arguments: Any) -> dict[str, Any]:
    return {"part": {**FOLDER, "init_args": {**FOLDER["init_args"], **arguments}}}


def test_cells_are_all_arms_on_all_data_with_all_seeds() -> None:
    trials = make_spec().trials()
    assert [(trial["arm"], trial["data"], trial["seed"]) for trial in trials] == [
        ("padim (none)", "part", 0), ("realnet (rules)", "part", 0),
        ("padim (none)", "part", 1), ("realnet (rules)", "part", 1),
    ]  # fmt: skip
    assert json.loads(json.dumps(trials)) == trials  # plain data


def test_test_on_synthetic_defects_is_said_in_verdicts_and_notes() -> None:
    trials = make_spec(data={"part": ON_SYNTHETIC}, test_defects="synthetic").trials()
    counts = {"batches": 10, "test_defects": 50}
    rows = [{**trial, **counts, "image_auroc": 0.5 + 0.1 * (trial["model"] == "realnet")} for trial in trials]
    summary = summarise_rows(rows, trials, baseline="padim (none)", metric="image_auroc")
    assert "image AUROC on synthetic defects +10.0 points" in summary.arms[1].verdict.sentence
    assert summary.notes[0].startswith("The test defects are synthetic.")
    real = [{**row, "test_defects_are": None} for row in rows]
    summary = summarise_rows(real, real, baseline="padim (none)", metric="image_auroc")
    assert "synthetic" not in summary.arms[1].verdict.sentence + " ".join(summary.notes)


def test_categories_make_a_data_set_each() -> None:
    part = {**FOLDER, "class_path": "anomalib_synth.data.DemoParts", "init_args": {"seed": 0}}
    spec = make_spec(data={"demo": {**part, "categories": ["printed_cap", "woven_fabric"]}})
    assert list(spec.datasets) == ["demo/printed_cap", "demo/woven_fabric"]
    assert spec.datasets["demo/woven_fabric"]["init_args"]["category"] == "woven_fabric"


def test_config_hash_tells_runs_apart_when_anything_differs() -> None:
    first = make_spec().trials()
    assert [trial["config_hash"] for trial in first] == [trial["config_hash"] for trial in make_spec().trials()]
    changed = [
        make_spec(steps=11), make_spec(image_size=96), make_spec(false_alarm_rate=0.1),
        make_spec(data=data_with(val_split_ratio=0.3)), make_spec(seeds=[2, 3]),
        make_spec(
            models={name: {**each, "init_args": {"layers": ["blocks.2"]}} for name, each in BASE["models"].items()},
            synthesis={"none": [{"class_path": "lightning.pytorch.callbacks.Timer"}], "rules": [FAINT]},
        ),
    ]  # fmt: skip
    hashes = [trial["config_hash"] for spec in [make_spec(), *changed] for trial in spec.trials()]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [["padim", "none"], ["reelnet", "rules"]]}, r"got 'reelnet'; known models: padim, realnet"),
        ({"arms": [["padim", "none"], ["realnet", "rule"]]}, r"got 'rule'; known synthesis: none, rules"),
        ({"arms": [["padim", "none"], ["padim", "none"]]}, "`arms` must differ"),
        ({"arms": [["padim", "none"]]}, "at least two"),
        ({"arms": [["padim", "none"], "realnet"]}, r"pair \[model, synthesis\]"),
        ({"baseline": ["padim", "rules"]}, r"`baseline` must be one of `arms`, got .*known: \[\['padim', 'none'\]"),
        ({"seeds": [0, 0]}, "`seeds` must be different"),
        ({"seeds": []}, "`seeds` must be a list"),
        ({"seeds": ["one", "two"]}, "`seeds` must be different whole numbers >= 0, got .*'one'"),
        ({"seeds": [0.5, 1]}, "`seeds` must be different whole numbers"),
        ({"seeds": [True, 2]}, "`seeds` must be different whole numbers"),
        ({"steps": 0}, "`steps` must be >= 1"),
        ({"image_size": 8}, "`image_size` must be a long side .* sides >= 16"),
        ({"false_alarm_rate": 1.0}, "`false_alarm_rate` must be in"),
        ({"data": {}}, "`data` must name at least one"),
        ({"models": {**BASE["models"], "padim": {"class": "x"}}}, "`models.padim` must have class_path"),
        ({"models": {**BASE["models"], "padim": {"class_path": "anomalib.models.Padimm"}}}, "`models.padim` cannot"),
        (
            {"models": {**BASE["models"], "padim": {"class_path": "anomalib.models.Padim", "init_args": {"lairs": 1}}}},
            "`models.padim` cannot be built.*lairs",
        ),
        ({"synthesis": {"none": [], "rules": DRAW}}, "`synthesis.rules` must be a list"),
        ({"data": data_with(val_split_mode="same_as_test")}, "chosen on test data. Set `val_split_mode: from_train`"),
        ({"data": data_with(val_split_mode="from_test")}, "chosen on test data. Set `val_split_mode: from_train`"),
        ({"data": data_with(val_split_mode="none")}, "must hold good images back"),
        ({"data": {"part": ON_SYNTHETIC}}, "would be tested on synthetic defects.*set `test_defects: synthetic`"),
        (
            {"test_defects": "synthetic"},
            "brings its own test set. Wrap it in `anomalib_synth.data.SyntheticDataModule`",
        ),
        ({"data": data_with(seed=None)}, "`data.part` must have a seed"),
        ({"data": data_with(test_split_mode="synthetic")}, "tested on synthetic defects"),
    ],
)
def test_specification_is_refused_when_it_is_wrong(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_spec(**changes)


def test_typo_deep_in_a_callback_is_named() -> None:
    wrong = copy.deepcopy(DRAW)
    wrong["init_args"]["generator"]["init_args"] = {"strenght": [0.1, 0.2]}
    with pytest.raises(ValueError, match=r"`synthesis.rules\[0\]` cannot be built.*strenght"):
        make_spec(synthesis={"none": [], "rules": [wrong]})


def test_image_size_is_refused_when_a_model_has_a_pre_processor() -> None:
    model = {"class_path": "anomalib.models.Padim", "init_args": {"pre_processor": True}}
    with pytest.raises(ValueError, match=r"would replace the pre_processor of `models.padim`"):
        make_spec(models={**BASE["models"], "padim": model})


def test_objects_are_refused_when_plain_data_is_needed() -> None:
    part = {**FOLDER, "init_args": {**FOLDER["init_args"], "root": object()}}
    with pytest.raises(ValueError, match=r"plain data|cannot be built"):
        make_spec(data={"part": part}).trials()


def test_callbacks_get_the_seed_of_the_run_when_they_have_none() -> None:
    fixed = {**DRAW, "init_args": {**DRAW["init_args"], "seed": 5}}
    drawn, other = build_callbacks("rules", [DRAW, fixed], seed=7)
    assert (drawn.seed, other.seed) == (7, 5)
    assert DRAW["init_args"]["generator"] == {"class_path": "anomalib_synth.generators.RuleBasedGenerator"}


def test_model_gets_the_size_and_the_statistics() -> None:
    section = {
        "class_path": "anomalib.models.Padim",
        "init_args": {"backbone": "efficientnet_lite0_bundled", "layers": ["blocks.2"], "n_features": 4},
        "normalise": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }
    model = build_model("padim", section, image_size=48)
    image = model.pre_processor.transform(torch.ones(1, 3, 70, 90))
    assert image.shape == (1, 3, 48, 48)
    assert torch.allclose(image, torch.ones(()))
    assert (model.evaluator, model.post_processor, model.visualizer) == (None, None, None)


class FakeData:
    """Files of a data set, by their contents."""

    def __init__(self, root: Path, *, train: list[str], val: list[str], test: list[str]) -> None:
        for role, contents in (("train", train), ("val", val), ("test", test)):
            paths = [root / f"{role}_{number}" for number in range(len(contents))]
            for path, content in zip(paths, contents, strict=True):
                path.write_text(content)
            labels = [int(content.startswith("defect")) for content in contents]
            samples = pd.DataFrame({"image_path": list(map(str, paths)), "label_index": labels})
            setattr(self, f"{role}_data", SimpleNamespace(samples=samples))


GOOD = [f"good {number}" for number in range(38)]
TEST = ["good a", "defect a"]


@pytest.mark.parametrize(
    ("parts", "rate", "message"),
    [
        ({"test": ["good a", "good b"]}, 0.05, "got no defective ones"),
        ({"test": ["defect a"]}, 0.05, "got no good ones"),
        ({"val": [*GOOD[:37], "defect b"]}, 0.05, r"takes at least 38 .* `data.part` has 37.*at least 0.053"),
        ({"test": [*TEST, "train 1"]}, None, r"1 of 3 test images are training images too.*`normal_test_dir`"),
        ({"test": [*TEST, GOOD[0], GOOD[1]]}, None, "2 of 4 test images are validation images too"),
    ],
)
def test_data_is_refused_when_it_cannot_answer(parts, rate, message, tmp_path) -> None:
    sound = {"train": ["train 0", "train 1"], "val": GOOD, "test": TEST}
    check_images("part", FakeData(tmp_path, **sound), 0.05)
    check_images("part", FakeData(tmp_path, **{**sound, "val": []}), None)
    with pytest.raises(ValueError, match=message):
        check_images("part", FakeData(tmp_path, **{**sound, **parts}), rate)


def test_digest_follows_the_contents_and_not_the_places(tmp_path) -> None:
    for name in "abcd":
        (tmp_path / name).mkdir()
    sound = {"train": ["train 0", "train 1"], "val": GOOD, "test": TEST}
    first = digest_data(FakeData(tmp_path / "a", **sound))
    assert digest_data(FakeData(tmp_path / "b", **{**sound, "train": ["train 1", "train 0"]})) == first
    assert digest_data(FakeData(tmp_path / "c", **{**sound, "train": ["train 0", "train 2"]})) != first
    assert digest_data(FakeData(tmp_path / "d", **{**sound, "train": ["train 0"], "val": [*GOOD, "train 1"]})) != first


def test_generators_are_told_apart_by_their_files_and_weights() -> None:
    def draw(**facts: str) -> SimpleNamespace:
        return SimpleNamespace(generator=SimpleNamespace(**facts))

    digests = [
        digest_generators(callbacks)
        for callbacks in (
            [draw(files_digest="a")],
            [draw(files_digest="b")],
            [draw(files_digest="a", weights_hash="w")],
        )
    ]
    assert len({*digests, digest_generators([])}) == 4
    assert digest_generators([SimpleNamespace()]) == digest_generators([]) == ""
    assert digest_generators([draw(files_digest="a")]) == digests[0]


def test_rows_survive_when_the_last_line_was_cut_off(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    trials = [{"config_hash": name} for name in "abc"]
    log = TrialLog(path)
    log.append({"config_hash": "a", "value": 1})
    log.append({"config_hash": "b", "error": "broke"})
    with path.open("ab") as file:
        file.write(b'{"config_hash": "c", "val')
    log = TrialLog(path)
    assert [row["value"] for row in log.done(trials)] == [1]
    assert [row["error"] for row in log.failed(trials)] == ["broke"]
    log.append({"config_hash": "b", "value": 2})
    again = TrialLog(path)
    assert [row["value"] for row in again.done(trials)] == [1, 2]
    assert again.failed(trials) == []
    assert TrialLog(path).done([{"config_hash": "unknown"}]) == []


def test_row_is_kept_when_its_error_is_no_utf8(tmp_path) -> None:
    log = TrialLog(tmp_path / "runs.jsonl")
    log.append({"config_hash": "a", "error": "no file \udcff.png"})
    assert log.failed([{"config_hash": "a"}])[0]["error"] == "no file ?.png"
    assert TrialLog(tmp_path / "runs.jsonl").failed([{"config_hash": "a"}])[0]["error"] == "no file ?.png"
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append({"config_hash": "b", "image_auroc": float("nan")})


@pytest.mark.parametrize("line", ["{broken", "[1]", "null", '{"x": 1}'])
def test_line_that_is_no_row_is_named_with_the_remedy(line, tmp_path) -> None:
    (tmp_path / "runs.jsonl").write_text(f'{line}\n{{"config_hash": "a"}}\n')
    with pytest.raises(ValueError, match=r"runs.jsonl.*In a comparison, delete that line"):
        TrialLog(tmp_path / "runs.jsonl")


def make_row(arm: str, data: str = "part", **changes: Any) -> dict[str, Any]:
    same = {
        "arm": arm, "model": arm, "data": data, "seed": 0, "image_auroc": 0.5, "steps": 10, "batches": 10,
        "fixed_epochs": None, "data_digest": "d", "generator_digest": "", "test_defects": 30, "anomalib_synth": "1",
        "anomalib": "2", "torch": "2", "lightning": "2", "device": "cpu", "threads": 1, "workers": 1,
        "mask_size": "8x8", "mask_pixels": 5,
    }  # fmt: skip
    row = {**same, **changes}
    return {**row, "config_hash": f"{arm} {data} {row['seed']}"}


def make_trials(arms: str, data: list[str], seeds: list[int]) -> list[dict[str, Any]]:
    return [make_row(arm, name, seed=seed) for seed in seeds for name in data for arm in arms]


def test_notes_tell_what_is_not_alike() -> None:
    trials = make_trials("abc", ["part"], [0])
    rows = [
        make_row("a", fixed_epochs=1, batches=3),
        make_row("b", batches=5, torch="3", data_digest="e", threads=2, mask_pixels=4, test_defects=29),
        make_row("b", seed=1, generator_digest="other"),
    ]
    summary = summarise_rows(rows, trials, baseline="a", metric="image_auroc")
    notes = "\n".join(summary.notes)
    assert "a always takes 1 epoch" in notes
    assert "b saw 5 or 10 batches, not 10" in notes
    assert "differ in torch (2, 3)" in notes
    assert "differ in threads (1, 2)" in notes
    assert "images of part changed" in notes
    assert "What b draws with (a store, files, weights) changed between runs on part" in notes
    assert "part at other sizes, or cropped" in notes
    assert "part has 29 defective test images" in notes
    assert [arm.runs for arm in summary.arms] == [1, 2, 0]
    assert summary.rows[0]["image_auroc"] == 50.0
    assert summarise_rows(trials, trials, baseline="a", metric="image_auroc").notes == []
    lacking = summarise_rows(trials[:2], trials, baseline="a", metric="image_auroc").notes
    assert lacking == ["1 of 3 runs are not there (c on part); what lacks its pair is left out."]


def test_verdict_is_open_when_an_arm_has_no_run_on_a_data_set() -> None:
    trials = make_trials("ab", ["x", "y"], [0, 1, 2])
    better = [
        {**row, "image_auroc": 0.5 + 0.1 * (row["arm"] == "b") + 0.001 * row["seed"] ** (1 + (row["arm"] == "b"))}
        for row in trials
    ]
    assert summarise_rows(better, trials, baseline="a", metric="image_auroc").arms[1].verdict.word == "better"
    partly = [row for row in better if (row["arm"], row["data"]) != ("b", "y")]
    verdict = summarise_rows(partly, trials, baseline="a", metric="image_auroc").arms[1].verdict
    assert verdict.word == "cannot be told"
    assert verdict.sentence.endswith("No pair of runs on y.")

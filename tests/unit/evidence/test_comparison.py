"""The specification of a comparison, its rows, and what is measured of a run."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch

from anomalib_synth.evidence.building import build_callbacks, build_model
from anomalib_synth.evidence.comparison import ComparisonSpec
from anomalib_synth.evidence.summary import summarise_rows
from anomalib_synth.evidence.trial import check_images
from anomalib_synth.evidence.trial_log import TrialLog
from anomalib_synth.evidence.trial_metrics import measure_images, measure_pixels, measure_threshold

DRAW = {
    "class_path": "anomalib_synth.callbacks.SynthesisCallback",
    "init_args": {"generator": {"class_path": "anomalib_synth.generators.RuleBasedGenerator"}},
}
FOLDER = {
    "class_path": "anomalib.data.Folder",
    "init_args": {"name": "part", "normal_dir": "good", "val_split_mode": "from_train", "seed": 0},
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
    cells = make_spec().cells()
    assert [(cell["arm"], cell["data"], cell["seed"]) for cell in cells] == [
        ("padim (none)", "part", 0), ("realnet (rules)", "part", 0),
        ("padim (none)", "part", 1), ("realnet (rules)", "part", 1),
    ]  # fmt: skip
    assert json.loads(json.dumps(cells)) == cells  # plain data


def test_categories_make_a_data_set_each() -> None:
    part = {**FOLDER, "class_path": "anomalib_synth.data.DemoParts", "init_args": {"seed": 0}}
    spec = make_spec(data={"demo": {**part, "categories": ["printed_cap", "woven_fabric"]}})
    assert list(spec.datasets) == ["demo/printed_cap", "demo/woven_fabric"]
    assert spec.datasets["demo/woven_fabric"]["init_args"]["category"] == "woven_fabric"


def test_config_hash_tells_runs_apart_when_anything_differs() -> None:
    first = make_spec().cells()
    assert [cell["config_hash"] for cell in first] == [cell["config_hash"] for cell in make_spec().cells()]
    changed = [
        make_spec(steps=11), make_spec(image_size=96), make_spec(false_alarm_rate=0.1),
        make_spec(data=data_with(val_split_ratio=0.3)), make_spec(seeds=[2, 3]),
    ]  # fmt: skip
    hashes = [cell["config_hash"] for spec in [make_spec(), *changed] for cell in spec.cells()]
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
        ({"steps": 0}, "`steps` must be >= 1"),
        ({"image_size": 8}, "`image_size` must be >= 16"),
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
        make_spec(data={"part": part}).cells()


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
    """What is asked of a datamodule that has been set up."""

    def __init__(self, test: list[int], val: list[int]) -> None:
        import pandas as pd

        self.test_data = type("Test", (), {"samples": pd.DataFrame({"label_index": test})})
        self.val_data = type("Val", (), {"samples": pd.DataFrame({"label_index": val})})


def test_data_is_refused_when_it_cannot_answer() -> None:
    check_images("part", FakeData([0, 1], [0] * 38), 0.05)
    check_images("part", FakeData([0, 1], []), None)
    with pytest.raises(ValueError, match="got no defective ones"):
        check_images("part", FakeData([0, 0], [0] * 38), 0.05)
    with pytest.raises(ValueError, match=r"takes at least 38 .* `data.part` has 37.*at least 0.053"):
        check_images("part", FakeData([0, 1], [0] * 37 + [1]), 0.05)


def test_rows_survive_when_the_last_line_was_cut_off(tmp_path) -> None:
    path = tmp_path / "runs.jsonl"
    cells = [{"config_hash": name} for name in "abc"]
    log = TrialLog(path)
    log.append({"config_hash": "a", "value": 1})
    log.append({"config_hash": "b", "error": "broke"})
    with path.open("ab") as file:
        file.write(b'{"config_hash": "c", "val')
    log = TrialLog(path)
    assert [row["value"] for row in log.done(cells)] == [1]
    assert [row["error"] for row in log.failed(cells)] == ["broke"]
    log.append({"config_hash": "b", "value": 2})
    again = TrialLog(path)
    assert [row["value"] for row in again.done(cells)] == [1, 2]
    assert again.failed(cells) == []
    assert TrialLog(path).done([{"config_hash": "unknown"}]) == []


def test_image_auroc_counts_ordered_pairs() -> None:
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 6, 40).astype(float), random.random(40) < 0.4
    pairs = [(d > g) + 0.5 * (d == g) for d in scores[labels] for g in scores[~labels]]
    assert measure_images(scores.tolist(), labels.tolist())["image_auroc"] == pytest.approx(np.mean(pairs))
    with pytest.raises(ValueError, match="good and defective"):
        measure_images([0.1, 0.2], [True, True])


def test_pixel_metrics_equal_those_worked_by_hand() -> None:
    masks = torch.zeros(1, 2, 5)
    masks[0, 0, 0] = masks[0, 1, 4] = 1  # two defects of one pixel
    maps = torch.tensor([[[0.9, 0.1, 0.2, 0.0, 0.05], [0.15, 0.8, 0.3, 0.25, 0.5]]])
    found = measure_pixels(maps, masks)
    # Ranked: defect .9, good .8, defect .5, seven good. The first defect is above 8 good pixels, the second above 7.
    assert found["pixel_auroc"] == pytest.approx((8 + 7) / 16)
    assert found["pixel_ap"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    # Overlap .5 until one of eight good pixels is taken, 1 from there on (the step is at 1/8): area up to .3.
    assert found["aupro"] == pytest.approx((0.5 / 8 + (0.3 - 1 / 8)) / 0.3, abs=1e-5)


def test_pixel_metrics_are_left_out_when_there_is_no_mask() -> None:
    assert measure_pixels(torch.rand(2, 4, 4), torch.zeros(2, 4, 4)) == {
        "pixel_auroc": None, "pixel_ap": None, "aupro": None
    }  # fmt: skip


def test_maps_are_resized_to_the_masks() -> None:
    masks = torch.zeros(1, 8, 8)
    masks[0, :4] = 1
    assert measure_pixels(masks[:, ::2, ::2], masks)["pixel_auroc"] == pytest.approx(1.0)


def test_threshold_is_set_on_one_half_and_measured_on_the_other() -> None:
    choose = [float(score) for score in range(1, 20)]  # 10 % of 19: rank ceil(20 * 0.9) = 18
    found = measure_threshold(choose, [17.0, 18.0, 18.5, 30.0], [1.0, 19.0], [18.0, 18.1, 40.0], 0.1)
    assert found["threshold"] == 18.0
    assert (found["recall"], found["false_alarms"], found["false_alarms_on_test"]) == pytest.approx((2 / 3, 0.5, 0.5))


def test_notes_tell_what_is_not_alike() -> None:
    def row(arm: str, **changes: Any) -> dict[str, Any]:
        same = {
            "arm": arm, "model": arm, "data": "part", "seed": 0, "image_auroc": 0.5, "steps": 10, "batches": 10,
            "fixed_epochs": None, "train_images": 9, "test_good": 3, "test_defects": 3, "anomalib_synth": "1",
            "anomalib": "2", "torch": "2", "lightning": "2", "device": "cpu",
        }  # fmt: skip
        return {**same, **changes}

    cells = [{"arm": arm, "data": "part"} for arm in ("a", "b", "c")]
    rows = [row("a", fixed_epochs=1, batches=3), row("b", batches=5, torch="3", test_good=4)]
    summary = summarise_rows(rows, cells, baseline="a", metric="image_auroc")
    notes = "\n".join(summary.notes)
    assert "1 of 3 runs are not there" in notes
    assert "a always takes 1 epoch" in notes
    assert "b saw 5 batches, not 10" in notes
    assert "differ in torch (2, 3)" in notes
    assert "images of part changed" in notes
    assert summarise_rows([row("a"), row("b"), row("c")], cells, baseline="a", metric="image_auroc").notes == []
    assert [arm.runs for arm in summary.arms] == [1, 1, 0]
    assert summary.rows[0]["image_auroc"] == 50.0

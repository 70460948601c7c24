"""`build` from a folder of good images to a report, stopped in between."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_synth.building.state import BuildState
from anomalib_synth.calibration.checkpoints import read_checkpoint
from anomalib_synth.commands.build import build
from anomalib_synth.commands.calibrate import calibrate
from anomalib_synth.commands.predict import predict
from anomalib_synth.demo.writer import RenderPlan, render_category
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.learning.versions import DetectorFolder
from tests.warm_python import Ended, WarmPython

pytestmark = pytest.mark.slow
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """44 good parts, one of them under two names, and 12 with real defects."""
    plan = RenderPlan(kind="printed_cap", image_size=64, num_train=44, num_test_good=2, num_test_defect=12, seed=0)
    root = render_category(tmp_path_factory.mktemp("parts"), plan)
    shutil.copy(root / "train" / "good" / "003.png", root / "train" / "good" / "copy.png")
    (root / "real").mkdir()
    for n, path in enumerate(sorted((root / "test").rglob("*.png"))):
        if path.parent.name != "good":
            shutil.copy(path, root / "real" / f"{n:02d}.png")
    return root


SMALL = """
import sys
from anomalib_synth.building import candidates
from anomalib_synth.cli import main
candidates.SCALES = (96, 128)
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def start(parts, tmp_path_factory) -> Callable[[Path], WarmPython]:
    """Starts `build` into a folder, with a detector of small images."""
    script = tmp_path_factory.mktemp("command") / "small_build.py"
    script.write_text(SMALL)
    arguments = [
        script, "build", "--normals", parts / "train" / "good", "--defects", parts / "real", "--minutes", "0.1",
        "--accelerator", "cpu", "--min_recall", "0.05", "--models", "[discriminative_padim, padim]",  # PaDiM: too long
        "--exports", "[openvino]", "--generator", "RuleBasedGenerator", "--generator.families", "[noise, hole]",
    ]  # fmt: skip
    return lambda out: WarmPython([*arguments, "--out", out])


@pytest.fixture(scope="module")
def built(start, tmp_path_factory) -> tuple[Path, Ended, dict]:
    """A build that was killed once its model was trained, and then ended."""
    out = tmp_path_factory.mktemp("build") / "out"
    first = start(out)
    while first.runs() and "train discriminative_padim" not in BuildState(out / "build.json").steps:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = BuildState(out / "build.json").steps
    assert "calibrate" not in before
    return out, start(out).wait(), before


def test_build_goes_on_when_it_was_killed(built) -> None:
    out, ended, before = built
    assert ended.returncode == 0, ended
    assert "Training DiscriminativePadim" not in ended.printed
    assert "\nFIT TO DEPLOY" in ended.printed
    steps = BuildState(out / "build.json").steps
    assert steps["train discriminative_padim"] == before["train discriminative_padim"]
    report = (out / "report.html").read_text()
    assert "Fit to deploy" in report
    assert "<script" not in report
    assert "copy.png" in report


def test_images_are_told_apart_by_content_when_they_are_split(built) -> None:
    out = built[0]
    with (out / "looks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    used = {}
    for row in rows:
        used.setdefault(row["content"], set()).add(row["used_to"])
    assert len(rows) == 45
    assert len(used) == 44
    assert all(len(parts) == 1 for parts in used.values())
    assert {part for parts in used.values() for part in parts} == {"train", "validation", "calibration"}


def test_defects_judge_that_were_not_learned_when_there_are_ten(built) -> None:
    out = built[0]
    stated = json.loads((out / "detector" / "calibration.json").read_text())
    assert stated["real_defects"]["found"]["of"] == 6
    assert stated["target_false_alarm_rate"] == 0.125  # 7 images set the threshold
    assert "The model trained on 6 other real defects" in (out / "report.html").read_text()


def test_detector_is_taken_by_the_other_commands(built, parts, tmp_path) -> None:
    out = built[0]
    folder = DetectorFolder(out / "detector")
    assert folder.base.name == "calibrated.ckpt"
    assert (out / "detector" / "openvino" / "model.xml").is_file()
    rows = {}
    for detector in (out, out / "detector" / "openvino" / "model.xml"):
        with pytest.raises(SystemExit) as stop:
            predict(detector, parts / "real", out=tmp_path / detector.name, accelerator="cpu", pictures="none")
        assert stop.value.code == 3
        with (tmp_path / detector.name / "predictions.csv").open(newline="") as file:
            rows[detector] = {row["file"]: float(row["score"]) for row in csv.DictReader(file)}
    of_checkpoint, of_export = rows.values()
    assert of_export == pytest.approx(of_checkpoint, abs=1e-3)
    assert read_checkpoint(folder.base)["anomalib_synth_white_point"] == {"integer": None, "floating": None}
    assert (out / "detector" / "white_point.json").is_file()
    with pytest.raises(ValueError, match="`normals` must not hold training images"):
        calibrate(folder.base, parts / "train" / "good", out=tmp_path / "again", per_cell=1, strengths=(1.0,))


def test_nothing_is_done_again_when_it_is_done(built, parts, monkeypatch) -> None:
    out = built[0]
    before = {path: path.stat().st_mtime_ns for path in (out / "detector").rglob("*") if path.is_file()}
    monkeypatch.setattr("anomalib_synth.building.candidates.SCALES", (96, 128))
    build(
        parts / "train" / "good", out=out, defects=parts / "real", models=["discriminative_padim", "padim"],
        minutes=0.1, min_recall=0.05, generator=RuleBasedGenerator(["noise", "hole"]), exports=["openvino"],
        accelerator="cpu",
    )  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in (out / "detector").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("fit", "min_recall", "status"), [(False, 0.5, 3), (False, 0.0, None), (True, 0.5, None)])
def test_status_is_three_when_the_detector_is_unfit(fit, min_recall, status, parts, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.commands.build._run", lambda _: fit)
    stopped = None
    try:
        build(parts / "train" / "good", out=tmp_path / "out", min_recall=min_recall)
    except SystemExit as stop:
        stopped = stop.code
    assert stopped == status


def test_build_says_what_is_kept_when_it_is_interrupted(start, tmp_path) -> None:
    process = start(tmp_path / "out")
    while process.runs() and not list(tmp_path.glob("out/candidates/*/config.yaml")):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    ended = process.wait()
    assert ended.returncode == 130, ended
    assert "Finished steps are kept; the same command goes on from there." in ended.printed
    assert "plan" in BuildState(tmp_path / "out" / "build.json").steps


def test_dry_run_writes_nothing_and_tells_time_and_disk(parts, tmp_path, capsys) -> None:
    build(parts / "train" / "good", out=tmp_path / "out", models=["padim"], dry_run=True, accelerator="cpu",
          generator=RuleBasedGenerator(["hole"]))  # fmt: skip
    printed = capsys.readouterr().out
    assert "In all about " in printed
    assert "MiB on disk" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["patchcor"]}, "`models` must name some of"),
        ({"minutes": 0}, "`minutes` must be > 0"),
        ({"false_alarm_rate": 1.0}, "`false_alarm_rate` must be in"),
        ({"min_recall": 2.0}, "`min_recall` must be in"),
        ({"exports": ["onnx"]}, "`exports` must name some of torch, openvino"),
        ({"marks": Path("x")}, "`marks` need `defects`, whose places"),
    ],
)
def test_argument_is_refused_before_anything_is_written(options, message, parts, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        build(parts / "train" / "good", out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_folder_is_refused_when_it_has_few_images_or_holds_the_results(parts, tmp_path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for n in range(5):
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (32, 32)).astype(np.uint8)).save(few / f"{n}.png")
    with pytest.raises(ValueError, match="`normals` must hold at least 20 different images, got 5"):
        build(few, out=tmp_path / "out")
    with pytest.raises(ValueError, match="`out` must lie outside `normals`"):
        build(few, out=few / "out")

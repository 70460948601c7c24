"""`predict` with a trained model and its exports: the scores of `anomalib predict` and `calibrate`, and its files."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from anomalib.data import Folder, PredictDataset
from anomalib.engine import Engine
from anomalib.models import Padim
from lightning.pytorch import seed_everything
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_synth.calibration.checkpoints import read_checkpoint, save_checkpoint
from anomalib_synth.calibration.held_out import CALIBRATION
from anomalib_synth.calibration.kept_white_point import keep_white_point
from anomalib_synth.cli import main
from anomalib_synth.commands.calibrate import calibrate
from anomalib_synth.demo.writer import RenderPlan, render_category
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.host.telemetry import import_openvino, without_telemetry
from anomalib_synth.images import WhitePoint
from anomalib_synth.prediction import run, watching
from tests.integration.models import BACKBONE, QUIET, normalising

SIZE = 96
BLOCK = slice(30, 54), slice(40, 60)


def make_model() -> Padim:
    return Padim(**BACKBONE, n_features=32, pre_processor=normalising(64), **QUIET)


def make_engine(folder: Path) -> Engine:
    return Engine(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, max_epochs=1
    )  # fmt: skip


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered parts: 16 to train on, 24 good ones held out, 5 with defects."""
    plan = RenderPlan(
        kind="printed_cap", image_size=SIZE, num_train=16, num_test_good=24, num_test_defect=5, seed=0
    )  # fmt: skip
    return render_category(tmp_path_factory.mktemp("parts"), plan)


@pytest.fixture(scope="module")
def run_folder(parts, tmp_path_factory) -> Path:
    """The folder of a run, as `anomalib train` leaves it."""
    folder = tmp_path_factory.mktemp("run")
    datamodule = Folder(
        name="part", root=parts, normal_dir="train/good", train_batch_size=8, num_workers=0,
        val_split_mode="from_train", val_split_ratio=0.25, test_split_mode="none", seed=0,
    )  # fmt: skip
    seed_everything(0, verbose=False)
    engine = make_engine(folder / "work")
    engine.fit(make_model(), datamodule=datamodule)
    shutil.rmtree(folder / "work")
    (folder / "weights").mkdir()
    engine.trainer.save_checkpoint(folder / "weights" / "model.ckpt")
    transform = [
        {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [64, 64], "antialias": True}},
        {"class_path": "torchvision.transforms.v2.Normalize", "init_args": {"mean": [0.5] * 3, "std": [0.5] * 3}},
    ]
    compose = {"class_path": "torchvision.transforms.v2.Compose", "init_args": {"transforms": transform}}
    processor = {"class_path": "anomalib.pre_processing.PreProcessor", "init_args": {"transform": compose}}
    arguments = {**BACKBONE, "n_features": 32, "pre_processor": processor}
    data = {"name": "part", "root": str(parts), "normal_dir": "train/good", "seed": 0, "val_split_mode": "from_train"}
    config = {
        "model": {"class_path": "anomalib.models.Padim", "init_args": arguments},
        "data": {"class_path": "anomalib.data.Folder", "init_args": {**data, "test_split_mode": "none"}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def calibrated(run_folder, parts, tmp_path_factory) -> Path:
    """The folder of `calibrate`."""
    out = tmp_path_factory.mktemp("calibrated")
    calibrate(
        run_folder / "weights" / "model.ckpt", parts / "test" / "good", out=out, strengths=(1.0,), per_cell=2,
        generator=RuleBasedGenerator(["stain"]), false_alarm_rate=0.1, min_recall=0.0, accelerator="cpu",
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def exported(calibrated, tmp_path_factory) -> Path:
    """A folder with all that anomalib exports of the calibrated model."""
    openvino = import_openvino()
    folder = tmp_path_factory.mktemp("exported")
    model = Padim.load_from_checkpoint(calibrated / "calibrated.ckpt", map_location="cpu", **QUIET)
    onnx = model.to_onnx(folder)
    with without_telemetry():
        graph = openvino.convert_model(onnx)
    openvino.save_model(graph, folder / "openvino" / "model.xml", compress_to_fp16=False)
    model.to_torch(folder)
    return folder


@pytest.fixture(scope="module")
def images(parts, tmp_path_factory) -> Path:
    """Four good images and four with a block painted on them, of two sizes."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "late").mkdir()
    good = sorted((parts / "test" / "good").glob("*.png"))
    for number in range(4):
        shutil.copy(good[number], folder / f"good_{number}.png")
        pixels = np.array(Image.open(good[number]).convert("RGB"))
        pixels[BLOCK] = (250, 20, 230) if number < 2 else 0
        image = Image.fromarray(pixels)
        (image.resize((144, 96)) if number % 2 else image).save(folder / "late" / f"defect_{number}.png")
    return folder


def predict(detector: Path, images: Path, out: Path, *options: str) -> tuple[int, str]:
    """Run the command; return its status and what it printed."""
    printed = io.StringIO()
    arguments = ["predict", "--detector", str(detector), "--images", str(images), "--out", str(out), *options]
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            main([*arguments, "--accelerator", "cpu"])
    except SystemExit as stop:
        code = stop.code
        return (code, printed.getvalue()) if isinstance(code, int) else (1, printed.getvalue() + str(code))
    return 0, printed.getvalue()


def read_rows(out: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    with (out / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["file"], row["verdict"]) for row in table] == [(row["file"], row["verdict"]) for row in lines]
    return {row["file"]: row for row in lines}


@pytest.fixture(scope="module")
def expected(calibrated, images, tmp_path_factory) -> dict[str, Any]:
    """What anomalib predicts by the calibrated checkpoint."""
    dataset = PredictDataset(images)
    found = make_engine(tmp_path_factory.mktemp("expected")).predict(
        make_model(), dataloaders=DataLoader(dataset, collate_fn=dataset.collate_fn),
        ckpt_path=calibrated / "calibrated.ckpt",
    )  # fmt: skip
    return {Path(batch.image_path[0]).relative_to(images).as_posix(): batch for batch in found}


@pytest.mark.parametrize(
    "kind", ["calibrated", "openvino/model.xml", "weights/onnx/model.onnx", "weights/torch/model.pt"]
)
def test_scores_and_verdicts_are_those_of_anomalib(kind, calibrated, exported, images, expected, tmp_path) -> None:
    is_module = kind in {"calibrated", "weights/torch/model.pt"}
    detector = calibrated if kind == "calibrated" else exported / kind
    options = ["--trust"] if kind.endswith(".pt") else []
    status, printed = predict(detector, images, tmp_path / "out", *options)
    rows = read_rows(tmp_path / "out")
    assert set(rows) == set(expected)
    for name, batch in expected.items():
        row = rows[name]
        assert row["score"] == pytest.approx(float(batch.pred_score), abs=1e-5 if is_module else 1e-3)
        assert row["verdict"] == ("defect" if bool(batch.pred_label) else "good")
        assert row["threshold"] == 0.5
        assert (row["raw_score"] is not None) == is_module
    assert sum(row["verdict"] == "defect" for row in rows.values()) >= 3
    assert status == 3
    assert "8 images: " in printed
    assert "images a second" in printed


def test_raw_scores_are_those_of_calibrate(calibrated, parts, tmp_path) -> None:
    status, _ = predict(calibrated, parts / "test" / "good", tmp_path / "out", "--batch_size", "3")
    with (calibrated / "scores.csv").open(newline="") as file:
        good = [row for row in csv.DictReader(file) if row["role"] in {"choose", "measure"}]
    summary = json.loads((calibrated / "calibration.json").read_text())
    rows = read_rows(tmp_path / "out")
    scores = {Path(row["path"]).name: float(row["score"]) for row in good}
    assert {name: row["raw_score"] for name, row in rows.items()} == pytest.approx(scores, rel=1e-5)
    assert all(row["raw_threshold"] == pytest.approx(summary["image_threshold"]) for row in rows.values())
    alarms = sum(row["verdict"] == "defect" for row in rows.values())
    assert status == (3 if alarms else 0)


def test_box_picture_and_crop_show_the_defect(calibrated, images, tmp_path) -> None:
    out = tmp_path / "out"
    predict(calibrated, images, out, "--crop", "40")
    rows = read_rows(out)
    found = [row for row in rows.values() if row["verdict"] == "defect" and row["file"].startswith("late/")]
    assert len(found) == 4
    for row in found:
        size = Image.open(images / row["file"]).size
        wider = size[0] / SIZE
        left, top, width, height = row["box"]
        assert 0 <= left < left + width <= size[0]
        assert 0 <= top < top + height <= size[1]
        assert left <= row["peak"][0] < left + width
        assert 40 * wider - 8 <= row["peak"][0] < 60 * wider + 8
        assert 30 - 8 <= row["peak"][1] < 54 + 8
        assert left < 60 * wider
        assert left + width > 40 * wider
        picture, crop = Image.open(out / row["picture"]), Image.open(out / row["crop"])
        assert picture.size == (480, round(480 * size[1] / size[0]))
        assert min(crop.size) >= 40
        original = np.asarray(Image.open(images / row["file"]))
        assert any(
            np.array_equal(np.asarray(crop), original[y : y + crop.height, x : x + crop.width])
            for y in range(max(0, top - crop.height), top + 1)
            for x in range(max(0, left - crop.width), left + 1)
        ), "a crop is a part of the image, pixel by pixel"
    assert all(row["picture"] is None for row in rows.values() if row["verdict"] == "good")


@pytest.mark.parametrize(("pictures", "count"), [("all", 8), ("none", 0)])
def test_pictures_are_drawn_of_what_was_asked_for(calibrated, images, tmp_path, pictures, count) -> None:
    predict(calibrated, images, tmp_path / "out", "--pictures", pictures)
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == len(list((tmp_path / "out").rglob("*.png"))) == count


def test_status_says_what_was_found(calibrated, images, expected, tmp_path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for name, batch in expected.items():
        if not bool(batch.pred_label):
            shutil.copy(images / name, good / Path(name).name)
    assert predict(calibrated, good, tmp_path / "a")[0] == 0
    (good / "cut.png").write_bytes((images / "good_0.png").read_bytes()[:200])
    (good / "photo.heic").write_bytes(b"?")
    status, printed = predict(calibrated, good, tmp_path / "a")
    assert status == 4
    assert "Not judged: cut.png: damaged" in printed
    rows = read_rows(tmp_path / "a")
    assert rows["cut.png"]["verdict"] == rows["photo.heic"]["verdict"] == "unreadable"
    assert "convert it to PNG" in rows["photo.heic"]["reason"]
    shutil.copy(images / "late" / "defect_0.png", good / "defect.png")
    assert predict(calibrated, good, tmp_path / "a")[0] == 4, "whatever the others are"
    (good / "cut.png").unlink()
    (good / "photo.heic").unlink()
    assert predict(calibrated, good, tmp_path / "a")[0] == 3
    assert predict(calibrated, tmp_path / "nothing", tmp_path / "b")[0] == 1
    assert predict(calibrated, good, tmp_path / "a", "--crop", "many")[0] == 2


def test_masks_beside_their_images_are_not_judged(calibrated, images, tmp_path) -> None:
    (tmp_path / "marked").mkdir()
    for name in ("good_0.png", "good_0_mask.png"):
        shutil.copy(images / "good_0.png", tmp_path / "marked" / name)
    status, printed = predict(calibrated, tmp_path / "marked", tmp_path / "out")
    assert status == 0
    assert set(read_rows(tmp_path / "out")) == {"good_0.png"}
    assert "Left out good_0_mask.png of `images`: a mask of the image beside it; rename it if it is none." in printed


def test_killed_run_goes_on_where_it_was(calibrated, run_folder, images, tmp_path, monkeypatch) -> None:
    out, drawn = tmp_path / "out", []

    def break_down(*arguments: object) -> bytes:
        drawn.append(arguments)
        if len(drawn) > 2:
            raise OSError("power failure")
        return b"picture"

    with monkeypatch.context() as patch:
        patch.setattr(run, "draw_picture", break_down)
        status, printed = predict(calibrated, images, out, "--batch_size", "1")
    assert status == 1
    assert "power failure" in printed
    before = (out / "predictions.jsonl").read_text()
    count = len(before.splitlines())
    assert 2 <= count < 8
    status, printed = predict(calibrated, images, out)
    assert status == 3
    assert f"{count} of them were judged before" in printed
    assert (out / "predictions.jsonl").read_text().startswith(before)
    assert len(read_rows(out)) == len((out / "predictions.jsonl").read_text().splitlines()) == 8
    shutil.copy(images / "good_1.png", tmp_path / "good_0.png")
    assert "8 of them were judged before" in predict(calibrated, images, out)[1]
    status, printed = predict(run_folder, images, out)
    assert status == 1
    assert "holds the verdicts of another detector" in printed
    assert len(read_rows(out)) == 8


def test_interrupted_run_says_so_and_keeps_its_rows(calibrated, images, tmp_path, monkeypatch) -> None:
    cut, interrupts = run.cut_crop, [signal.SIGINT]

    def interrupt(*arguments: Any) -> bytes:
        if interrupts:
            os.kill(os.getpid(), interrupts.pop())
        return cut(*arguments)

    monkeypatch.setattr(run, "cut_crop", interrupt)
    status, printed = predict(calibrated, images / "late", tmp_path / "out", "--batch_size", "1", "--pictures", "all")
    assert status == 130
    assert "Every verdict so far is written" in printed
    assert 1 <= len(read_rows(tmp_path / "out")) < 4


def test_arriving_images_are_judged_before_the_next_ones_come(calibrated, images, tmp_path, monkeypatch) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    data = (images / "late" / "defect_0.png").read_bytes()
    known: list[set[str]] = []
    steps = [
        lambda: shutil.copy(images / "good_0.png", inbox / "a.png"),
        lambda: None,
        lambda: known.append(set(read_rows(out))),
        lambda: (inbox / "b.png").write_bytes(data[: len(data) // 2]),
        lambda: None,
        lambda: None,
        lambda: known.append(set(read_rows(out))),
        lambda: (inbox / "b.png").write_bytes(data),
        lambda: None,
        lambda: known.append(set(read_rows(out))),
        lambda: shutil.copy(images / "late" / "defect_1.png", inbox / "a.png"),
    ]
    monkeypatch.setattr(watching, "sleep", lambda seconds: steps.pop(0)() if steps else None)
    options = ["--watch", "--interval", "0.1", "--until_idle", "0.9"]
    status, printed = predict(calibrated, inbox, out, *options)
    assert known == [{"a.png"}, {"a.png"}, {"a.png", "b.png"}]
    assert status == 3
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [(row["file"], row["verdict"]) for row in lines[::2]] == [
        ("a.png", lines[0]["verdict"]),
        ("a.png", "defect"),
    ]
    assert lines[1]["verdict"] == "defect"
    assert "unreadable" not in printed
    assert [line.split()[2] for line in printed.splitlines() if line.startswith("20")] == ["a.png", "b.png", "a.png"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_ends_as_it_should_when_it_is_interrupted(number, calibrated, images, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(watching, "sleep", lambda seconds: None)
    monkeypatch.setattr(watching.Watcher, "interval", 0.1, raising=False)
    looks = watching.Watcher.looks

    def interrupted(self: watching.Watcher) -> Any:
        for look in looks(self):
            yield look
            if signal.getsignal(number) is not signal.SIG_DFL:  # which would end the tests
                signal.raise_signal(number)

    monkeypatch.setattr(watching.Watcher, "looks", interrupted)
    status, printed = predict(calibrated, images / "late", tmp_path / "out", "--watch")
    assert status == 3
    assert "4 images" in printed


def test_grey_images_of_12_bits_score_as_their_copies_of_8(calibrated, images, tmp_path) -> None:
    deep, flat = tmp_path / "deep", tmp_path / "flat"
    deep.mkdir()
    flat.mkdir()
    levels = np.asarray(Image.open(images / "late" / "defect_0.png").convert("L"))
    Image.fromarray(levels.astype(np.uint16) * 16 + 5).save(deep / "a.png")
    Image.fromarray(levels).save(flat / "a.png")
    predict(calibrated, flat, tmp_path / "out_flat")
    status, printed = predict(calibrated, deep, tmp_path / "out")
    assert status == 4
    assert "give `bit_depth`" in printed
    assert predict(calibrated, deep, tmp_path / "out", "--bit_depth", "12")[0] == 3
    score = read_rows(tmp_path / "out_flat")["a.png"]["score"]
    assert read_rows(tmp_path / "out")["a.png"]["score"] == pytest.approx(score, abs=1e-6)
    status, printed = predict(calibrated, deep, tmp_path / "out", "--bit_depth", "10")
    assert status == 1
    assert "white at 4095" in printed
    loaded = read_checkpoint(calibrated / "calibrated.ckpt")
    keep_white_point(WhitePoint.of_bit_depth(12), checkpoint=loaded)
    save_checkpoint(loaded, tmp_path / "kept.ckpt")
    predict(tmp_path / "kept.ckpt", deep, tmp_path / "out_kept", "--model", "anomalib.models.Padim")
    assert read_rows(tmp_path / "out_kept")["a.png"]["score"] == pytest.approx(score, abs=1e-6)


def test_model_without_a_threshold_is_refused(run_folder, images, tmp_path) -> None:
    loaded = read_checkpoint(run_folder / "weights" / "model.ckpt")
    for state in (loaded["state_dict"], *loaded["callbacks"].values()):
        for name in [name for name in state if name.endswith(("threshold", "_min", "_max"))]:
            state[name] = torch.full_like(state[name], float("nan"))
    save_checkpoint(loaded, tmp_path / "model.ckpt")
    status, printed = predict(tmp_path / "model.ckpt", images, tmp_path / "out", "--model", "anomalib.models.Padim")
    assert status == 1
    assert "anomalib-synth calibrate" in printed
    assert not (tmp_path / "out").exists()


def test_calibrated_model_is_refused_when_the_tiler_is_not_known(calibrated, images, tmp_path) -> None:
    loaded = read_checkpoint(calibrated / "calibrated.ckpt")
    assert isinstance(loaded[CALIBRATION]["inference"], str)
    loaded[CALIBRATION]["inference"] = "Scored with TilerConfigurationCallback, as the model was trained."
    save_checkpoint(loaded, tmp_path / "tiled.ckpt")
    status, printed = predict(tmp_path / "tiled.ckpt", images, tmp_path / "out")
    assert status == 1
    assert "must be run as it was calibrated (Scored with TilerConfigurationCallback" in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--until_idle", "3"], "`until_idle` needs `--watch`"),
        (["--watch", "--interval", "0"], "`interval` must be > 0"),
        (["--watch", "--until_idle", "-1"], "`until_idle` must be >= 0"),
        (["--crop", "8"], "`crop` must be >= 16"),
        (["--batch_size", "0"], "`batch_size` must be >= 1"),
        (["--bit_depth", "7"], "`bit_depth` must be in 8..16"),
        (["--tiler", "{tile_size: no}"], "`tiler` cannot be built"),
    ],
)
def test_bad_input_is_refused_before_any_work(calibrated, images, tmp_path, options, said) -> None:
    status, printed = predict(calibrated, images, tmp_path / "out", *options)
    assert status == 1
    assert said in printed
    assert not (tmp_path / "out").exists()


def test_results_are_kept_out_of_the_images(calibrated, images) -> None:
    status, printed = predict(calibrated, images, images / "out")
    assert status == 1
    assert "`out` must lie outside the images" in printed

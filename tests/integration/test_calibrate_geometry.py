"""`calibrate` scores what `anomalib predict` will see: tiles, crops, transforms, and any batch size."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from anomalib.callbacks import TilerConfigurationCallback
from anomalib.data import Folder, PredictDataset
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback, seed_everything
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import CenterCrop, Compose, GaussianBlur, Normalize, Resize, Transform

from anomalib_synth.calibration.checkpoints import read_checkpoint, save_checkpoint
from anomalib_synth.calibration.defect_sets import KeptImages
from anomalib_synth.calibration.planning import measure_rounding
from anomalib_synth.calibration.scoring import Item, Row, score_items
from anomalib_synth.calibration.training_run import Inference
from anomalib_synth.cli import main
from anomalib_synth.commands.calibrate import calibrate
from anomalib_synth.demo.writer import RenderPlan, render_category
from anomalib_synth.generators import RuleBasedGenerator
from tests.integration.models import BACKBONE, QUIET, normalising

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule


TILES = {"tile_size": 32, "stride": 32}
NORMALISE = Normalize([0.5] * 3, [0.5] * 3)


class Brighten(Transform):
    """A transform of the user's own."""

    def transform(self, inpt, params):
        return inpt


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered parts: 16 to train on, 40 good ones held out."""
    plan = RenderPlan(kind="printed_cap", image_size=96, num_train=16, num_test_good=40, num_test_defect=1, seed=0)
    return render_category(tmp_path_factory.mktemp("parts"), plan)


def make_model(cls: type[AnomalibModule], transform: Transform | None = None) -> AnomalibModule:
    extra = {"coreset_sampling_ratio": 0.1} if cls is Patchcore else {"n_features": 32}
    processor = normalising(64) if transform is None else PreProcessor(transform)
    return cls(**BACKBONE, **extra, pre_processor=processor, **QUIET)


def make_engine(folder: Path, callbacks: list[Callback]) -> Engine:
    return Engine(
        callbacks=callbacks, default_root_dir=folder, accelerator="cpu", devices=1, logger=False,
        enable_progress_bar=False, max_epochs=1,
    )  # fmt: skip


def train(model: AnomalibModule, parts: Path, folder: Path, callbacks: list[Callback]) -> Path:
    datamodule = Folder(
        name="part", root=parts, normal_dir="train/good", train_batch_size=8, num_workers=0,
        val_split_mode="from_train", val_split_ratio=0.25, test_split_mode="none", seed=0,
    )  # fmt: skip
    engine = make_engine(folder, callbacks)
    seed_everything(0, verbose=False)
    engine.fit(model, datamodule=datamodule)
    path = folder / "weights" / "lightning" / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def tiled(parts, tmp_path_factory) -> Path:
    """A checkpoint of PatchCore, trained in tiles."""
    folder = tmp_path_factory.mktemp("tiled")
    return train(make_model(Patchcore), parts, folder, [TilerConfigurationCallback(enable=True, **TILES)])


@pytest.fixture(scope="module")
def padim(parts, tmp_path_factory) -> Path:
    """A checkpoint of PaDiM."""
    return train(make_model(Padim), parts, tmp_path_factory.mktemp("padim"), [])


def write_config(parts: Path, path: Path, model: dict, callbacks: list[dict]) -> Path:
    """What `anomalib train` leaves in the folder of the run."""
    data = {
        "name": "part", "root": str(parts), "normal_dir": "train/good", "val_split_mode": "from_train",
        "test_split_mode": "none", "seed": 0,
    }  # fmt: skip
    section = {"class_path": "anomalib.data.Folder", "init_args": data}
    path.write_text(yaml.safe_dump({"model": model, "data": section, "trainer": {"callbacks": callbacks}}))
    return path


def patchcore_section() -> dict:
    return {"class_path": "anomalib.models.Patchcore", "init_args": {**BACKBONE, "coreset_sampling_ratio": 0.1}}


def tiler_section() -> dict:
    return {"class_path": "anomalib.callbacks.TilerConfigurationCallback", "init_args": {"enable": True, **TILES}}


def run(checkpoint: Path, parts: Path, out: Path, **options: object) -> dict:
    settings = {
        "model": "Padim", "generator": RuleBasedGenerator(["cutout"]), "strengths": (1.0,), "per_cell": 4,
        "false_alarm_rate": 0.1, "train_normals": parts / "train" / "good", "accelerator": "cpu", "min_recall": 0.0,
    }  # fmt: skip
    calibrate(checkpoint, parts / "test" / "good", out=out, **{**settings, **options})
    return json.loads((out / "calibration.json").read_text())


def read_scores(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def predict(
    model: AnomalibModule, out: Path, images: Path, batch_size: int, callbacks: list[Callback]
) -> dict[str, bool]:
    """Label images by the calibrated checkpoint as `anomalib predict` does, at a batch size."""
    dataset = PredictDataset(images)
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=dataset.collate_fn)
    engine = make_engine(out / "run", callbacks)
    batches = engine.predict(model, dataloaders=loader, ckpt_path=out / "calibrated.ckpt")
    return {
        path: bool(label)
        for batch in batches
        for path, label in zip(batch.image_path, batch.pred_label.flatten(), strict=True)
    }


# --- tiles -----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_tiles_when_the_run_had_a_tiler(tiled, parts, tmp_path, capsys) -> None:
    config = write_config(parts, tmp_path / "config.yaml", patchcore_section(), [tiler_section()])
    summary = run(tiled, parts, tmp_path / "out", model=str(config), train_normals=None, per_cell=10)
    assert "TilerConfigurationCallback" in capsys.readouterr().out
    assert summary["recall_at_strongest"]["count"] > 0
    callbacks = [TilerConfigurationCallback(enable=True, **TILES)]
    labels = predict(make_model(Patchcore), tmp_path / "out", parts / "test" / "good", 5, callbacks)
    rows = [row for row in read_scores(tmp_path / "out") if row["role"] in {"choose", "measure"}]
    assert labels == {row["path"]: float(row["score"]) > summary["image_threshold"] for row in rows}
    assert sum(labels.values()) <= 8
    by_hand = run(tiled, parts, tmp_path / "by_hand", model="Patchcore", tiler=TILES, per_cell=10)
    assert by_hand["image_threshold"] == summary["image_threshold"]


def test_question_is_asked_when_nothing_tells_of_the_tiles(tiled, parts, tmp_path) -> None:
    with pytest.raises(ValueError, match="`tiler` must be given: Patchcore scores the images of `train_normals` like"):
        run(tiled, parts, tmp_path / "out", model="Patchcore")
    assert not (tmp_path / "out").exists()
    run(tiled, parts, tmp_path / "out", model="Patchcore", tiler={})  # whoever insists


def test_bad_tiler_is_named_when_it_does_not_fit(tiled, parts, tmp_path) -> None:
    with pytest.raises(ValueError, match="`tiler` cannot be built"):
        run(tiled, parts, tmp_path / "out", model="Patchcore", tiler={"tile": 3})


# --- crops -----------------------------------------------------------------------------------------------------------


def test_recall_leaves_out_what_the_model_crops_away(parts, tmp_path, capsys) -> None:
    crop = Compose([Resize((64, 64), antialias=True), CenterCrop(24), NORMALISE])
    checkpoint = train(make_model(Padim, crop), parts, tmp_path / "run", [])
    summary = run(checkpoint, parts, tmp_path / "out", generator=RuleBasedGenerator(["bubble"]), per_cell=20)
    rows = [row for row in read_scores(tmp_path / "out") if row["role"] == "synthetic" and row["visible"] == "True"]
    hidden = [row for row in rows if row["in_view"] == "False"]
    assert 0 < len(hidden) < len(rows)
    assert all(row["inside"] == "" for row in hidden)
    assert all(row["inside"] != "" for row in rows if row["in_view"] == "True")
    (cell,) = summary["cells"]
    assert cell["out_of_view"] == summary["out_of_view"] == len(hidden)
    assert cell["visible"] == len(rows) - len(hidden)
    assert f"{len(hidden)} of 20 drawn defects do not count" in " ".join(capsys.readouterr().out.split())


def test_crop_is_done_first_when_the_transform_begins_with_it(parts, tmp_path, capsys) -> None:
    crop = Compose([CenterCrop(64), Resize((48, 48), antialias=True), NORMALISE])
    checkpoint = train(make_model(Padim, crop), parts, tmp_path / "run", [])
    summary = run(checkpoint, parts, tmp_path / "out", batch_size=1, tiler={})
    assert "anomalib's datamodules resize first" in " ".join(capsys.readouterr().out.split())
    labels = predict(make_model(Padim, crop), tmp_path / "out", parts / "test" / "good", 1, [])
    rows = [row for row in read_scores(tmp_path / "out") if row["role"] in {"choose", "measure"}]
    assert labels == {row["path"]: float(row["score"]) > summary["image_threshold"] for row in rows}


# --- what a checkpoint does not hold ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [GaussianBlur(3), Brighten()], ids=["torchvision's", "own"])
@pytest.mark.parametrize("by_config", [False, True])
def test_transform_is_refused_when_a_checkpoint_cannot_hold_it(padim, parts, tmp_path, lost, by_config) -> None:
    loaded = read_checkpoint(padim)
    transform = Compose([Resize((64, 64), antialias=True), lost, NORMALISE])
    loaded["anomalib_pre_processor_config"] = PreProcessor(transform).checkpoint_config()
    save_checkpoint(loaded, tmp_path / "model.ckpt")
    model = {"class_path": "anomalib.models.Padim", "init_args": {**BACKBONE, "n_features": 32}}
    config = write_config(parts, tmp_path / "config.yaml", model, [])
    with pytest.raises(ValueError, match=r"lacks the transform .*Train again with these alone"):
        run(tmp_path / "model.ckpt", parts, tmp_path / "out", model=str(config) if by_config else "Padim")
    assert not (tmp_path / "out").exists()


def test_own_pre_processor_is_refused_when_only_the_class_is_named(padim, parts, tmp_path) -> None:
    loaded = read_checkpoint(padim)
    del loaded["anomalib_pre_processor_config"]
    save_checkpoint(loaded, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="lacks a pre-processor of another package"):
        run(tmp_path / "model.ckpt", parts, tmp_path / "out")


# --- batch sizes -----------------------------------------------------------------------------------------------------


def test_threshold_stands_above_rounding_when_the_batch_size_changes(padim, parts) -> None:
    paths = sorted((parts / "test" / "good").glob("*.png"))
    read = KeptImages("normals")
    model = Padim.load_from_checkpoint(padim)

    def score(items, size) -> None:
        score_items(model, padim, items, inference=Inference(), batch_size=size, accelerator="cpu")

    def score_all(size) -> list[Row]:
        rows = [Row(role="choose", path=str(path)) for path in paths]
        score((Item(row=row, image=read(Path(row.path))) for row in rows), size)
        return rows

    rows = score_all(16)
    image, peak = measure_rounding(rows, 0.1, score, batch_size=16)
    others = [score_all(size) for size in (1, 5)]
    assert any(new.score > old.score for other in others for new, old in zip(other, rows, strict=True))
    assert all(new.score <= old.score + image for other in others for new, old in zip(other, rows, strict=True))
    assert all(new.peak <= old.peak + peak for other in others for new, old in zip(other, rows, strict=True))
    assert max(image, peak) < 1e-4 * max(row.score for row in rows)


def test_normal_that_sets_the_threshold_never_alarms(padim, parts, tmp_path) -> None:
    run(padim, parts, tmp_path, per_cell=1)
    chosen = [row for row in read_scores(tmp_path) if row["role"] == "choose"]
    allowed = {row["path"] for row in sorted(chosen, key=lambda row: float(row["score"]))[:19]}  # rank ceil(21 * 0.9)
    for batch_size in (1, 3, 7, 40):
        labels = predict(make_model(Padim), tmp_path, parts / "test" / "good", batch_size, [])
        assert not [path for path in allowed if labels[path]]


# --- a model that finds nothing --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blind(padim, tmp_path_factory) -> Path:
    """PaDiM that scores every image the same."""
    loaded = read_checkpoint(padim)
    loaded["state_dict"]["model.gaussian.inv_covariance"] *= 0
    path = tmp_path_factory.mktemp("blind") / "model.ckpt"
    save_checkpoint(loaded, path)
    return path


def command(checkpoint: Path, parts: Path, out: Path, *more: str) -> list[str]:
    return [
        "calibrate", f"--checkpoint={checkpoint}", f"--normals={parts / 'test' / 'good'}", f"--out={out}",
        "--model=Padim", f"--train_normals={parts / 'train' / 'good'}", "--tiler={}", "--false_alarm_rate=0.1",
        "--strengths=[1.0]", "--per_cell=2", "--accelerator=cpu", "--generator=RuleBasedGenerator",
        '--generator.families=["cutout"]', *more,
    ]  # fmt: skip


def test_model_is_called_unfit_when_it_finds_nothing(blind, parts, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command(blind, parts, tmp_path / "out"))
    assert "not fit for use: it finds 0 of 2 defects" in str(stop.value.code)
    printed = capsys.readouterr().out
    assert "UNFIT FOR USE" in printed
    assert "Predict with the thresholds" not in printed
    assert not json.loads((tmp_path / "out" / "calibration.json").read_text())["fit"]
    main(command(blind, parts, tmp_path / "again", "--min_recall=0"))
    assert "UNFIT FOR USE" in capsys.readouterr().out


def test_least_recall_decides_the_exit_code(padim, parts, tmp_path, capsys) -> None:
    main(command(padim, parts, tmp_path / "out", "--min_recall=0.5"))
    assert "Predict with the thresholds" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")
    faint = ["--strengths=[0.05]", "--min_recall=1", "--generator.checks.min_visibility=0.01"]
    with pytest.raises(SystemExit):
        main(command(padim, parts, tmp_path / "out", *faint))
    assert (tmp_path / "out" / "recall.png").is_file()


def test_callbacks_of_the_user_take_part_when_they_act_in_predictions(padim, parts, tmp_path) -> None:
    section = {"class_path": "tests.integration.test_calibrate_geometry.Doubling"}
    model = {"class_path": "anomalib.models.Padim", "init_args": {**BACKBONE, "n_features": 32}}
    config = write_config(parts, tmp_path / "config.yaml", model, [section])
    doubled = run(padim, parts, tmp_path / "doubled", model=str(config))
    plain = run(padim, parts, tmp_path / "plain")
    assert doubled["image_threshold"] == pytest.approx(2 * plain["image_threshold"], rel=1e-3)


class Doubling(Callback):
    """A callback that changes scores."""

    def on_predict_batch_end(self, trainer, pl_module, outputs, *args) -> None:
        outputs.pred_score = 2 * outputs.pred_score.as_subclass(torch.Tensor)

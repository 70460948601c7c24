"""`calibrate` on trained models: what it measures, and that `anomalib predict` labels by what it writes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from anomalib.data import Folder, PredictDataset
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from lightning.pytorch import seed_everything

from anomalib_synth.calibration.checkpoints import read_checkpoint, save_checkpoint
from anomalib_synth.calibration.training_run import find_config
from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.commands.calibrate import calibrate
from anomalib_synth.demo.writer import RenderPlan, render_category
from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator
from anomalib_synth.host.thresholds import Level, write_thresholds
from anomalib_synth.models import DiscriminativePadim
from tests.integration.models import BACKBONE, QUIET, normalising

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib.models import AnomalibModule
    from lightning.pytorch import Callback

SIZE = 96


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered parts: 16 to train on, 40 good ones held out, 5 with real defects."""
    plan = RenderPlan(
        kind="printed_cap", image_size=SIZE, num_train=16, num_test_good=40, num_test_defect=5, seed=0
    )  # fmt: skip
    root = render_category(tmp_path_factory.mktemp("parts"), plan)
    (root / "real").mkdir()
    for path in (root / "test").rglob("*.png"):
        if path.parent.name != "good":
            shutil.copy(path, root / "real" / path.name)
    return root


def make_model(cls: type[AnomalibModule], **options: object) -> AnomalibModule:
    if cls is DiscriminativePadim:
        return cls(scales=[64], pre_processor=normalising(64), **QUIET, **options)
    extra = {"coreset_sampling_ratio": 0.05} if cls is Patchcore else {"n_features": 32}
    return cls(**BACKBONE, **extra, pre_processor=normalising(64), **QUIET, **options)


def make_engine(folder: Path, callbacks: Sequence[Callback] = ()) -> Engine:
    return Engine(
        callbacks=list(callbacks), default_root_dir=folder, accelerator="cpu", devices=1, logger=False,
        enable_progress_bar=False, max_epochs=1,
    )  # fmt: skip


def train(cls: type[AnomalibModule], parts: Path, folder: Path) -> Path:
    datamodule = Folder(
        name="part", root=parts, normal_dir="train/good", train_batch_size=8, num_workers=0,
        val_split_mode="from_train", val_split_ratio=0.25, test_split_mode="none", seed=0,
    )  # fmt: skip
    draws = SynthesisCallback(RuleBasedGenerator(["stain"]), grid_every_n_epochs=0)
    engine = make_engine(folder, [draws] if cls is DiscriminativePadim else [])
    seed_everything(0, verbose=False)  # PaDiM draws its features, PatchCore its memory
    engine.fit(make_model(cls), datamodule=datamodule)
    engine.trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.fixture(scope="module")
def padim(parts, tmp_path_factory) -> Path:
    """A checkpoint of PaDiM."""
    return train(Padim, parts, tmp_path_factory.mktemp("padim"))


@pytest.fixture(scope="module")
def discriminativepadim(parts, tmp_path_factory) -> Path:
    """A checkpoint of DiscriminativePadim."""
    return train(DiscriminativePadim, parts, tmp_path_factory.mktemp("discriminative_padim"))


@pytest.fixture(scope="module")
def patchcore(parts, tmp_path_factory) -> Path:
    """A checkpoint of PatchCore."""
    return train(Patchcore, parts, tmp_path_factory.mktemp("patchcore"))


def run(checkpoint: Path, parts: Path, out: Path, **options: object) -> dict:
    """Calibrate with few defects, and return the summary."""
    settings = {
        "min_recall": 0.0,
        "model": "Padim", "generator": RuleBasedGenerator(["scratch", "cutout"]), "strengths": (0.2, 0.6, 1.0),
        "per_cell": 5, "false_alarm_rate": 0.1, "train_normals": parts / "train" / "good", "accelerator": "cpu",
    }  # fmt: skip
    calibrate(checkpoint, parts / "test" / "good", out=out, **{**settings, **options})
    return json.loads((out / "calibration.json").read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def predict(model: AnomalibModule, checkpoint: Path, images: Path, folder: Path) -> dict[str, object]:
    """Predict as `anomalib predict --ckpt_path ... --data FOLDER` does; one batch an image."""
    batches = make_engine(folder).predict(model, dataset=PredictDataset(images), ckpt_path=checkpoint)
    return {batch.image_path[0]: batch for batch in batches}


@pytest.mark.parametrize("cls", [Padim, Patchcore, DiscriminativePadim])
def test_predictions_follow_the_calibrated_threshold(request, cls, parts, tmp_path) -> None:
    checkpoint = request.getfixturevalue(cls.__name__.lower())
    before = checkpoint.read_bytes()
    name = "anomalib_synth.models.DiscriminativePadim" if cls is DiscriminativePadim else cls.__name__
    # One image at a time, like the prediction below: convolutions differ in the last bits between batch sizes.
    summary = run(checkpoint, parts, tmp_path / "out", model=name, strengths=(1.0,), per_cell=1, batch_size=1)
    assert checkpoint.read_bytes() == before
    rows = read_csv(tmp_path / "out" / "scores.csv")
    scores = {row["path"]: float(row["score"]) for row in rows if row["role"] in {"choose", "measure"}}
    peaks = {row["path"]: float(row["peak"]) for row in rows if row["role"] in {"choose", "measure"}}
    assert len(scores) == 40
    calibrated = tmp_path / "out" / "calibrated.ckpt"
    found = predict(make_model(cls), calibrated, parts / "test" / "good", tmp_path / "run")
    labels = {path: bool(batch.pred_label[0]) for path, batch in found.items()}
    assert labels == {path: score > summary["image_threshold"] for path, score in scores.items()}
    masks = {path: bool(batch.pred_mask.any()) for path, batch in found.items()}
    assert masks == {path: peak > summary["pixel_threshold"] for path, peak in peaks.items()}
    measured = [row["path"] for row in rows if row["role"] == "measure"]
    alarms = summary["false_alarms"]
    assert (alarms["count"], alarms["of"]) == (sum(labels[path] for path in measured), 20)
    chosen = [row["path"] for row in rows if row["role"] == "choose"]
    assert sum(labels[path] for path in chosen) == 1  # rank ceil(21 * 0.9) of 20
    exported = cls.load_from_checkpoint(calibrated, map_location="cpu").eval()
    for path in list(found)[:2]:
        image = found[path].image  # pre-processed already
        exported.pre_processor = None
        with torch.inference_mode():
            assert bool(exported(image).pred_label) == labels[path]


def test_label_flips_exactly_when_the_threshold_passes_a_score(padim, parts, tmp_path) -> None:
    run(padim, parts, tmp_path / "out", strengths=(1.0,), per_cell=1, batch_size=1)
    good = tmp_path / "some"
    good.mkdir()
    rows = [row for row in read_csv(tmp_path / "out" / "scores.csv") if row["role"] == "measure"][:4]
    for row in rows:
        shutil.copy(row["path"], good / Path(row["path"]).name)
    scores = {Path(row["path"]).name: float(row["score"]) for row in rows}
    for threshold in scores.values():
        loaded = read_checkpoint(padim)
        write_thresholds(loaded, image=Level(threshold=threshold, low=0.0, high=100.0), pixel=None)
        save_checkpoint(loaded, tmp_path / "moved.ckpt")
        found = predict(make_model(Padim), tmp_path / "moved.ckpt", good, tmp_path / "run")
        labels = {Path(path).name: bool(batch.pred_label[0]) for path, batch in found.items()}
        assert labels == {name: score > threshold for name, score in scores.items()}


def test_recall_grows_with_strength_and_results_repeat(padim, parts, tmp_path, capsys) -> None:
    first = run(padim, parts, tmp_path / "a", defects=parts / "real", per_cell=10)
    printed = capsys.readouterr().out
    assert "scratch" in printed
    assert "real defects are found" in printed
    assert "Lightning" not in printed
    cells = {(cell["family"], cell["strength"]): cell for cell in first["cells"]}
    assert set(cells) == {(family, s) for family in ("scratch", "cutout") for s in (0.2, 0.6, 1.0)}
    assert cells["cutout", 1.0]["recall"] >= 0.4
    assert cells["cutout", 1.0]["recall"] > (cells["cutout", 0.2]["recall"] or 0.0)
    assert first["real_defects"]["found"]["of"] == 5
    assert sum(row["role"] == "real" for row in read_csv(tmp_path / "a" / "scores.csv")) == 5
    second = run(padim, parts, tmp_path / "b", defects=parts / "real", per_cell=10, batch_size=7)
    assert second["false_alarms"] == first["false_alarms"]
    assert [cell["visible"] for cell in second["cells"]] == [cell["visible"] for cell in first["cells"]]
    assert second["image_threshold"] == pytest.approx(first["image_threshold"], rel=1e-4)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "calibrated.ckpt", "calibration.json", "calibration.html", "recall.csv", "scores.csv", "recall.png"
    }  # fmt: skip
    assert "anomalib_synth_calibration" in read_checkpoint(tmp_path / "a" / "calibrated.ckpt")


def test_other_generators_count_as_one_kind(padim, parts, tmp_path) -> None:
    summary = run(padim, parts, tmp_path, generator=MixtureGenerator([RuleBasedGenerator(["cutout"])]), per_cell=2)
    (cell,) = summary["cells"]
    assert (cell["family"], cell["strength"], cell["drawn"]) == ("MixtureGenerator", None, 6)


def write_config(parts: Path, path: Path) -> None:
    """What `anomalib train` leaves in the folder of the run."""
    resize = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [64, 64], "antialias": True}}
    processor = {"class_path": "anomalib.pre_processing.PreProcessor", "init_args": {"transform": resize}}
    data = {
        "name": "part", "root": str(parts), "normal_dir": "train/good", "val_split_mode": "from_train",
        "test_split_mode": "none", "seed": 0,
    }  # fmt: skip
    config = {
        "model": {
            "class_path": "anomalib.models.Padim",
            "init_args": {**BACKBONE, "n_features": 32, "pre_processor": processor},
        },
        "data": {"class_path": "anomalib.data.Folder", "init_args": data},
        "trainer": {"max_epochs": 1},
    }
    path.write_text(yaml.safe_dump(config))


def test_configuration_above_the_checkpoint_is_used_when_no_model_is_named(padim, parts, tmp_path, monkeypatch) -> None:
    checkpoint = tmp_path / "v0" / "weights" / "lightning" / "model.ckpt"
    checkpoint.parent.mkdir(parents=True)
    shutil.copy(padim, checkpoint)
    write_config(parts, tmp_path / "v0" / "config.yaml")
    options = {"model": None, "train_normals": None, "per_cell": 1}
    with monkeypatch.context() as moved:
        moved.chdir(tmp_path)
        summary = run(checkpoint.relative_to(tmp_path), parts, tmp_path / "out", **options)
    found = find_config(tmp_path / "out" / "calibrated.ckpt")
    assert found == tmp_path / "v0" / "config.yaml", "from another folder than it was calibrated in"
    assert summary["settings"]["model"] == "Padim"
    by_class = run(padim, parts, tmp_path / "by_class", per_cell=1)
    assert summary["image_threshold"] == by_class["image_threshold"], "the transform is the checkpoint's"
    with pytest.raises(ValueError, match="must not hold training images, got 16 of 16"):  # whatever was for validation
        calibrate(checkpoint, parts / "train" / "good", out=tmp_path / "bad", false_alarm_rate=0.2, accelerator="cpu")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": None}, "`model` must be given"),
        ({"model": "Patchcore"}, "does not fit the checkpoint"),
        ({"false_alarm_rate": 0.01}, "at least 198 different normals"),
        ({"false_alarm_rate": 0.0}, r"`false_alarm_rate` must be in \(0, 1\)"),
        ({"strengths": (0.0, 0.5)}, "`strengths` must be numbers"),
        ({"strengths": ()}, "`strengths` must be numbers"),
        ({"per_cell": 0}, "`per_cell` must be >= 1"),
        ({"max_normals": 8}, "at least 10 different images"),
        ({"defects": Path("no_such_folder")}, "`defects` must be a folder with images"),
        ({"train_normals": Path("no_such_folder")}, "`train_normals` must be a folder with images"),
    ],
)
def test_bad_input_is_refused_before_any_work(padim, parts, tmp_path, options, said) -> None:
    with pytest.raises(ValueError, match=said):
        run(padim, parts, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_checkpoint_is_not_overwritten_when_it_lies_in_the_folder_for_results(padim, parts, tmp_path) -> None:
    shutil.copy(padim, tmp_path / "calibrated.ckpt")
    with pytest.raises(ValueError, match="`out` must not hold the checkpoint itself"):
        run(tmp_path / "calibrated.ckpt", parts, tmp_path)


def test_model_without_post_processor_is_refused(padim, parts, tmp_path) -> None:
    loaded = read_checkpoint(padim)
    loaded["anomalib_components_enabled"]["post_processor"] = False
    loaded["state_dict"] = {k: v for k, v in loaded["state_dict"].items() if not k.startswith("post_processor.")}
    save_checkpoint(loaded, tmp_path / "bare.ckpt")
    with pytest.raises(ValueError, match="must have a post-processor"):
        run(tmp_path / "bare.ckpt", parts, tmp_path / "out")

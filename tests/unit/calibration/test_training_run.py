"""What a run's configuration tells: its training images, all of them, and what changes its predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from anomalib.callbacks import TilerConfigurationCallback
from anomalib.data import Folder
from lightning.pytorch import Callback

from anomalib_synth.calibration.held_out import check_not_trained_on, list_normals
from anomalib_synth.calibration.training_run import find_config, read_inference, tile, training_images
from anomalib_synth.images import Normal
from tests.conftest import save_images
from tests.contract import render_normals


class RandomListing(Folder):
    """A datamodule of another package, which draws its training images while it lists."""

    def _setup(self, stage: str | None = None) -> None:
        super()._setup(stage)
        order = np.random.default_rng().permutation(len(self.train_data))
        self.val_data = self.train_data.subsample(order[:6].tolist())
        self.train_data = self.train_data.subsample(order[6:].tolist())


class Silent(Callback):
    """Acts in training only."""

    def on_train_batch_end(self, *args) -> None:
        """Do nothing."""


class Loud(Callback):
    """Acts while predicting."""

    def on_predict_batch_start(self, *args) -> None:
        """Do nothing."""


@pytest.fixture
def root(tmp_path) -> Path:
    """12 normals to train on, 4 to test on, 2 defects."""
    save_images(tmp_path / "good", render_normals(12, 3, 16, 16, seed=1))
    save_images(tmp_path / "test_good", render_normals(4, 3, 16, 16, seed=2))
    save_images(tmp_path / "bad", render_normals(2, 3, 16, 16, seed=3))
    return tmp_path


def write(root: Path, *, wrapped: bool, kind: str = "anomalib.data.Folder", **options: object) -> Path:
    data = {"class_path": kind, "init_args": {"name": "p", "root": str(root), "normal_dir": "good", **options}}
    if wrapped:
        generator = {"class_path": "anomalib_synth.generators.RuleBasedGenerator"}
        arguments = {"base": data, "generator": generator, "root": str(root / "kept")}
        data = {"class_path": "anomalib_synth.data.SyntheticDataModule", "init_args": arguments}
    (root / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    return root / "config.yaml"


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"val_split_mode": "from_train"},
        {"val_split_mode": "from_train", "test_split_mode": "none"},
        {"val_split_mode": "same_as_test"},
        {"val_split_mode": "synthetic", "test_split_mode": "synthetic"},
        {"test_split_mode": "none"},
        {"test_split_mode": "none", "val_split_mode": "none"},
        {"abnormal_dir": "bad", "normal_test_dir": "test_good"},
        {"abnormal_dir": "bad", "seed": 0},
    ],
    ids=str,
)
def test_every_training_image_is_refused_when_the_run_drew_its_splits(root, wrapped, options) -> None:
    config = write(root, wrapped=wrapped, **options)
    for path in (root / "good").iterdir():
        (root / "renamed").mkdir(exist_ok=True)
        shutil.copy(path, root / "renamed" / f"x{path.name}")
    normals, _ = list_normals(root / "renamed", 100)
    with pytest.raises(ValueError, match="must not hold training images, got 12 of 12"):
        check_not_trained_on(normals, None, config)
    check_not_trained_on(list_normals(root / "bad", 100)[0], None, config)


def test_test_images_may_be_used_when_the_run_kept_them_apart(root) -> None:
    config = write(root, wrapped=False, abnormal_dir="bad", normal_test_dir="test_good")
    check_not_trained_on(list_normals(root / "test_good", 100)[0], None, config)


def test_every_normal_counts_when_another_package_draws_while_listing(root) -> None:
    config = write(root, wrapped=True, kind=f"{__name__}.RandomListing")
    for _ in range(3):
        assert len(training_images(config)) == 12


def test_folder_and_configuration_both_count_when_both_are_named(root) -> None:
    config = write(root, wrapped=False)
    for folder in ("good", "test_good"):
        with pytest.raises(ValueError, match="must not hold training images"):
            check_not_trained_on(list_normals(root / folder, 100)[0], root / "test_good", config)


def test_training_folder_is_asked_for_when_nothing_tells(root) -> None:
    normals = [Normal(path=root / "good" / "000.png", name="000.png", content="x")]
    with pytest.raises(ValueError, match=r"`train_normals` must name .* no training configuration was found"):
        check_not_trained_on(normals, None, None)
    config = root / "config.yaml"
    for text, said in (
        ("data: {class_path: anomalib.data.Folder, init_args: {name: p, root: gone, normal_dir: x}}", "not be listed"),
        ("model: {}", "has no `data`"),
        ("data: {class_path: pathlib.Path}", "`data` cannot be built"),
    ):
        config.write_text(text)
        with pytest.raises(ValueError, match=f"`train_normals` must name .*{said}"):
            check_not_trained_on(normals, None, config)
        check_not_trained_on(normals, root / "bad", config)


def test_configuration_is_found_only_when_it_names_a_model(tmp_path) -> None:
    path = tmp_path / "v0" / "weights" / "lightning" / "model.ckpt"
    path.parent.mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("model: my notes")
    assert find_config(path) is None
    (tmp_path / "v0" / "config.yaml").write_text("model: {class_path: anomalib.models.Padim}")
    assert find_config(path) == (tmp_path / "v0" / "config.yaml").resolve()


@pytest.mark.parametrize("place", ["calibrated.ckpt", "learned/detector.ckpt"])
def test_configuration_of_a_calibrated_checkpoint_is_found_when_it_lies_elsewhere(tmp_path, place) -> None:
    config = tmp_path / "run" / "config.yaml"
    config.parent.mkdir()
    config.write_text("model: {class_path: anomalib.models.Padim}")
    origin = tmp_path / "run" / "model.ckpt"
    for folder in ("first", "second"):  # one that was calibrated again, too
        report = tmp_path / folder / "calibration.json"
        report.parent.mkdir()
        report.write_text(json.dumps({"settings": {"checkpoint": str(origin)}}))
        origin = tmp_path / folder / place
        assert find_config(origin) == config.resolve()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 3}', '{"settings": {"checkpoint": 3}}'])
def test_there_is_no_configuration_when_the_report_names_none(tmp_path, text) -> None:
    (tmp_path / "calibration.json").write_text(text)
    assert find_config(tmp_path / "calibrated.ckpt") is None


def test_search_for_a_configuration_ends_when_reports_name_each_other(tmp_path) -> None:
    path = tmp_path / "calibrated.ckpt"
    (tmp_path / "calibration.json").write_text(json.dumps({"settings": {"checkpoint": str(path)}}))
    assert find_config(path) is None


def callbacks_of(root: Path, *paths: str, **trainer: object) -> list[str]:
    sections = [{"class_path": path} for path in paths]
    (root / "config.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": sections, **trainer}}))
    inference = read_inference(root / "config.yaml")
    return [type(callback).__name__ for callback in inference.callbacks]


def test_callbacks_are_taken_when_they_act_in_predictions(tmp_path) -> None:
    own = [f"{__name__}.Silent", f"{__name__}.Loud"]
    host = ["lightning.pytorch.callbacks.RichProgressBar", "anomalib.callbacks.ModelCheckpoint"]
    ours = "anomalib_synth.callbacks.SynthesisCallback"
    tiler = "anomalib.callbacks.TilerConfigurationCallback"
    assert callbacks_of(tmp_path, *own, *host, ours, tiler) == ["Loud", "TilerConfigurationCallback"]
    assert callbacks_of(tmp_path) == []


def test_precision_is_taken_when_the_trainer_had_one(tmp_path) -> None:
    callbacks_of(tmp_path, precision="bf16-mixed")
    inference = read_inference(tmp_path / "config.yaml")
    assert inference.precision == "bf16-mixed"
    assert "precision bf16-mixed" in inference.describe()


def test_unknown_callback_is_refused_when_nobody_can_tell_what_it_does(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"the callback gone\.Callback, which cannot be found"):
        callbacks_of(tmp_path, "gone.Callback")


def test_tiler_is_built_from_its_settings() -> None:
    (callback,) = tile({"tile_size": 64, "stride": 32}).callbacks
    assert isinstance(callback, TilerConfigurationCallback)
    assert (callback.enable, callback.tile_size, callback.stride) == (True, 64, 32)
    assert tile({}).callbacks == []

"""`learn`: a detector learns what it missed, says what changed, and goes back."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from lightning.pytorch import seed_everything
from PIL import Image as PILImage

from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint, save_checkpoint
from anomalib_synth.calibration.statistics import conformal_threshold
from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.commands.calibrate import calibrate
from anomalib_synth.commands.learn import learn
from anomalib_synth.commands.look_alikes import look_alikes
from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.demo.writer import RenderPlan, render_category
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.host.thresholds import read_image_threshold
from anomalib_synth.images import digest_image
from anomalib_synth.learning import collecting
from anomalib_synth.learning.changes import LearningChanges
from anomalib_synth.learning.detector_map import DetectorMap
from anomalib_synth.learning.missed_samples import TrainedDetector
from anomalib_synth.learning.taught_detector import TaughtDetector
from anomalib_synth.learning.versions import DetectorFolder
from anomalib_synth.models import DiscriminativePadim
from anomalib_synth.store import SampleStore, export_mvtec
from tests.integration.models import QUIET, normalising

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64
GENERATOR = {
    "class_path": "anomalib_synth.generators.RuleBasedGenerator",
    "init_args": {"families": ["stain", "scratch"]},
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered parts: 24 good ones, 12 held out, 6 with real defects."""
    plan = RenderPlan(
        kind="printed_cap", image_size=SIZE, num_train=24, num_test_good=12, num_test_defect=6, seed=0
    )  # fmt: skip
    return render_category(tmp_path_factory.mktemp("parts"), plan)


@pytest.fixture(scope="module")
def trained(parts, tmp_path_factory) -> Path:
    """A folder as `anomalib train` leaves it."""
    root = tmp_path_factory.mktemp("trained")
    base = {
        "class_path": "anomalib.data.Folder",
        "init_args": {
            "name": "part", "root": str(parts), "normal_dir": "train/good", "train_batch_size": 8, "num_workers": 0,
            "seed": 0, "test_split_mode": "none",
        },
    }  # fmt: skip
    data = {"base": base, "generator": GENERATOR, "splits": ["val"], "val_ratio": 0.4, "root": str(root / "kept")}
    config = {
        "model": {"class_path": "anomalib_synth.models.DiscriminativePadim", "init_args": {"scales": [64]}},
        "data": {"class_path": "anomalib_synth.data.SyntheticDataModule", "init_args": data},
        "trainer": {
            "callbacks": [
                {
                    "class_path": "anomalib_synth.callbacks.SynthesisCallback",
                    "init_args": {"generator": GENERATOR, "grid_every_n_epochs": 0},
                }
            ]
        },
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    from anomalib.data import Folder

    families = GENERATOR["init_args"]["families"]
    datamodule = SyntheticDataModule(
        Folder(**{**base["init_args"], "root": parts}), RuleBasedGenerator(families), splits=["val"], val_ratio=0.4,
        root=root / "kept",
    )  # fmt: skip
    seed_everything(0, verbose=False)
    model = DiscriminativePadim(scales=[64], pre_processor=normalising(SIZE), **QUIET)
    engine = Engine(
        callbacks=[SynthesisCallback(RuleBasedGenerator(families), grid_every_n_epochs=0)],
        default_root_dir=root / "run", accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=2,
    )  # fmt: skip
    engine.fit(model, datamodule=datamodule)
    shutil.rmtree(root / "run")
    (root / "weights" / "lightning").mkdir(parents=True)
    engine.trainer.save_checkpoint(root / "weights" / "lightning" / "model.ckpt")
    return root


def draw_few(patch: pytest.MonkeyPatch) -> None:
    """As many drawn defects as a test has time for."""
    patch.setattr(collecting, "_DRAWN", 24)
    patch.setattr(collecting, "_PROBES", 16)


@pytest.fixture(autouse=True)
def few_drawn(monkeypatch) -> None:
    draw_few(monkeypatch)


@pytest.fixture
def detector(trained, tmp_path) -> Path:
    """A copy of the folder."""
    return shutil.copytree(trained, tmp_path / "detector")


@pytest.fixture(scope="module")
def missed(parts, tmp_path_factory) -> Path:
    """Two images with defects, without masks."""
    folder = tmp_path_factory.mktemp("missed")
    found = [path for path in sorted((parts / "test").rglob("*.png")) if path.parent.name != "good"]
    for number, path in enumerate(found[:2]):
        shutil.copy(path, folder / f"missed_{number}.png")
    return folder


@pytest.fixture(scope="module")
def learned(trained, missed, tmp_path_factory) -> Path:
    """A detector that has learned what it missed."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("learned") / "detector")
    with pytest.MonkeyPatch.context() as patch:
        draw_few(patch)
        run(folder, missed=missed)
    return folder


@pytest.fixture
def taught(learned, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(learned, tmp_path / "detector")


def predict(checkpoint: Path, config: Path, image: Path) -> object:
    module, _ = load_model(str(config), checkpoint, read_checkpoint(checkpoint))
    engine = Engine(accelerator="cpu", logger=False, enable_progress_bar=False)
    return engine.predict(module, dataset=PredictDataset(image, image_size=(SIZE, SIZE)), ckpt_path=checkpoint)[0]


def run(detector: Path, **options: object) -> Path:
    learn(detector, steps=4, **{"false_alarm_rate": 0.4, "accelerator": "cpu", **options})
    return detector / "learned" / "detector.ckpt"


def test_a_new_version_predicts_by_the_new_threshold_and_the_old_one_stays(detector, missed, capsys) -> None:
    before = (detector / "weights" / "lightning" / "model.ckpt").read_bytes()
    current = run(detector, missed=missed)
    printed = capsys.readouterr().out
    assert (detector / "weights" / "lightning" / "model.ckpt").read_bytes() == before
    about = json.loads((detector / "learned" / "0002.json").read_text())
    assert [row["image"] for row in about["learned"]] == [str(missed / f"missed_{n}.png") for n in (0, 1)]
    for words in ("What it learned", "False alarms on", "Recall of drawn defects", "Wrote version 2"):
        assert words in printed
    for row in about["learned"]:
        found = predict(current, detector / "config.yaml", row["image"])
        assert bool(found.pred_label) == (row["after"] > 0)
    state = read_checkpoint(current)
    assert state["anomalib_synth_learned"] == sorted(digest_image(missed / f"missed_{n}.png") for n in (0, 1))


def test_one_half_of_the_held_out_images_sets_the_threshold_and_the_other_measures_it(
    detector, missed, monkeypatch
) -> None:
    told = []
    to_dict = LearningChanges.to_dict
    monkeypatch.setattr(
        LearningChanges,
        "to_dict",
        lambda changes, measured: told.append((changes, measured)) or to_dict(changes, measured),
    )
    run(detector, missed=missed)
    ((changes, measured),) = told
    good = [
        (example.key, score.image)
        for example, score in zip(changes.examples, changes.after.scores, strict=True)
        if example.role == "good"
    ]
    choose = [score for key, score in good if key not in measured]
    measure = [score for key, score in good if key in measured]
    assert len(choose) >= len(measure) >= 1
    assert changes.after.threshold == conformal_threshold(choose, 0.4) != conformal_threshold(measure, 0.4)
    about = json.loads((detector / "learned" / "0002.json").read_text())["false_alarms"]["after"]
    above = sum(score > changes.after.threshold for score in measure)
    assert (about["count"], about["of"]) == (above, len(measure))


def test_features_are_computed_once(taught, missed, monkeypatch) -> None:
    size = (taught / "learned" / "memory" / "features.f16").stat().st_size
    looked = []
    monkeypatch.setattr(collecting, "collect", lambda *_, **__: looked.append(1))
    monkeypatch.setattr("anomalib_synth.learning.taught_detector.collect", lambda *_, **__: looked.append(1))
    run(taught, missed=missed / "missed_0.png")
    assert not looked
    assert (taught / "learned" / "memory" / "features.f16").stat().st_size == size


def test_undo_goes_back_version_by_version(taught, missed) -> None:
    original = read_checkpoint(taught / "weights" / "lightning" / "model.ckpt")["state_dict"]
    current = taught / "learned" / "detector.ckpt"
    second = read_checkpoint(current)
    run(taught, false_alarms=missed)
    learn(taught, undo=True)
    back = read_checkpoint(current)
    assert back["state_dict"].keys() == second["state_dict"].keys()
    for name, value in second["state_dict"].items():
        torch.testing.assert_close(back["state_dict"][name], value, rtol=0, atol=0, equal_nan=True)
    assert back["anomalib_synth_learned"] == second["anomalib_synth_learned"]
    learn(taught, undo=True)
    for name, value in original.items():
        found = read_checkpoint(current)["state_dict"][name]
        torch.testing.assert_close(found, value, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(ValueError, match="nothing to undo"):
        learn(taught, undo=True)


def test_a_version_after_undo_forgets_what_was_undone(detector, missed) -> None:
    run(detector, missed=missed / "missed_0.png")
    learn(detector, undo=True)
    current = run(detector, missed=missed / "missed_1.png")
    about = json.loads((detector / "learned" / "0003.json").read_text())  # no number twice
    assert [row["image"] for row in about["learned"]] == [str(missed / "missed_1.png")]
    assert (detector / "learned" / "0002.json").exists()
    assert read_checkpoint(current)["anomalib_synth_learned"] == [digest_image(missed / "missed_1.png")]


def test_same_seed_gives_the_same_heads(detector, trained, missed, tmp_path) -> None:
    twin = shutil.copytree(trained, tmp_path / "twin")
    states = [read_checkpoint(run(folder, missed=missed, seed=5))["state_dict"] for folder in (detector, twin)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=0, equal_nan=True)


def test_an_image_that_is_known_as_good_is_refused(detector, parts, tmp_path) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    shutil.copy(next((parts / "train" / "good").iterdir()), folder / "renamed.png")
    with pytest.raises(
        ValueError, match=r"`missed` must not hold images that the detector knows as good.*renamed\.png"
    ):
        run(detector, missed=folder)


def test_calibrate_refuses_what_was_learned(taught, parts, missed, tmp_path) -> None:
    current = taught / "learned" / "detector.ckpt"
    with pytest.raises(ValueError, match=r"`defects` must not hold images that the model has learned, got 2 of 2"):
        calibrate(
            current, parts / "test" / "good", out=tmp_path / "out", model=str(taught / "config.yaml"),
            defects=missed, false_alarm_rate=0.3, train_normals=parts / "train" / "good", accelerator="cpu",
        )  # fmt: skip


def test_a_rate_takes_enough_held_out_images(detector, missed) -> None:
    with pytest.raises(ValueError, match=r"`false_alarm_rate` 0\.01 takes 198 held-out good images"):
        run(detector, missed=missed, false_alarm_rate=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "`missed` or `false_alarms` must name images"),
        ({"missed": "x", "undo": True}, "`undo` goes back"),
        ({"missed": "x", "steps": 0}, "`steps` must be >= 1"),
        ({"missed": "x", "false_alarm_rate": 1.0}, r"`false_alarm_rate` must be in \(0, 1\)"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(tmp_path, options, words) -> None:
    with pytest.raises(ValueError, match=words):
        learn(tmp_path / "nothing", **options)


def test_a_folder_without_a_detector_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"must hold one checkpoint \(\.ckpt\), got none"):
        learn(tmp_path, missed=tmp_path)


def test_two_at_once_are_refused(detector, missed) -> None:
    with DetectorFolder(detector).locked(), pytest.raises(ValueError, match="Another `learn` is at work"):
        run(detector, missed=missed)


@pytest.mark.parametrize("file", ["features.f16", "features.csv", "examples.jsonl", "memory.json"])
def test_a_damaged_memory_is_made_again(taught, missed, file) -> None:
    path = taught / "learned" / "memory" / file
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3] + b"\xff,oops\n")
    run(taught, missed=missed / "missed_1.png")
    first, second = (
        json.loads((taught / "learned" / f"000{number}.json").read_text())["families"] for number in (2, 3)
    )
    assert {name: cell["after"]["of"] for name, cell in second.items()} == {
        name: cell["after"]["of"] for name, cell in first.items()
    }


def test_a_folder_that_is_not_there_is_named(detector, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"`missed` must be a file or a folder, got '.*nowhere'"):
        run(detector, missed=tmp_path / "nowhere")


def test_the_marking_page_proposes_what_the_detector_sees(taught, missed) -> None:
    current = taught / "learned" / "detector.ckpt"
    image = missed / "missed_0.png"
    found = predict(current, taught / "config.yaml", image)
    levels = DetectorMap(taught).propose(np.asarray(PILImage.open(image).convert("RGB")))
    torch.testing.assert_close(torch.from_numpy(levels), found.anomaly_map.reshape(levels.shape), rtol=0, atol=1e-4)


def test_undo_brings_the_sensitivity_of_its_version_back(detector, missed) -> None:
    base = detector / "weights" / "lightning" / "model.ckpt"
    checkpoint = read_checkpoint(base)
    checkpoint["anomalib_post_processor_config"]["image_sensitivity"] = 0.7
    save_checkpoint(checkpoint, base)
    current = run(detector, missed=missed)
    second = read_image_threshold(read_checkpoint(current))
    run(detector, missed=missed)
    learn(detector, undo=True)
    assert read_image_threshold(read_checkpoint(current)) == second
    learn(detector, undo=True)
    assert read_image_threshold(read_checkpoint(current)) == read_image_threshold(checkpoint)


def test_what_a_killed_writer_left_is_made_whole(taught, missed) -> None:
    current = taught / "learned" / "detector.ckpt"
    second = current.read_bytes()
    run(taught, missed=missed)
    third = read_checkpoint(current)["state_dict"]
    current.write_bytes(second)  # as if it had been killed before the last step
    found = DetectorFolder(taught).read_current()["state_dict"]
    for name, value in third.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)


def test_its_own_checkpoint_is_the_detector_it_belongs_to(taught, missed) -> None:
    current = taught / "learned" / "detector.ckpt"
    learn(current, undo=True)
    assert not (taught / "learned" / "learned").exists()
    assert DetectorFolder(taught / "learned").folder == taught


def test_a_detector_that_was_trained_again_is_not_mixed_with_what_was_learned(taught, missed) -> None:
    base = taught / "weights" / "lightning" / "model.ckpt"
    save_checkpoint({**read_checkpoint(base), "epoch": 77}, base)
    with pytest.raises(ValueError, match=r"trained or calibrated again. Move the folder `learned` away"):
        run(taught, missed=missed)


def test_other_training_images_than_it_was_trained_on_are_refused(detector, missed) -> None:
    config = detector / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["data"]["init_args"]["seed"] = 5  # another split
    config.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="`detector` was trained on other images than"):
        run(detector, missed=missed)


def test_an_image_is_a_defect_or_good_and_the_last_word_counts(detector, missed) -> None:
    image = missed / "missed_0.png"
    with pytest.raises(ValueError, match=r"must not hold the same image, got .*missed_0\.png"):
        run(detector, missed=image, false_alarms=image)
    run(detector, false_alarms=image)
    run(detector, missed=image)
    folder = DetectorFolder(detector)
    taught = TaughtDetector(folder, accelerator="cpu", seed=0)
    assert [(each.name, each.role) for each in taught.earlier()] == [(str(image), "defect")]


def test_images_of_the_runs_own_test_are_refused(trained, parts, tmp_path) -> None:
    detector = shutil.copytree(trained, tmp_path / "detector")
    config = detector / "config.yaml"
    content = yaml.safe_load(config.read_text())
    base = content["data"]["init_args"]["base"]["init_args"]
    kinds = sorted(path.name for path in (parts / "test").iterdir() if path.name != "good")
    base |= {"abnormal_dir": [f"test/{kind}" for kind in kinds], "test_split_mode": "from_dir"}
    base["normal_test_dir"] = "test/good"  # without one, anomalib takes training images for the test
    config.write_text(yaml.safe_dump(content))
    images = [path for path in sorted((parts / "test").rglob("*.png")) if path.parent.name != "good"]
    with pytest.raises(ValueError, match=r"`missed` must not hold images that are in the run's test set"):
        run(detector, missed=images[0])


def test_learned_images_whose_features_are_lost_are_counted(detector, missed, capsys) -> None:
    run(detector, missed=missed / "missed_0.png")
    shutil.rmtree(detector / "learned" / "memory")
    run(detector, missed=missed / "missed_1.png")
    assert "The features of 1 images that earlier versions had learned are lost" in " ".join(
        capsys.readouterr().out.split()
    )


def test_held_out_images_of_one_call_are_not_those_of_the_next(detector, missed, parts, tmp_path) -> None:
    good = sorted((parts / "test" / "good").iterdir())
    for name, files in (("a", good[:6]), ("b", good[6:])):
        (tmp_path / name).mkdir()
        for file in files:
            shutil.copy(file, tmp_path / name)
    for number, name in ((2, "a"), (3, "b")):
        run(detector, missed=missed, normals=tmp_path / name)
        about = json.loads((detector / "learned" / f"000{number}.json").read_text())
        assert about["false_alarms"]["after"]["of"] == 3


@pytest.mark.parametrize("text", ["{", "[]", '{"versions": 5, "last": 2}', '{"versions": [2], "last": "x"}'])
def test_a_history_that_is_none_is_named(taught, missed, text) -> None:
    (taught / "learned" / "history.json").write_text(text)
    with pytest.raises(ValueError, match=r"history\.json"):
        learn(taught, undo=True)


@pytest.mark.parametrize("file", ["0002.json", "0002.safetensors"])
def test_a_damaged_version_is_named_when_it_is_needed(taught, missed, file) -> None:
    run(taught, missed=missed)
    (taught / "learned" / file).write_text("[]")
    with pytest.raises(ValueError, match=file.replace(".", r"\.")):
        learn(taught, undo=True)


def test_a_damaged_history_is_named(detector, missed) -> None:
    (detector / "learned").mkdir()
    (detector / "learned" / "history.json").write_text("{")
    with pytest.raises(ValueError, match=r"history\.json' cannot be read"):
        run(detector, missed=missed)


def test_look_alikes_of_a_defect_are_learned_when_they_are_exported(detector, parts, tmp_path, capsys) -> None:
    found = [path for path in sorted((parts / "test").rglob("*.png")) if path.parent.name != "good"]
    masks = parts / "ground_truth" / found[0].parent.name
    look_alikes(
        found[0], parts / "test" / "good", tmp_path / "store", detector=detector, marks=masks, num_samples=3,
        accelerator="cpu",
    )  # fmt: skip
    store = SampleStore.open(tmp_path / "store")
    assert len(store.judgements) == 12
    export_mvtec(store, tmp_path / "export")
    run(detector, missed=tmp_path / "export" / "test")
    about = json.loads((detector / "learned" / "0002.json").read_text())
    assert len(about["learned"]) == 3
    assert "Kept 3 in" in capsys.readouterr().out
    after = TrainedDetector(detector, accelerator="cpu")  # its current version
    assert after.digest != TrainedDetector(detector / "weights" / "lightning" / "model.ckpt").digest


@pytest.fixture
def alikes(detector, parts, tmp_path) -> Path:
    """A store of look-alikes of one defect."""
    found = [path for path in sorted((parts / "test").rglob("*.png")) if path.parent.name != "good"]
    shutil.copy(found[0], tmp_path / "0.png")
    shutil.copy(next((parts / "ground_truth").rglob(f"{found[0].stem}*.png")), tmp_path / "0_mask.png")
    look_alikes(
        tmp_path / "0.png", parts / "test" / "good", tmp_path / "alikes", detector=detector, num_samples=3,
        accelerator="cpu",
    )  # fmt: skip
    return tmp_path / "alikes"


def test_the_kept_samples_are_learned_when_a_store_is_named(detector, parts, alikes, tmp_path) -> None:
    store = SampleStore.open(alikes)
    kept = [str(store.path / record.image_file) for record in store.records if store.is_accepted(record)]
    current = run(detector, missed=alikes)
    about = json.loads((detector / "learned" / "0002.json").read_text())
    assert sorted(row["image"] for row in about["learned"]) == sorted(kept)
    assert {row["role"] for row in about["learned"]} == {"defect"}
    with pytest.raises(ValueError, match=r"`defects` must not hold images that the model has learned, got 1 of 1"):
        calibrate(  # by the very defect that the samples show
            current, parts / "test" / "good", out=tmp_path / "out", model=str(detector / "config.yaml"),
            defects=_alone(tmp_path), false_alarm_rate=0.3, train_normals=parts / "train" / "good", accelerator="cpu",
        )  # fmt: skip


def _alone(folder: Path) -> Path:
    """Return a folder with the defect alone."""
    (folder / "alone").mkdir()
    shutil.copy(folder / "0.png", folder / "alone" / "renamed.png")
    return folder / "alone"


def test_a_store_is_refused_when_its_defect_is_one_the_run_is_tested_on(detector, parts, alikes, tmp_path) -> None:
    tested = tmp_path / "tested" / "bad"
    tested.mkdir(parents=True)
    shutil.copy(tmp_path / "0.png", tested / "7.png")
    config = yaml.safe_load((detector / "config.yaml").read_text())
    base = config["data"]["init_args"]["base"]["init_args"]
    base |= {
        "abnormal_dir": str(tested),
        "normal_test_dir": str(parts / "test" / "good"),
        "test_split_mode": "from_dir",
    }
    (detector / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"`missed` must not hold images that are in the run's test set.*0\.png"):
        run(detector, missed=alikes)


def test_a_store_is_named_when_it_keeps_nothing_or_comes_with_marks(detector, alikes, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"`marks` must be left out, got .*`missed` is a store"):
        run(detector, missed=alikes, marks=tmp_path)
    store = SampleStore.open(alikes)
    store.decide([record.id for record in store.records if record.accepted], accepted=False)
    with pytest.raises(ValueError, match="is a store that keeps no sample"):
        run(detector, missed=alikes)

"""`look_alikes`: more of a real defect, those that a trained detector misses most."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from anomalib.models import Padim
from PIL import Image

from anomalib_synth.cli import main
from anomalib_synth.defects import list_defects
from anomalib_synth.generators import StoredGenerator
from anomalib_synth.images import WhitePoint
from anomalib_synth.learning import missed_samples
from anomalib_synth.learning.missed_samples import TrainedDetector
from anomalib_synth.store import SampleStore
from tests.conftest import save_images
from tests.contract import render_normals
from tests.integration.models import BACKBONE, QUIET, make_engine, make_folder, normalising
from tests.unit.models.small_bundle import make_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from anomalib_synth.calibration.scoring import Item

ARGUMENTS = {**BACKBONE, "pre_trained": True, "n_features": 12}


@pytest.fixture(scope="module")
def trained(parts_root, tmp_path_factory) -> Path:
    """A folder as `anomalib train` leaves it, of a detector that never trains on defects."""
    root = tmp_path_factory.mktemp("trained")
    model = Padim(**ARGUMENTS, pre_processor=normalising(64), **QUIET)
    engine = make_engine(root / "run", [], limit_train_batches=1.0, limit_val_batches=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        engine.fit(model, datamodule=make_folder(parts_root, val_split_mode="same_as_test"))
    config = {"model": {"class_path": "anomalib.models.Padim", "init_args": ARGUMENTS}}
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    (root / "weights" / "lightning").mkdir(parents=True)
    engine.trainer.save_checkpoint(root / "weights" / "lightning" / "model.ckpt")
    shutil.rmtree(root / "run")
    return root


@pytest.fixture(scope="module")
def defects(tmp_path_factory) -> Path:
    """Two types, one image each: a stain and a faint scratch."""
    root = tmp_path_factory.mktemp("defects")
    for number, (family, box, change) in enumerate(
        [("stain", (slice(20, 34), slice(24, 40)), -0.4), ("scratch", (slice(10, 50), slice(30, 33)), 0.15)]
    ):
        image = render_normals(1, 3, 64, 64, seed=30 + number)
        image[:, :, *box] = (image[:, :, *box] + change).clamp(0, 1)
        save_images(root / family, image)
        mask = np.zeros((64, 64), np.uint8)
        mask[box] = 255
        Image.fromarray(mask).save(root / family / "000_mask.png")
    return root


@pytest.fixture
def arguments(parts_root, trained, defects, tmp_path) -> dict[str, object]:
    return {
        "defects": defects, "normals": parts_root / "train" / "good", "detector": trained, "out": tmp_path / "store",
        "num_samples": 6, "accelerator": "cpu",
    }  # fmt: skip


def run(arguments: dict[str, object], **changes: object) -> SampleStore:
    given = {name: value for name, value in {**arguments, **changes}.items() if value is not None}
    main(["look_alikes", *(f"--{name}={value}" for name, value in given.items())])
    return SampleStore.open(given["out"])


def kept(store: SampleStore) -> list[str]:
    return [record.id for record in store.records if store.is_accepted(record)]


class Double:
    """A detector whose score is how bright an image is where its defect is."""

    threshold = 0.5
    digest = "0" * 32
    white_point = WhitePoint()

    def __init__(self, folder: Path, *, accelerator: str = "auto") -> None:
        del folder, accelerator

    def finds(self, score: float) -> bool:
        return self.threshold is not None and score > self.threshold

    def score(self, items: list[Item]) -> None:
        for item in items:
            item.row.score = float(item.image.mean(0)[item.mask[0] > 0].mean())


def test_an_ordinary_store_with_the_scores_is_left_when_the_detector_has_looked(arguments, tmp_path, capsys) -> None:
    store = run(arguments)
    printed = capsys.readouterr().out
    assert len(store.records) == 24
    assert store.verify() == []
    ids = kept(store)
    assert len(ids) == 6
    assert {store.get(sample).family for sample in ids} == {"stain", "scratch"}
    for words in ("of these found", "scratch", "all types", "24 were drawn", "Kept 6 in"):
        assert words in printed
    margins = [verdict["detector_margin"] for verdict in store.judgements.values() if "detector_margin" in verdict]
    assert len(margins) == sum(record.accepted for record in store.records)
    assert len(set(margins)) > len(margins) / 2
    assert len(store.settings["defect_digests"]) == 2
    main(["export", f"--store={store.path}", f"--out={tmp_path / 'export'}"])
    listed = list_defects(tmp_path / "export" / "test")
    assert len(listed) == 6
    assert {defect.kind for defect in listed} == {"mask"}
    served = StoredGenerator(store.path)(render_normals(4, 3, 64, 64), seeds=[1, 2, 3, 4])
    assert served.accepted.all()


def test_scores_are_those_of_a_prediction_when_an_image_is_predicted(arguments, trained, tmp_path) -> None:
    from anomalib.data import PredictDataset
    from anomalib.engine import Engine

    from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint

    store = run(arguments)
    checkpoint = trained / "weights" / "lightning" / "model.ckpt"
    module, _ = load_model(str(trained / "config.yaml"), checkpoint, read_checkpoint(checkpoint))
    drawn = [record for record in store.records if record.accepted]
    for record in drawn[:: max(1, len(drawn) // 6)]:
        engine = Engine(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
        dataset = PredictDataset(store.path / record.image_file)
        (found,) = engine.predict(module, dataset=dataset, ckpt_path=checkpoint)
        assert bool(found.pred_label) == (store.judgements[record.id]["detector_margin"] > 0)


def test_the_missed_ones_are_kept_when_the_score_is_known(arguments, monkeypatch, capsys) -> None:
    monkeypatch.setattr(missed_samples, "TrainedDetector", Double)
    store = run(arguments, defects=arguments["defects"] / "stain", num_samples=5, candidates=6)
    chosen = kept(store)
    by_score = {name: said["detector_score"] for name, said in store.judgements.items() if "detector_score" in said}
    for sample, score in by_score.items():
        record = store.get(sample)
        inside = store.read_mask(record) > 0
        assert score == pytest.approx(store.read_image(record)[inside].mean() / 255, abs=1e-3)
    left = [score for sample, score in by_score.items() if sample not in chosen]
    assert min(by_score, key=by_score.get) in chosen
    assert np.mean([by_score[sample] for sample in chosen]) < np.quantile(left, 0.5)
    table = capsys.readouterr().out
    found = sum(by_score[sample] > 0.5 for sample in chosen)
    assert f"{found} ({found / 5:.0%})" in table


def test_no_margin_is_said_when_the_detector_has_no_threshold(arguments, monkeypatch, capsys) -> None:
    monkeypatch.setattr(missed_samples, "TrainedDetector", type("Open", (Double,), {"threshold": None}))
    store = run(arguments)
    ranks = sorted(said["detector_rank"] for said in store.judgements.values() if "detector_rank" in said)
    assert (ranks[0], ranks[-1]) == (0, 1)
    assert "has no threshold" in capsys.readouterr().out


def test_the_choice_is_the_same_when_there_are_more_workers_or_it_is_run_again(arguments, tmp_path) -> None:
    one = run(arguments)
    said = (one.path / "filter.json").read_bytes()
    two = run(arguments, workers=2, out=tmp_path / "two")
    assert kept(one) == kept(two)
    assert (run(arguments).path / "filter.json").read_bytes() == said


def test_it_goes_on_when_it_was_stopped_before_the_scores(arguments, monkeypatch, tmp_path) -> None:
    whole = run(arguments, out=tmp_path / "whole")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainedDetector, "score", stop)
        with pytest.raises(SystemExit) as stopped:
            run(arguments)
    assert stopped.value.code == 130
    assert not (arguments["out"] / "filter.json").exists()
    assert kept(run(arguments)) == kept(whole)


def test_a_finished_store_grows_when_more_are_asked_for(arguments) -> None:
    run(arguments)
    store = run(arguments, num_samples=8)
    assert len(store.records) == 32
    assert len(kept(store)) == 8
    store = run(arguments, num_samples=4)
    assert len(kept(store)) == 4
    assert {store.get(sample).index < 16 for sample in kept(store)} == {True}


@pytest.mark.filterwarnings("ignore:The models never saw")
def test_some_are_drawn_anew_when_there_are_weights(arguments, tmp_path) -> None:
    bundle = make_bundle(tmp_path / "bundle").path
    store = run(arguments, weights=bundle)
    edited = ["variation" in record.params for record in store.records if record.accepted]
    assert any(edited)
    assert not all(edited)
    assert {len(record.weights_hash) for record in store.records} == {32}


def test_marks_are_read_where_they_are_named(arguments, defects, tmp_path) -> None:
    moved = tmp_path / "moved"
    for family in ("stain", "scratch"):
        (moved / "images" / family).mkdir(parents=True)
        (moved / "marks" / family).mkdir(parents=True)
        shutil.copy(defects / family / "000.png", moved / "images" / family)
        shutil.copy(defects / family / "000_mask.png", moved / "marks" / family)
    store = run(arguments, defects=moved / "images", marks=moved / "marks")
    assert len(kept(store)) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detector": None}, "`detector` must name a trained detector .*`anomalib-synth generate --generator"),
        ({"detector": "nowhere"}, "`detector` must be a folder of `anomalib train`"),
        ({"defects": "nowhere"}, "`defects` must be a folder with images of real defects, got 'nowhere'"),
        ({"marks": "nowhere"}, "`marks` must be a folder with masks of the defects, got 'nowhere'"),
        ({"normals": "nowhere"}, "nowhere"),
        ({"weights": "nowhere"}, "'nowhere.bundle.json' .*is no bundle|is no bundle"),
        ({"num_samples": 0}, "`num_samples` must be >= 1, got 0"),
        ({"candidates": 0}, "`candidates` must be >= 1, got 0"),
        ({"seed": -1}, "`seed` must be >= 0, got -1"),
        ({"image_size": 4}, "`image_size`"),
    ],
)
def test_nothing_is_written_when_an_argument_is_bad(arguments, changes, message) -> None:
    with pytest.raises(SystemExit, match=f"anomalib-synth: .*{message}"):
        run(arguments, **changes)
    assert not (arguments["out"] / "store.json").exists()


def test_marks_are_named_when_a_defect_is_not_outlined(arguments, defects, tmp_path) -> None:
    shutil.copytree(defects / "stain", tmp_path / "unmarked" / "stain", ignore=shutil.ignore_patterns("*_mask.png"))
    with pytest.raises(SystemExit, match=r"`marks` must be given: .*anomalib-synth review --images"):
        run(arguments, defects=tmp_path / "unmarked")


def test_the_most_common_reason_is_named_when_no_look_alike_is_visible(arguments, parts_root, tmp_path) -> None:
    """A defect that is no different from its surroundings."""
    save_images(tmp_path / "same" / "stain", torch.full((1, 3, 64, 64), 0.5))
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "same" / "stain" / "000_mask.png")
    save_images(tmp_path / "flat", torch.full((3, 3, 64, 64), 0.5))
    with pytest.raises(SystemExit, match=r"gave no visible look-alike .*most often: stain: nothing changed visibly"):
        run(arguments, defects=tmp_path / "same", normals=tmp_path / "flat")


def test_the_facts_of_the_choice_name_no_place_when_they_are_kept(arguments, trained) -> None:
    store = run(arguments)
    facts = json.loads((store.path / "filter.json").read_text())["facts"]
    assert facts == {
        "look_alikes": 6, "detector": TrainedDetector(trained).digest, "threshold": facts["threshold"],
    }  # fmt: skip
    assert str(trained) not in (store.path / "filter.json").read_text()

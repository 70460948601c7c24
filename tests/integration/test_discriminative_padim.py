"""DiscriminativePadim in anomalib: training, honesty, checkpoints, callbacks, export."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.deploy import ExportType, TorchInferencer
from lightning.pytorch import Callback, seed_everything
from PIL import Image as PILImage
from PIL import ImageOps
from torchvision.tv_tensors import Image, Mask

from anomalib_synth.callbacks import (
    QualityWeightingCallback,
    RealDefectsCallback,
    SynthesisCallback,
    TwoStageTrainingCallback,
)
from anomalib_synth.callbacks.random_state import capture_random_state, restore_random_state
from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.detectors.discriminative_padim.cache import digest_values
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.seeding import image_key
from anomalib_synth.models import DiscriminativePadim
from tests.contract import render_normals
from tests.integration.models import fit, make_engine, make_folder, normalising

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _random_state() -> Iterator[None]:
    """Runs are seeded here; other tests should not notice."""
    before = capture_random_state()
    yield
    restore_random_state(before)


def make_model(**options: Any) -> DiscriminativePadim:
    settings = {"scales": [32, 64], "evaluator": False, "visualizer": False, "pre_processor": normalising(64)} | options
    return DiscriminativePadim(**settings)


def make_callback(**options: Any) -> SynthesisCallback:
    settings = {"probability": 0.7, "grid_every_n_epochs": 0} | options
    return SynthesisCallback(RuleBasedGenerator(families=["stain", "cutout"]), **settings)


def train(root: Path, tmp_path: Path, callbacks: list[Callback], **options: Any) -> tuple[DiscriminativePadim, Any]:
    """Train a seeded model for two epochs of two batches."""
    seed_everything(3, verbose=False)
    model = make_model(**options.pop("model", {}))
    return model, fit(model, root, tmp_path, callbacks, **{"max_epochs": 2, "limit_val_batches": 0} | options)


@pytest.fixture(scope="module")
def trained(parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[DiscriminativePadim, Path]:
    """A model after four steps, and its checkpoint."""
    folder = tmp_path_factory.mktemp("discriminative_padim")
    model, engine = train(parts_root, folder, [make_callback()])
    path = folder / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    return model.eval(), path


def test_training_moves_the_heads_and_nothing_else(parts_root, tmp_path) -> None:
    torch.manual_seed(0)
    model = make_model()
    before = {name: value.clone() for name, value in model.named_parameters()}
    fit(model, parts_root, tmp_path, [make_callback()], limit_val_batches=0)
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name.split(".")[3] for name in trainable} == {"feature_head", "residual_head"}
    assert not [name for name in trainable if torch.equal(model.get_parameter(name), before[name])]
    assert bool(model.model.has_heads)


def test_same_seed_gives_the_same_weights(trained, parts_root, tmp_path) -> None:
    twin, _ = train(parts_root, tmp_path, [make_callback()])
    for name, value in trained[0].state_dict().items():
        assert torch.equal(value.nan_to_num(0), twin.state_dict()[name].nan_to_num(0)), name


def test_cache_on_disk_or_too_small_for_all_gives_the_same_weights(trained, parts_root, tmp_path) -> None:
    for memory, disk in ((0, 64), (1, 0)):
        twin, _ = train(parts_root, tmp_path, [make_callback()], model={"cache_memory": memory, "cache_disk": disk})
        for name, value in trained[0].model.branches.state_dict().items():
            assert torch.equal(value, twin.model.branches.state_dict()[name]), name


def test_cache_too_small_for_the_score_is_refused(parts_root, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"too small for any. Raise `cache_memory` or `cache_disk`"):
        train(parts_root, tmp_path, [make_callback()], model={"cache_memory": 0, "cache_disk": 0})


def test_features_of_samples_that_come_again_are_computed_once(parts_root, tmp_path, monkeypatch) -> None:
    from anomalib_synth.detectors.discriminative_padim.torch_model import ScaleBranch

    computed = []
    original = ScaleBranch.raw_features
    monkeypatch.setattr(
        ScaleBranch, "raw_features", lambda self, x: computed.append(digest_values(x)) or original(self, x)
    )
    options = {"limit_train_batches": 1.0, "max_epochs": 4}
    train(parts_root, tmp_path, [make_callback(distinct_samples=8)], **options)
    assert len(computed) == len(set(computed)) * 2  # two scales
    once = len(computed)
    computed.clear()
    train(parts_root, tmp_path, [make_callback()], **options)
    assert len(computed) > 1.5 * once


class Watch(Callback):
    """Looks at the normals of a run."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.normals = pl_module._training._normals


def test_held_out_normals_train_no_head(parts_root, tmp_path) -> None:
    model = make_model()
    look, losses = [], []

    def step(batch: ImageBatch, *args: Any) -> Any:
        training = model._training
        held = [
            bool(training._measured.held_out[training._normals.find(each, digest_values(each))])
            for each in batch.source.as_subclass(torch.Tensor)
        ]
        values = training.sample_losses(batch, step=0)
        look.extend(held)
        losses.extend(values.tolist())
        return {"loss": values.mean()}

    model.training_step = step
    fit(model, parts_root, tmp_path, [make_callback()], limit_train_batches=1.0, limit_val_batches=0)
    assert 0 < sum(look) < len(look)
    assert all((loss == 0) == held for loss, held in zip(losses, look, strict=True))


def test_without_defects_it_is_the_normality_alone_and_says_so(parts_root, tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        model, engine = train(parts_root, tmp_path, [], max_epochs=9)
    assert "DiscriminativePadim is its normality alone" in caplog.text
    assert engine.trainer.current_epoch == 1
    assert not bool(model.model.has_heads)
    assert bool((model.model.map_weights[:, 1:] == 0).all())
    assert engine.trainer.global_step == 1
    images = torch.rand(2, 3, 64, 64)
    before = model.eval().model(images).anomaly_map
    for branch in model.model.branches:
        torch.nn.init.normal_(branch.feature_head[-1].weight)
    assert torch.equal(model.model(images).anomaly_map, before)


def test_without_defects_the_threshold_is_set_and_a_checkpoint_is_there(parts_root, tmp_path) -> None:
    options = {"val_check_interval": 800, "check_val_every_n_epoch": None, "max_steps": 800, "max_epochs": -1}
    model, _ = train(parts_root, tmp_path, [], limit_val_batches=1.0, limit_train_batches=1.0, **options)
    assert bool(model.post_processor.image_threshold.isfinite())
    assert list(tmp_path.rglob("*.ckpt"))


def test_defects_that_come_late_still_train_the_heads(parts_root, tmp_path) -> None:
    class Late(SynthesisCallback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            self.probability = 1.0 if trainer.current_epoch else 0.0
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    model, engine = train(parts_root, tmp_path, [Late(RuleBasedGenerator(["stain"]), grid_every_n_epochs=0)])
    assert engine.trainer.current_epoch == 2
    assert bool(model.model.has_heads)


def test_a_run_in_which_nothing_was_drawn_says_so(parts_root, tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        model, _ = train(parts_root, tmp_path, [make_callback(probability=0.0)])
    assert "Raise the `probability` of SynthesisCallback" in caplog.text
    assert not bool(model.model.has_heads)


def test_checkpoint_of_the_first_step_has_a_score(parts_root, tmp_path) -> None:
    from anomalib.callbacks import ModelCheckpoint

    save = ModelCheckpoint(dirpath=tmp_path / "early", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    train(parts_root, tmp_path, [make_callback(probability=1.0), save])
    images = torch.rand(2, 3, 64, 64)
    for step in (1, 3):
        path = tmp_path / "early" / f"step={step}.ckpt"
        loaded = DiscriminativePadim.load_from_checkpoint(path, evaluator=False, visualizer=False).eval()
        assert bool(loaded.model.has_heads)
        with torch.no_grad():
            assert float(loaded(images).anomaly_map.std()) > 0


def test_a_fit_that_fails_at_the_normals_leaves_an_unfitted_model(parts_root, tmp_path, monkeypatch) -> None:
    from anomalib_synth.detectors.discriminative_padim import fitting

    model, images = make_model(), []

    def fail(image: torch.Tensor) -> bytes:
        images.append(image)
        if len(images) == 5:
            raise OSError
        return digest_values(image)

    monkeypatch.setattr(fitting, "digest_values", fail)
    with pytest.raises(OSError):  # noqa: PT011  (made here)
        fit(model, parts_root, tmp_path, [make_callback()], limit_val_batches=0)
    assert not model.model.is_fitted
    fit(model, parts_root, tmp_path, [make_callback()], limit_val_batches=0)
    assert model.model.is_fitted
    assert all(bool(branch.gaussian.whitening.any()) for branch in model.model.branches)


def test_augmented_images_of_held_out_normals_train_no_head(parts_root, tmp_path) -> None:
    from torchvision.transforms.v2 import RandomHorizontalFlip

    model, held, losses = make_model(), [], []

    def step(batch: ImageBatch, *args: Any) -> Any:
        training = model._training
        values = training.sample_losses(batch, step=0)
        held.extend(
            bool(training._measured.held_out[training._normals.find_name(image_key(path))]) for path in batch.image_path
        )
        losses.extend(values.tolist())
        return {"loss": values.mean()}

    model.training_step = step
    engine = make_engine(tmp_path, [make_callback()], limit_train_batches=1.0, limit_val_batches=0, max_epochs=3)
    engine.fit(model, datamodule=make_folder(parts_root, train_augmentations=RandomHorizontalFlip(0.5)))
    assert 0 < sum(held) < len(held)
    assert all((loss == 0) == out for loss, out in zip(losses, held, strict=True))


def test_images_a_transform_drew_on_are_no_normals(parts_root, tmp_path) -> None:
    from anomalib_synth.transforms import SyntheticAnomaly

    watch = Watch()
    model = make_model()
    data = make_folder(
        parts_root, mask_dir="ground_truth/spot",
        train_augmentations=SyntheticAnomaly(RuleBasedGenerator(["cutout"]), probability=0.5),
    )  # fmt: skip
    engine = make_engine(tmp_path, [SynthesisCallback(None), watch], limit_train_batches=1.0, limit_val_batches=0)
    engine.fit(model, datamodule=data)
    assert 3 <= len(watch.normals) < 10  # those that nothing was drawn on when they were looked at
    assert bool(model.model.has_heads)


def test_other_normals_are_refused(trained, parts_root, tmp_path) -> None:
    model = copy.deepcopy(trained[0])
    with pytest.raises(ValueError, match="Gaussians of other normal images"):
        make_engine(tmp_path, [make_callback()]).fit(model, datamodule=make_folder(parts_root, val_split_ratio=0.5))


def test_two_normals_are_too_few(parts_root, tmp_path) -> None:
    with pytest.raises(ValueError, match="at least 3 different normal images to train on, got 2"):
        make_engine(tmp_path, []).fit(make_model(), datamodule=make_folder(parts_root, val_split_ratio=0.85))


def test_low_precision_is_refused(parts_root, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"`trainer.precision` must be 32-true, got bf16-mixed"):
        train(parts_root, tmp_path, [make_callback()], precision="bf16-mixed")


def test_resuming_for_longer_is_refused(parts_root, tmp_path) -> None:
    _, engine = train(parts_root, tmp_path, [make_callback()], max_epochs=1)
    engine.trainer.save_checkpoint(tmp_path / "short.ckpt")
    longer = make_engine(tmp_path, [make_callback()], max_epochs=3, limit_val_batches=0)
    with pytest.raises(ValueError, match="a run of 2 steps cannot be resumed as one of 6"):
        longer.fit(make_model(), datamodule=make_folder(parts_root), ckpt_path=tmp_path / "short.ckpt")


def test_normality_finds_the_defects_without_training(parts_root, tmp_path) -> None:
    model, engine = train(parts_root, tmp_path, [])
    batches = engine.predict(model, datamodule=make_folder(parts_root))
    labels = torch.cat([batch.gt_label for batch in batches])
    scores = torch.cat([batch.pred_score.flatten() for batch in batches])
    assert float(scores[labels.bool()].min()) > float(scores[~labels.bool()].max())


def test_scores_grow_slowly_when_defects_are_gross(trained) -> None:
    network = trained[0].model.eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        (normality, defect), found = network.group_maps(network.see(images)), network(images)
        score = network.standardise_maximum(normality, 0) + network.standardise_maximum(defect, 1)
    np.testing.assert_allclose(np.sinh(found.anomaly_map), normality + network.trust * defect, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.sinh(found.pred_score), score, rtol=1e-3, atol=1e-4)


def test_checkpoint_predicts_the_same(trained) -> None:
    model, path = trained
    loaded = DiscriminativePadim.load_from_checkpoint(path, evaluator=False, visualizer=False).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = model(images), loaded(images)
    assert torch.equal(expected.anomaly_map, found.anomaly_map)
    assert torch.equal(expected.pred_score, found.pred_score)


@pytest.mark.parametrize("real", ["none", "masks", "unmarked"])
def test_resumed_run_equals_the_whole_run(parts_root, tmp_path, real) -> None:
    from anomalib.callbacks import ModelCheckpoint

    for name in ("000", "001"):  # mirrored: the folder's test set has them as they are
        for part, end in (("test", ""), ("ground_truth", "_mask")) if real == "masks" else (("test", ""),):
            target = tmp_path / "defects" / part / "spot" / f"{name}{end}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            ImageOps.mirror(PILImage.open(parts_root / part / "spot" / f"{name}{end}.png")).save(target)

    def run(name: str, checkpoint: Path | None = None, seed: int = 3) -> DiscriminativePadim:
        seed_everything(seed, verbose=False)
        model = make_model()
        save = ModelCheckpoint(dirpath=tmp_path / name, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
        synthesis = make_callback(distinct_samples=12)
        two_stage = TwoStageTrainingCallback(RuleBasedGenerator(["scratch"]), switch=2, switch_unit="epoch")
        own = [] if real == "none" else [RealDefectsCallback(tmp_path / "defects" / "test", share=0.5)]
        engine = make_engine(tmp_path, [*own, synthesis, save, two_stage], max_epochs=4, limit_val_batches=0)
        engine.fit(model, datamodule=make_folder(parts_root), ckpt_path=checkpoint)
        assert model.real_masks == (2 if real == "masks" else 0)
        trusts.append(float(model.model.trust))
        return model

    trusts: list[float] = []
    whole = run("whole").state_dict()
    scale = trusts[0] / (1.4 if real == "masks" else 1)  # without real masks never above one
    assert 0 < scale <= 1
    for epoch in (0, 1, 2):
        twin = run("twin", tmp_path / "whole" / f"epoch={epoch}.ckpt", seed=99).state_dict()
        for name, value in whole.items():
            assert torch.equal(value.nan_to_num(0), twin[name].nan_to_num(0)), (epoch, name)


def test_renewed_optimisers_get_a_cycle_of_what_is_left(parts_root, tmp_path) -> None:
    two_stage = TwoStageTrainingCallback(RuleBasedGenerator(["scratch"]), switch=0.5)
    _, engine = train(parts_root, tmp_path, [make_callback(), two_stage], max_epochs=4)
    (config,) = engine.trainer.lr_scheduler_configs
    assert config.scheduler.lr_lambdas[0].steps == 4
    assert config.scheduler.get_last_lr()[0] < 1e-8


def test_quality_weights_the_samples(parts_root, tmp_path) -> None:
    class Grades(Callback):
        def __init__(self, low: float) -> None:
            self.low = low

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            batch.quality = torch.where(torch.arange(len(batch.image)) % 2 == 0, 1.0, self.low)

    weights = []
    for low in (1.0, 0.1):
        callbacks = [make_callback(probability=1.0), Grades(low), QualityWeightingCallback(effective_share=0.6)]
        model, _ = train(parts_root, tmp_path, callbacks, max_epochs=8)
        weights.append(model.model.branches[0].feature_head[0].weight.detach())
    plain, _ = train(parts_root, tmp_path, [make_callback(probability=1.0)], max_epochs=8)
    assert torch.equal(weights[0], plain.model.branches[0].feature_head[0].weight)
    assert not torch.equal(weights[0], weights[1])


def test_trains_on_a_synthetic_datamodule_without_a_callback(parts_root, tmp_path) -> None:
    data = SyntheticDataModule(
        make_folder(parts_root), RuleBasedGenerator(families=["stain"]), splits=["train"], anomalous_ratio=0.8, seed=0,
        root=tmp_path / "kept",
    )  # fmt: skip
    model = make_model()
    make_engine(tmp_path, []).fit(model, datamodule=data)
    assert bool(model.model.has_heads)


def test_real_defects_in_the_batch_train_the_heads(parts_root, tmp_path) -> None:
    class RealDefects(Callback):
        """The labels of a datamodule whose training set holds defects."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            mask = torch.zeros(len(batch.image), *batch.image.shape[-2:], dtype=torch.bool)
            mask[0, 16:48, 16:48] = True
            batch.image = Image(torch.where(mask[:, None], 1 - batch.image, batch.image))
            batch.gt_mask, batch.gt_label = Mask(mask), mask.flatten(1).any(1)

    model, _ = train(parts_root, tmp_path, [RealDefects()])
    assert bool(model.model.has_heads)


def test_validation_sees_the_score_of_its_moment(parts_root, tmp_path) -> None:
    class Compare(Callback):
        scores: list[torch.Tensor] = []  # noqa: RUF012

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
            self.scores.append(outputs.pred_score.clone())

    compare = Compare()
    model, _ = train(parts_root, tmp_path, [make_callback(), compare], limit_val_batches=1, max_epochs=1)
    folder = make_folder(parts_root)
    folder.setup()
    batch = next(iter(folder.val_dataloader()))
    with torch.no_grad():
        again = model.eval().model(normalising(64).transform(batch.image)).pred_score
    assert len(compare.scores) == 1
    torch.testing.assert_close(compare.scores[0], again)


def test_masks_begin_no_higher_than_good_images_reach(parts_root, tmp_path, monkeypatch) -> None:
    base = make_folder(parts_root, val_split_mode="from_train")
    datamodule = SyntheticDataModule(base, RuleBasedGenerator(["cutout"]), splits=["val"], root=tmp_path / "kept")
    seed_everything(3, verbose=False)
    model = make_model()
    metric = model.post_processor._pixel_threshold_metric
    monkeypatch.setattr(metric, "compute", lambda: torch.tensor(1e3))  # as where drawn defects are gross
    make_engine(tmp_path, [make_callback()], max_epochs=2, limit_val_batches=1.0).fit(model, datamodule=datamodule)
    model.eval()
    highest = []
    for batch in datamodule.val_dataloader():
        with torch.inference_mode():
            maps = model.model(model.pre_processor.transform(batch.image)).anomaly_map.flatten(1).amax(1)
        highest += maps[~batch.gt_label.bool()].tolist()
    assert float(model.post_processor.pixel_threshold) == pytest.approx(max(highest))


def test_a_model_can_be_copied_and_trained_after_a_run_that_broke_off(parts_root, tmp_path) -> None:
    class Stops(Callback):
        def on_train_batch_end(self, *args, **options) -> None:
            raise KeyError

    model = make_model(cache_memory=0)
    with pytest.raises(KeyError):
        fit(model, parts_root, tmp_path, [make_callback(), Stops()], limit_val_batches=0)
    assert copy.deepcopy(model)._training is None
    fit(model, parts_root, tmp_path, [make_callback()], limit_val_batches=0)
    assert bool(model.model.has_heads)


def test_images_of_another_size_are_refused(trained) -> None:
    with pytest.raises(ValueError, match="trained on images of 64 x 64 pixels, got 96 x 64"):
        trained[0].model(torch.rand(1, 3, 96, 64))


def test_an_untrained_model_cannot_predict() -> None:
    with pytest.raises(RuntimeError, match="not fitted"):
        make_model().eval()(torch.rand(1, 3, 64, 64))


def test_defects_without_masks_are_refused(trained, parts_root, tmp_path) -> None:
    class Labels(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            batch.gt_label = torch.ones(len(batch.image), dtype=torch.bool)

    with pytest.raises(ValueError, match="DiscriminativePadim needs `gt_mask` where"):
        train(parts_root, tmp_path, [Labels()])


def test_a_run_without_end_is_refused(parts_root, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"Set `trainer.max_steps`"):
        train(parts_root, tmp_path, [make_callback()], max_epochs=-1)


@pytest.mark.parametrize(
    ("name", "value"), [("scales", []), ("scales", [16]), ("scales", [64, 64]), ("channels", 0), ("learning_rate", 0)]
)
def test_arguments_out_of_range_are_refused(name, value) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must"):
        DiscriminativePadim(**{name: value})


def test_wide_backbones_are_projected(parts_root, tmp_path) -> None:
    model, _ = train(parts_root, tmp_path, [make_callback()], model={"channels": 24, "pre_trained": False})
    assert model.model.branches[0].gaussian.mean.shape[1] == 24


@pytest.mark.slow
def test_exports_predict_the_same(trained, tmp_path, monkeypatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    model, _ = trained
    images = render_normals(12, 3, 64, 64, seed=1)[:2]  # training images, one with a defect: scores as in use
    images[1, :, 20:34, 24:40] += 0.05
    with torch.no_grad():
        expected = model(images)
    engine = make_engine(tmp_path, [])

    path = engine.export(model, ExportType.ONNX, export_root=tmp_path)
    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {session.get_inputs()[0].name: images.numpy()}), strict=True))

    with monkeypatch.context() as patch:
        patch.setattr(model, "to_onnx", lambda *_, **__: path)  # tracing takes most of the time, and gives this file
        path = engine.export(model, ExportType.OPENVINO, export_root=tmp_path)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(images.numpy())
    served = {output.get_any_name(): results[output] for output in compiled.outputs}
    for name in ("anomaly_map", "pred_score"):
        for output in (found, served):
            tolerance = 1e-4 * float(expected.anomaly_map.max() - expected.anomaly_map.min())
            np.testing.assert_allclose(output[name], getattr(expected, name).numpy(), atol=tolerance, rtol=0)

    path = engine.export(model, ExportType.TORCH, export_root=tmp_path)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")  # anomalib's torch inferencer unpickles
    prediction = TorchInferencer(path, device="cpu").predict(images)
    for name in ("anomaly_map", "pred_score"):
        assert torch.equal(getattr(prediction, name).flatten(), getattr(expected, name).flatten())

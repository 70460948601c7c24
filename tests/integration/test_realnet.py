"""RealNet in anomalib: training, checkpoints, prediction, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from anomalib.deploy import ExportType, TorchInferencer
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import RealNet
from tests.integration.models import SMALL, fit, make_engine, make_folder, make_realnet

if TYPE_CHECKING:
    from anomalib.data import Folder


def make_callback() -> SynthesisCallback:
    return SynthesisCallback(RuleBasedGenerator(families=["stain", "cutpaste"]), probability=0.7, grid_every_n_epochs=0)


@pytest.fixture(scope="module")
def trained(parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RealNet, Path]:
    """A model after two steps, and its checkpoint."""
    folder = tmp_path_factory.mktemp("realnet")
    torch.manual_seed(0)
    model = make_realnet()
    engine = fit(model, parts_root, folder, [make_callback()])
    path = folder / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    return model, path


def test_training_fits_the_selection_and_moves_only_the_trainable_parts(parts_root, tmp_path) -> None:
    model = make_realnet()
    before = {name: value.clone() for name, value in model.named_parameters()}
    engine = fit(model, parts_root, tmp_path, [make_callback()], max_epochs=2)  # layers that start at zero block two
    assert model.model.selector.is_fitted
    assert model.model.selector.index_2.unique().numel() == 16
    assert engine.trainer.callback_metrics["train_loss"].isfinite()
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert not still - frozen
    assert {name.split(".")[1] for name in frozen} == {"backbone"}


def test_backbone_has_pretrained_weights_after_training(trained) -> None:
    import timm

    options = {"features_only": True, "out_indices": (1, 2, 3)}
    pretrained = timm.create_model("efficientnet_lite0_bundled", pretrained=True, **options).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(trained[0].model.backbone(images), pretrained(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_loss_falls_on_a_small_set(parts_root, tmp_path) -> None:
    torch.manual_seed(0)
    model = make_realnet(learning_rate=0.003)
    losses = []
    step = model.training_step
    model.training_step = lambda batch, *args: losses.append(step(batch)) or losses[-1]
    fit(model, parts_root, tmp_path, [make_callback()], max_epochs=10, limit_train_batches=1.0, limit_val_batches=0)
    values = [float(loss["loss"].detach()) for loss in losses]
    assert np.mean(values[-4:]) < 0.8 * np.mean(values[:4])


def test_checkpoint_predicts_the_same_and_resumes(trained, parts_root, tmp_path) -> None:
    model, path = trained
    loaded = RealNet.load_from_checkpoint(path, evaluator=False, visualizer=False).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = model.eval()(images), loaded(images)
    assert torch.equal(expected.anomaly_map, found.anomaly_map)
    assert expected.anomaly_map.shape == (2, 1, 64, 64)
    assert bool(((expected.pred_score >= 0) & (expected.pred_score <= 1)).all())
    resumed = make_realnet()
    resumed.model.backbone.load_weights = None  # a resumed run must not read the weights again
    engine = make_engine(tmp_path, [make_callback()], max_epochs=2)
    engine.fit(resumed, datamodule=make_folder(parts_root), ckpt_path=path)
    assert torch.equal(resumed.model.selector.index_0, model.model.selector.index_0)


def test_predict_through_the_engine(trained, parts_root, tmp_path) -> None:
    model, _ = trained
    predictions = make_engine(tmp_path, []).predict(model, data_path=parts_root / "test" / "spot")
    assert len(predictions) == 4
    assert predictions[0].anomaly_map.shape[-2:] == (64, 64)


def test_trains_on_a_synthetic_datamodule_without_a_callback(parts_root, tmp_path) -> None:
    data = SyntheticDataModule(
        make_folder(parts_root), RuleBasedGenerator(families=["stain"]), splits=["train"], anomalous_ratio=0.8, seed=0,
        root=tmp_path / "kept",
    )  # fmt: skip
    model = make_realnet()
    seen, step = [], model.training_step
    model.training_step = lambda batch, *args: seen.append(batch) or step(batch)
    make_engine(tmp_path, []).fit(model, datamodule=data)
    assert model.model.selector.is_fitted
    for batch in seen:
        outside = (~batch.gt_mask)[:, None].expand_as(batch.image)
        assert float(batch.source.min()) < 0, "source must be normalised like the image"
        assert torch.equal(
            batch.source.as_subclass(torch.Tensor)[outside], batch.image.as_subclass(torch.Tensor)[outside]
        )


class Persistent(LightningDataModule):
    """A folder whose loader keeps its workers."""

    def __init__(self, base: Folder) -> None:
        super().__init__()
        self.base, self.name, self.category = base, base.name, base.category

    def setup(self, stage: str | None = None) -> None:
        self.base.trainer = self.trainer
        self.base.setup(stage)

    def train_dataloader(self) -> DataLoader:
        data = self.base.train_data
        return DataLoader(data, 4, collate_fn=data.collate_fn, num_workers=1, persistent_workers=True)


def test_selection_takes_no_batch_from_the_first_epoch(parts_root, tmp_path) -> None:
    model = make_realnet()
    engine = make_engine(tmp_path, [make_callback()], limit_train_batches=1.0, limit_val_batches=0)
    engine.fit(model, datamodule=Persistent(make_folder(parts_root)))
    assert engine.trainer.global_step == engine.trainer.num_training_batches == 3


def test_a_second_fit_keeps_the_selection(parts_root, tmp_path) -> None:
    model = make_realnet()
    fit(model, parts_root, tmp_path, [make_callback()])
    before = {name: value.clone() for name, value in model.model.selector.state_dict().items()}
    fit(model, parts_root, tmp_path, [make_callback()])
    assert all(torch.equal(value, before[name]) for name, value in model.model.selector.state_dict().items())


def test_synthesis_that_draws_nothing_is_told_apart(parts_root, tmp_path) -> None:
    callback = SynthesisCallback(RuleBasedGenerator(), probability=0.0, grid_every_n_epochs=0)
    with pytest.raises(ValueError, match=r"none of the first 8 training images has one. Raise its `probability`"):
        fit(make_realnet(), parts_root, tmp_path, [callback])


@pytest.mark.slow
def test_train_predict_and_export_through_the_command_line(parts_root, tmp_path) -> None:
    from anomalib.cli.cli import AnomalibCLI

    root = Path(__file__).parents[2]
    data = ["--data=anomalib.data.Folder", "--data.name=part", f"--data.root={parts_root}", "--data.num_workers=0"]
    data += ["--data.normal_dir=train/good", "--data.val_split_mode=from_train", "--data.test_split_mode=none"]
    model = ["--model=anomalib_synth.models.RealNet", "--model.feature_dims=[8,8,16]", "--model.residual_dims=[8,8]"]
    AnomalibCLI(
        args=["fit", *model, *data, "--config", str(root / "configs/synthesis/rule_based.yaml"),
              "--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu",
              "--trainer.enable_progress_bar=false", "--trainer.logger=false", f"--default_root_dir={tmp_path}"]
    )  # fmt: skip
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    AnomalibCLI(
        args=["predict", *model, f"--data={parts_root / 'test' / 'spot'}", f"--ckpt_path={checkpoint}",
              f"--default_root_dir={tmp_path}", "--trainer.accelerator=cpu"]
    )  # fmt: skip
    assert len(list(tmp_path.rglob("images/**/*.png"))) == 4
    AnomalibCLI(
        args=["export", *model, "--export_type=torch", f"--ckpt_path={checkpoint}", f"--default_root_dir={tmp_path}"]
    )
    assert list(tmp_path.rglob("*.pt"))


def test_training_without_synthesis_says_what_to_add(parts_root, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"images has one. Add `anomalib_synth.callbacks.SynthesisCallback`"):
        fit(make_realnet(), parts_root, tmp_path, [])


def test_selection_leaves_global_random_state_alone(parts_root, tmp_path) -> None:
    orders = []
    for fitted in (False, True):
        torch.manual_seed(0)
        model = make_realnet()
        if fitted:
            for level, kept in enumerate(SMALL["feature_dims"]):
                getattr(model.model.selector, f"index_{level}").copy_(torch.arange(kept))
        order, step = [], model.training_step
        model.training_step = lambda batch, *args, order=order, step=step: order.extend(batch.image_path) or step(batch)
        torch.manual_seed(1)
        fit(model, parts_root, tmp_path, [make_callback()])
        orders.append(order)
    assert orders[0] == orders[1]


def test_an_untrained_model_cannot_predict() -> None:
    with pytest.raises(RuntimeError, match="not fitted"):
        make_realnet().eval()(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    "name", ["reconstruction_width", "reconstruction_blocks", "selection_batches", "learning_rate"]
)
def test_sizes_must_be_positive(name) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be > 0, got 0"):
        RealNet(**{name: 0})


@pytest.mark.slow
def test_exports_predict_the_same(trained, tmp_path, monkeypatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    model, _ = trained
    model.eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
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
            np.testing.assert_allclose(output[name], getattr(expected, name).numpy(), atol=1e-4, rtol=0)

    path = engine.export(model, ExportType.TORCH, export_root=tmp_path)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")  # anomalib's torch inferencer unpickles
    prediction = TorchInferencer(path, device="cpu").predict(images)
    for name in ("anomaly_map", "pred_score"):
        assert torch.equal(getattr(prediction, name).flatten(), getattr(expected, name).flatten())

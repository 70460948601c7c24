"""QualityWeightingCallback in the training loops of anomalib's models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from anomalib import LearningType
from anomalib.data import InferenceBatch
from anomalib.models import AnomalibModule, Draem, Padim
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from anomalib_synth.callbacks import QualityWeightingCallback, SynthesisCallback
from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.host.loss_sites import find_losses
from anomalib_synth.losses import QualityWeights, WeightedLoss
from tests.integration.models import (
    QUIET,
    fit,
    make_draem,
    make_dsr,
    make_engine,
    make_folder,
    make_glass,
    make_realnet,
    make_supersimplenet,
    make_uninet,
    resize_only,
)

if TYPE_CHECKING:
    from pathlib import Path


class OwnModel(AnomalibModule):
    """A model of one's own: it scores an image by its brightness, and hands over the loss of each sample."""

    learns_from_labels = True

    class Mean(nn.Module):
        def forward(self, losses: torch.Tensor) -> torch.Tensor:
            return losses.mean()

    def __init__(self) -> None:
        super().__init__(pre_processor=resize_only(), **QUIET)
        self.model = nn.Linear(3, 1)
        self.sample_reduction = self.Mean()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images.as_subclass(torch.Tensor).mean((2, 3)))[:, 0]

    def training_step(self, batch, *args, **kwargs):
        losses = nn.functional.binary_cross_entropy_with_logits(
            self(batch.image), batch.gt_label.float(), reduction="none"
        )
        return {"loss": self.sample_reduction(losses)}

    def validation_step(self, batch, *args, **kwargs):
        scores = self(batch.image)
        assert torch.equal(self.sample_reduction(scores), scores.mean())
        prediction = InferenceBatch(pred_score=scores, anomaly_map=batch.image[:, :1] * 0)
        return batch.update(**prediction._asdict())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer_arguments = {}  # noqa: RUF012
    learning_type = LearningType.ONE_CLASS


class Recorder(Callback):
    """Keeps the batches, the swapped losses, and what went through them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches, self.calls, self.keys = [], [], set()
        forward = WeightedLoss.forward

        def record(loss: WeightedLoss, *args, **kwargs) -> torch.Tensor:
            result = forward(loss, *args, **kwargs)
            with torch.no_grad():
                contributions = loss._split(loss._original, *args, **kwargs)
                self.calls.append((result.detach().clone(), contributions, loss._original(*args, **kwargs)))
            return result

        monkeypatch.setattr(WeightedLoss, "forward", record)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.batches.append(batch)
        self.keys |= set(pl_module.state_dict())


@pytest.fixture(autouse=True)
def weighted_from_the_start(monkeypatch) -> None:
    """These runs are over before 32 samples were seen."""
    monkeypatch.setattr("anomalib_synth.losses.weights.LEAST_SEEN", 2)


def make_synthesis(**options) -> SynthesisCallback:
    generator = RuleBasedGenerator(["cutout", "nsa", "scratch"])
    return SynthesisCallback(generator, **{"probability": 0.9, "grid_every_n_epochs": 0} | options)


def check_weighted(recorder: Recorder, *, losses: int, rtol: float = 1e-5) -> None:
    """Every loss of two steps was the weighted mean of contributions that average to the model's own loss."""
    assert len(recorder.batches) == 2
    assert len(recorder.calls) == 2 * losses
    moved = []
    weigh = QualityWeights(effective_share=0.5)
    weighed = [weigh(batch.quality, batch.synthetic, step=0) for batch in recorder.batches]
    for position, (result, contributions, own) in enumerate(recorder.calls):
        weights = weighed[position // losses]
        weights = weights.repeat(len(contributions) // len(weights))
        torch.testing.assert_close(result, (weights * contributions).mean(), rtol=1e-6, atol=0)
        torch.testing.assert_close(contributions.mean(), own.to(contributions), rtol=rtol, atol=1e-9)
        moved.append(bool((weights != 1).any()) and float(result) != float(own))
    assert any(moved)


def train(model: AnomalibModule, parts_root: Path, tmp_path: Path, recorder: Recorder, **options) -> None:
    keys = set(model.state_dict())
    originals = {site.path: model.get_submodule(site.path) for site in find_losses(model)}
    weighting = QualityWeightingCallback(effective_share=0.5)
    fit(model, parts_root, tmp_path, [make_synthesis(), weighting, recorder], **options)
    assert recorder.keys == set(model.state_dict()) == keys
    assert all(model.get_submodule(path) is loss for path, loss in originals.items())


def test_supersimplenet(parts_root, tmp_path, monkeypatch) -> None:
    recorder = Recorder(monkeypatch)
    train(make_supersimplenet(), parts_root, tmp_path, recorder)
    assert all(len(contributions) == 8 for _, contributions, _ in recorder.calls)
    check_weighted(recorder, losses=1)


@pytest.mark.parametrize("quantile", [0.5, 0.0])
@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_glass(parts_root, tmp_path, monkeypatch, quantile, precision) -> None:
    recorder = Recorder(monkeypatch)
    model = make_glass()
    assert [site.path for site in find_losses(model)] == ["model.focal_loss"]  # the other sees real images
    model.model.focal_loss_quantile_threshold = quantile
    train(model, parts_root, tmp_path, recorder, precision=precision)
    assert not model.model.discriminator._forward_hooks
    assert not model.model.augmentor._forward_hooks
    check_weighted(recorder, losses=1, rtol=1e-5 if precision == "32" else 0.02)


def test_dsr(parts_root, tmp_path, monkeypatch) -> None:
    recorder = Recorder(monkeypatch)
    train(make_dsr(tmp_path, monkeypatch), parts_root, tmp_path, recorder)
    check_weighted(recorder, losses=1)


@pytest.mark.slow
def test_draem_with_sspcab(parts_root, tmp_path, monkeypatch) -> None:
    recorder = Recorder(monkeypatch)
    model = Draem(dtd_dir=tmp_path, enable_sspcab=True, pre_processor=resize_only(), **QUIET)
    train(model, parts_root, tmp_path, recorder, limit_val_batches=0)
    check_weighted(recorder, losses=2)


@pytest.mark.slow
def test_uninet(parts_root, tmp_path, monkeypatch) -> None:
    recorder = Recorder(monkeypatch)
    train(make_uninet(monkeypatch), parts_root, tmp_path, recorder, limit_val_batches=0)
    check_weighted(recorder, losses=3)  # the bottleneck's two halves have one each


def test_realnet(parts_root, tmp_path, monkeypatch) -> None:
    recorder = Recorder(monkeypatch)
    train(make_realnet(), parts_root, tmp_path, recorder, limit_val_batches=0)
    check_weighted(recorder, losses=1)


def test_model_of_ones_own(parts_root, tmp_path, monkeypatch) -> None:
    recorder = Recorder(monkeypatch)
    train(OwnModel(), parts_root, tmp_path, recorder, limit_val_batches=0)
    check_weighted(recorder, losses=1)


def test_validation_is_not_weighted(parts_root, tmp_path) -> None:
    fit(OwnModel(), parts_root, tmp_path, [make_synthesis(), QualityWeightingCallback()])  # its validation_step asserts


def train_to_parameters(callbacks: list[Callback], parts_root: Path, tmp_path: Path, make=make_supersimplenet) -> dict:
    torch.manual_seed(0)
    model = make()
    torch.manual_seed(1)
    fit(model, parts_root, tmp_path, callbacks, limit_val_batches=0)
    return dict(model.named_parameters())


def are_equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("make", [make_supersimplenet, make_glass])
def test_unit_weights_change_no_bit_and_the_order_of_callbacks_does_not_matter(parts_root, tmp_path, make) -> None:
    none = QualityWeightingCallback(mode="none")
    plain = train_to_parameters([make_synthesis()], parts_root, tmp_path, make)
    assert are_equal(plain, train_to_parameters([make_synthesis(), none], parts_root, tmp_path, make))
    softmax = QualityWeightingCallback()
    after = train_to_parameters([make_synthesis(), softmax], parts_root, tmp_path, make)
    before = train_to_parameters([softmax, make_synthesis()], parts_root, tmp_path, make)
    assert are_equal(before, after)
    assert not are_equal(plain, after)


def test_shuffled_repeats(parts_root, tmp_path) -> None:
    callback = QualityWeightingCallback(mode="shuffled")
    first, second = (train_to_parameters([make_synthesis(), callback], parts_root, tmp_path, OwnModel) for _ in "ab")
    assert are_equal(first, second)


def test_checkpoint_of_training_loads_without_the_callback(parts_root, tmp_path) -> None:
    class Saving(Callback):
        def on_train_batch_end(self, trainer, *args) -> None:
            trainer.save_checkpoint(tmp_path / "during.ckpt")

    model = make_glass()
    fit(model, parts_root, tmp_path, [make_synthesis(), QualityWeightingCallback(), Saving()])
    state = torch.load(tmp_path / "during.ckpt", weights_only=False, map_location="cpu")["state_dict"]
    make_glass().load_state_dict(state, strict=True)


@pytest.mark.parametrize("make", [make_supersimplenet, make_glass])
def test_losses_are_put_back_when_training_fails(parts_root, tmp_path, make) -> None:
    class Failing(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            assert any(isinstance(module, WeightedLoss) for module in pl_module.modules())
            msg = "planted"
            raise RuntimeError(msg)

    model = make()
    with pytest.raises(RuntimeError, match="planted"):
        fit(model, parts_root, tmp_path, [QualityWeightingCallback(), make_synthesis(), Failing()])
    assert not any(isinstance(module, WeightedLoss) for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("make", "options"),
    [(make_supersimplenet, {"precision": "bf16-mixed"}), (OwnModel, {"accumulate_grad_batches": 2})],
    ids=["bf16", "gradient accumulation"],
)
def test_training_options(parts_root, tmp_path, monkeypatch, make, options) -> None:
    recorder = Recorder(monkeypatch)
    train(make(), parts_root, tmp_path, recorder, limit_val_batches=0, **options)
    check_weighted(recorder, losses=1, rtol=0.02)


def test_first_phase_of_dsr_is_left_alone(parts_root, tmp_path, monkeypatch) -> None:
    recorder = Recorder(monkeypatch)
    model = make_dsr(tmp_path, monkeypatch)
    model.upsampling_train_ratio = 1.0
    train(model, parts_root, tmp_path, recorder)
    assert not recorder.calls


def test_weights_are_logged_and_drawn(parts_root, tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLogger(tmp_path, name="log")
    callbacks = [make_synthesis(), QualityWeightingCallback(effective_share=0.5)]
    engine = fit(OwnModel(), parts_root, tmp_path, callbacks, logger=[log])
    logged = engine.trainer.logged_metrics
    assert float(logged["weight_effective_share"]) == pytest.approx(0.5, abs=0.3)
    assert 0 < float(logged["weight_min"]) < 1 < float(logged["weight_max"]) < 4
    events = EventAccumulator(log.log_dir, size_guidance={"histograms": 0}).Reload()
    (histogram,) = events.Histograms("synthetic_weights")
    assert histogram.histogram_value.num >= 6


def test_quality_comes_from_a_synthetic_datamodule_too(parts_root, tmp_path, monkeypatch) -> None:
    data = SyntheticDataModule(
        make_folder(parts_root), RuleBasedGenerator(["cutout", "nsa"]), splits=["train"], anomalous_ratio=0.9,
        root=tmp_path / "kept",
    )  # fmt: skip
    recorder = Recorder(monkeypatch)
    callbacks = [QualityWeightingCallback(effective_share=0.5), recorder]
    make_engine(tmp_path, callbacks, limit_val_batches=0).fit(OwnModel(), datamodule=data)
    check_weighted(recorder, losses=1)


def test_model_that_cannot_be_weighted_is_refused(parts_root, tmp_path) -> None:
    model = Padim(backbone="efficientnet_lite0_bundled", layers=["blocks.2"], n_features=8)
    with pytest.raises(ValueError, match=r"QualityWeightingCallback cannot weight the loss of Padim"):
        fit(model, parts_root, tmp_path, [QualityWeightingCallback()])


def test_unsupervised_supersimplenet_is_refused(parts_root, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"supervised: true"):
        fit(make_supersimplenet(supervised=False), parts_root, tmp_path, [QualityWeightingCallback()])


def test_loss_that_was_replaced_is_refused(parts_root, tmp_path) -> None:
    model = make_supersimplenet()
    model.loss = nn.MSELoss()
    with pytest.raises(ValueError, match=r"knows `loss` of Supersimplenet as SSNLoss, got MSELoss"):
        fit(model, parts_root, tmp_path, [QualityWeightingCallback()])


def test_batches_without_quality_are_refused(parts_root, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"needs `quality` in every training batch.*SynthesisCallback"):
        fit(OwnModel(), parts_root, tmp_path, [QualityWeightingCallback()])


@pytest.mark.parametrize("name", ["draem", "dsr", "glass"])
def test_model_that_draws_by_itself_needs_the_synthesis_callback(parts_root, tmp_path, monkeypatch, name) -> None:
    model = {
        "draem": lambda: make_draem(tmp_path),
        "dsr": lambda: make_dsr(tmp_path, monkeypatch),
        "glass": make_glass,
    }[name]()
    with pytest.raises(ValueError, match=rf"(?i){name} draws its anomalies with its own augmenter.*SynthesisCallback"):
        fit(model, parts_root, tmp_path, [QualityWeightingCallback()])

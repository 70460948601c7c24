"""QualityWeightingCallback without a trainer: when weights are computed, what is logged, what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback
from torch import nn

from anomalib_synth.callbacks import QualityWeightingCallback
from anomalib_synth.losses import QualityWeights
from anomalib_synth.losses.weights import LEAST_SEEN


class Model(nn.Module):
    """As much of an AnomalibModule as the callback needs: it hands over the loss of each sample."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.sample_reduction = Mean()
        self.logged = {}

    def log(self, name: str, value: torch.Tensor, **options) -> None:
        assert options == {"on_epoch": True, "sync_dist": True}
        self.logged[name] = float(value)


class Mean(nn.Module):
    """The reduction of a model of one's own."""

    def forward(self, losses: torch.Tensor) -> torch.Tensor:
        return losses.mean()


def make_trainer(callback: QualityWeightingCallback, **options) -> SimpleNamespace:
    settings = {
        "callbacks": [callback], "global_step": 0, "loggers": [], "is_global_zero": True,
        "strategy": SimpleNamespace(all_gather=lambda tensor: tensor),
    }  # fmt: skip
    return SimpleNamespace(**settings | options)


def start(callback: QualityWeightingCallback, **options) -> tuple[SimpleNamespace, Model]:
    trainer, model = make_trainer(callback, **options), Model()
    callback.setup(trainer, model, "fit")
    callback.on_train_start(trainer, model)
    callback.on_train_epoch_start(trainer, model)
    see(callback.weigh)
    return trainer, model


def see(weigh: QualityWeights) -> None:
    """Let the run have had these two qualities, equally often: with a share of 0.8 they weigh 1.5 and 0.5."""
    for _ in range(LEAST_SEEN // 2):
        weigh(torch.tensor([0.9, 0.3]), torch.tensor([True, True]), step=0)


def make_batch(quality: list[float] | None, synthetic: list[bool] | None, label: list[bool] | None = None):
    size = len(quality or synthetic or label or [0])
    batch = ImageBatch(image=torch.zeros(size, 3, 4, 4), gt_label=None if label is None else torch.tensor(label))
    if quality is not None:
        batch.quality = torch.tensor(quality)
    if synthetic is not None:
        batch.synthetic = torch.tensor(synthetic)
    return batch


LOSSES = torch.tensor([1.0, 2.0, 4.0])


def test_loss_is_weighted_by_the_quality_of_the_batch() -> None:
    callback = QualityWeightingCallback(effective_share=0.8)
    trainer, model = start(callback)
    callback.on_train_batch_start(trainer, model, make_batch([0.9, 0.3, 1.0], [True, True, False]), 0)
    assert float(model.sample_reduction(LOSSES)) == pytest.approx((1.5 * 1 + 0.5 * 2 + 4) / 3)


def test_quality_that_is_known_only_after_the_batch_started_counts() -> None:
    callback = QualityWeightingCallback(effective_share=0.8)
    trainer, model = start(callback)
    batch = make_batch(None, None, [False] * 3)
    callback.on_train_batch_start(trainer, model, batch, 0)
    batch.quality, batch.synthetic = torch.tensor([0.9, 0.3, 1.0]), torch.tensor([True, True, False])
    assert float(model.sample_reduction(LOSSES)) == pytest.approx((1.5 * 1 + 0.5 * 2 + 4) / 3)


def test_labels_stand_in_where_the_batch_does_not_say_what_is_synthetic() -> None:
    callback = QualityWeightingCallback(effective_share=0.8)
    trainer, model = start(callback)
    callback.on_train_batch_start(trainer, model, make_batch([0.9, 0.3, 1.0], None, [True, True, False]), 0)
    assert float(model.sample_reduction(LOSSES)) == pytest.approx((1.5 * 1 + 0.5 * 2 + 4) / 3)


@pytest.mark.parametrize(
    ("mode", "quality", "synthetic"),
    [
        ("none", [0.9, 0.3, 0.1], [True] * 3),
        ("softmax", [0.4] * 3, [True] * 3),
        ("softmax", [0.9, 0.3, 0.1], [True, False, False]),
    ],
)
def test_unit_weights_leave_the_loss_untouched(mode, quality, synthetic) -> None:
    class Odd(nn.Module):
        def forward(self, losses: torch.Tensor) -> torch.Tensor:
            return losses.mean() * 1.001

    callback = QualityWeightingCallback(mode=mode)
    trainer, model = make_trainer(callback), Model()
    model.sample_reduction = Odd()
    callback.on_train_start(trainer, model)
    callback.on_train_batch_start(trainer, model, make_batch(quality, synthetic), 0)
    assert torch.equal(model.sample_reduction(LOSSES), Odd()(LOSSES))


def test_loss_outside_a_training_step_is_not_weighted() -> None:
    callback = QualityWeightingCallback()
    trainer, model = start(callback)
    assert float(model.sample_reduction(LOSSES)) == pytest.approx(float(LOSSES.mean()))
    batch = make_batch([0.9, 0.3, 1.0], [True] * 3)
    callback.on_train_batch_start(trainer, model, batch, 0)
    callback.on_train_batch_end(trainer, model, None, batch, 0)
    other = torch.rand(7)
    assert torch.equal(model.sample_reduction(other), other.mean())


def test_shuffled_depends_on_the_step() -> None:
    callback = QualityWeightingCallback(mode="shuffled", seed=4)
    trainer, model = start(callback)
    quality = torch.rand(12, generator=torch.Generator().manual_seed(0)).tolist()
    batch = make_batch(quality, [True] * 12)
    weigh = QualityWeights(mode="shuffled", seed=4)
    see(weigh)
    for step in (0, 9):
        trainer.global_step = step
        callback.on_train_batch_start(trainer, model, batch, 0)
        losses = torch.arange(12.0)
        expected = (weigh(batch.quality, batch.synthetic, step=step) * losses).mean()
        assert torch.equal(model.sample_reduction(losses), expected)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (make_batch(None, [True] * 3), r"needs `quality` in every training batch.*SynthesisCallback.*SyntheticData"),
        (make_batch([0.5] * 3, None), r"needs `synthetic` or `gt_label` in every training batch"),
        (make_batch([0.5, float("nan"), 1.0], [True] * 3), r"`quality` must be in \[0, 1\] for every sample, got nan"),
        (make_batch([0.5, 0.9], [True] * 2), r"The batch has 2 qualities, but the loss has 3 rows"),
    ],
    ids=["no quality", "no origin", "nan", "rows"],
)
def test_bad_batches_are_refused(batch, message) -> None:
    callback = QualityWeightingCallback()
    trainer, model = start(callback)
    callback.on_train_batch_start(trainer, model, batch, 0)
    with pytest.raises(ValueError, match=message):
        model.sample_reduction(LOSSES)


@pytest.mark.parametrize("end", ["on_fit_end", "on_exception", "teardown"])
def test_loss_is_put_back(end) -> None:
    callback = QualityWeightingCallback()
    model = Model()
    original, trainer = model.sample_reduction, make_trainer(callback)
    callback.setup(trainer, model, "fit")
    callback.on_train_start(trainer, model)
    assert model.sample_reduction is not original
    getattr(callback, end)(trainer, model, *{"on_exception": [ValueError()], "teardown": ["fit"]}.get(end, []))
    assert model.sample_reduction is original
    callback.teardown(trainer, model, "fit")  # the other ends follow, and change nothing
    assert model.sample_reduction is original


class Experiment:
    """A logger's experiment that takes histograms."""

    def __init__(self) -> None:
        self.histograms = []

    def add_histogram(self, tag: str, values: torch.Tensor, *, global_step: int) -> None:
        self.histograms.append((tag, values.tolist(), global_step))


def train_epoch(callback: QualityWeightingCallback, **options) -> tuple[Model, SimpleNamespace]:
    trainer, model = start(callback, **options)
    for quality, synthetic in ([[0.9, 0.3, 1.0], [True, True, False]], [[0.2, 1.0, 1.0], [True, False, False]]):
        callback.on_train_batch_start(trainer, model, make_batch(quality, synthetic), 0)
        for _ in range(2):  # a loss may be asked for twice in a step
            model.sample_reduction(LOSSES)
        callback.on_train_batch_end(trainer, model, None, None, 0)
    callback.on_train_epoch_end(trainer, model)
    return model, trainer


def last_weight() -> float:
    """The weight of the one synthetic sample of the epoch's second batch."""
    weigh = QualityWeights(effective_share=0.8)
    see(weigh)
    weigh(torch.tensor([0.9, 0.3]), torch.tensor([True, True]), step=0)
    return float(weigh(torch.tensor([0.2]), torch.tensor([True]), step=0))


def test_epoch_is_logged() -> None:
    model, _ = train_epoch(QualityWeightingCallback(effective_share=0.8))
    low = last_weight()
    share = (1.5 + 0.5 + low) ** 2 / (3 * (1.5**2 + 0.5**2 + low**2))
    assert 0 < low < 0.5
    assert model.logged == pytest.approx({"weight_effective_share": share, "weight_min": low, "weight_max": 1.5})


def test_epoch_is_logged_over_all_processes() -> None:
    other = torch.tensor([[3.0, 5.0, 2.0, 0.01, 2.5]])  # sum, sum of squares and number of its weights, their range
    strategy = SimpleNamespace(all_gather=lambda own: torch.cat([own.unsqueeze(0), other]))
    model, _ = train_epoch(QualityWeightingCallback(effective_share=0.8), strategy=strategy)
    low = last_weight()
    share = (2 + low + 3) ** 2 / (5 * (2.5 + low**2 + 5))
    assert model.logged == pytest.approx({"weight_effective_share": share, "weight_min": 0.01, "weight_max": 2.5})


@pytest.mark.parametrize("first", [True, False])
def test_histogram_goes_to_loggers_that_take_one(first) -> None:
    takes, plain = SimpleNamespace(experiment=Experiment()), SimpleNamespace(experiment=object())
    loggers = [plain, takes, SimpleNamespace()]
    train_epoch(QualityWeightingCallback(effective_share=0.8), loggers=loggers, is_global_zero=first)
    expected = [("synthetic_weights", pytest.approx([1.5, 0.5, last_weight()]), 0)]
    assert takes.experiment.histograms == (expected if first else [])


def test_an_epoch_forgets_the_last_and_one_without_synthetic_samples_logs_nothing() -> None:
    callback = QualityWeightingCallback()
    model, trainer = train_epoch(callback)
    model.logged.clear()
    callback.on_train_epoch_start(trainer, model)
    callback.on_train_batch_start(trainer, model, make_batch([1.0] * 3, [False] * 3), 0)
    model.sample_reduction(LOSSES)
    callback.on_train_epoch_end(trainer, model)
    assert not model.logged


def test_qualities_are_forgotten_when_another_fit_starts_and_kept_when_one_is_resumed() -> None:
    first = QualityWeightingCallback()
    start(first)
    state = first.state_dict()
    assert len(state["seen"]) == LEAST_SEEN
    resumed = QualityWeightingCallback()
    resumed.setup(make_trainer(resumed), Model(), "fit")
    resumed.load_state_dict(state)
    batch = (torch.tensor([0.7]), torch.tensor([True]))
    assert float(resumed.weigh(*batch, step=0)) == float(first.weigh(*batch, step=0)) != 1
    first.setup(make_trainer(first), Model(), "validate")
    assert len(first.state_dict()["seen"]) == LEAST_SEEN + 1
    first.setup(make_trainer(first), Model(), "fit")
    assert not len(first.state_dict()["seen"])
    first.load_state_dict({})  # of a version that kept none


def test_several_callbacks_are_refused() -> None:
    callback = QualityWeightingCallback()
    trainer = make_trainer(callback, callbacks=[callback, Callback(), QualityWeightingCallback(mode="none")])
    with pytest.raises(ValueError, match="must hold one QualityWeightingCallback, got 2"):
        callback.setup(trainer, Model(), "fit")


def test_model_without_a_known_loss_is_refused() -> None:
    model = nn.Linear(2, 2)
    callback = QualityWeightingCallback()
    with pytest.raises(ValueError, match=r"cannot weight the loss of Linear: .*Supersimplenet.*`sample_reduction`"):
        callback.setup(make_trainer(callback), model, "fit")
    callback.setup(make_trainer(callback), model, "test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, "`mode` must be one of softmax, linear, none, shuffled, got 'best'"),
        ({"effective_share": 2}, r"`effective_share` must be in \(0, 1\], got 2"),
        ({"linear_floor": -1}, r"`linear_floor` must be in \(0, 1\], got -1"),
        ({"linear_threshold": 1}, r"`linear_threshold` must be in \[0, 1\), got 1"),
        ({"history": 8}, "`history` must be a whole number >= 32, got 8"),
    ],
)
def test_bad_arguments_are_named(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        QualityWeightingCallback(**options)


def test_configuration_reaches_the_weights() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=Callback)
    path = "anomalib_synth.callbacks.QualityWeightingCallback"
    parsed = parser.parse_args([f"--callback={path}", "--callback.mode=linear", "--callback.linear_floor=0.3"])
    callback = parser.instantiate_classes(parsed).callback
    assert (callback.weigh.mode, callback.weigh.linear_floor) == ("linear", 0.3)
    with pytest.raises(Exception, match="mode"):
        parser.parse_args([f"--callback={path}", "--callback.mode=best"])

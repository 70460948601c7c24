"""The decisions and the parts of two-stage training, without a Trainer."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, lr_scheduler

from anomalib_synth.callbacks import TwoStageTrainingCallback
from anomalib_synth.callbacks.freezing import FrozenModules
from anomalib_synth.callbacks.random_state import capture_random_state, restore_random_state
from anomalib_synth.callbacks.schedule import (
    Progress,
    RunLimits,
    blend_generators,
    fine_share,
    place_switch,
    stage_at,
    stage_two_share,
)
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.host.optimizers import renew_optimizers

ORDERS = ["two_stage", "reverse", "mixed", "rule_only", "fine_only"]
FINE = RuleBasedGenerator(["scratch"])


@pytest.mark.parametrize(
    ("done", "switch", "stage"),
    [
        (Progress(0, 0, 0), Progress(epochs=1), 1),
        (Progress(1, 0, 0), Progress(epochs=1), 2),
        (Progress(9, 13, 99), Progress(batches=14), 1),
        (Progress(0, 14, 0), Progress(batches=14), 2),
        (Progress(0, 13, 7), Progress(batches=14, steps=7), 2),
        (Progress(5, 99, 99), Progress(), 1),
    ],
)
def test_stage_is_the_second_once_any_count_is_reached(done, switch, stage) -> None:
    assert stage_at(done, switch) == stage


@pytest.mark.parametrize(
    ("switch", "unit", "limits", "expected"),
    [
        (0.7, "fraction", RunLimits(epochs=4, batches=5), Progress(batches=14)),
        (0.29, "fraction", RunLimits(epochs=10, batches=10), Progress(batches=29)),
        (0.01, "fraction", RunLimits(epochs=1, batches=10), Progress(batches=1)),
        (0.99, "fraction", RunLimits(epochs=1, batches=10), Progress(batches=9)),
        (0.5, "fraction", RunLimits(steps=30), Progress(steps=15)),
        (0.5, "fraction", RunLimits(steps=30, epochs=4, batches=5), Progress(batches=10, steps=15)),
        (3, "epoch", RunLimits(epochs=4), Progress(epochs=3)),
        (3, "epoch", RunLimits(steps=31, steps_per_epoch=10), Progress(epochs=3)),
        (29, "step", RunLimits(steps=30), Progress(steps=29)),
        (29, "step", RunLimits(epochs=3, steps_per_epoch=10), Progress(steps=29)),
        (500, "step", RunLimits(epochs=3), Progress(steps=500)),  # manual optimisation: nobody knows
    ],
)
def test_switch_is_placed_in_the_unit_the_run_is_measured_in(switch, unit, limits, expected) -> None:
    assert place_switch(switch, unit, limits) == expected


@pytest.mark.parametrize(
    ("switch", "unit", "limits", "message"),
    [
        (4, "epoch", RunLimits(epochs=4), r"`switch` must lie before the end of the run, which has 4 epochs, got 4 "),
        (3, "epoch", RunLimits(steps=30, steps_per_epoch=10), "which has 3 epochs, got 3"),
        (30, "step", RunLimits(steps=30), "which has 30 steps, got 30"),
        (30, "step", RunLimits(steps=99, epochs=3, steps_per_epoch=10), "which has 30 steps, got 30"),
        (0.5, "fraction", RunLimits(), r"no known length. Set `trainer.max_epochs`"),
        (0.5, "fraction", RunLimits(epochs=3), r"no known length"),
        (0.5, "fraction", RunLimits(epochs=1, batches=1), "at least two batches"),
    ],
)
def test_switch_beyond_the_run_is_refused(switch, unit, limits, message) -> None:
    with pytest.raises(ValueError, match=message):
        place_switch(switch, unit, limits)


def test_share_of_stage_two_is_that_of_the_run() -> None:
    assert stage_two_share(0.7, "fraction", RunLimits()) == pytest.approx(0.3)
    assert stage_two_share(3, "epoch", RunLimits(epochs=4)) == 0.25
    assert stage_two_share(15, "step", RunLimits(epochs=3, steps_per_epoch=10)) == 0.5
    for limits in (RunLimits(steps=30), RunLimits(epochs=4, steps=30)):
        with pytest.raises(ValueError, match="Give `switch` as a fraction"):
            stage_two_share(3, "epoch", limits)


def test_share_of_fine_samples_follows_the_order() -> None:
    shares = {name: [fine_share(name, stage, kept=0.2, stage_two=0.5) for stage in (1, 2)] for name in ORDERS}
    assert shares == {
        "two_stage": [0, 0.8], "reverse": [1, 0.2], "mixed": [0.4, 0.4], "rule_only": [0, 0], "fine_only": [1, 1]
    }  # fmt: skip


@pytest.mark.parametrize("kept", [0.0, 0.25])
def test_mixed_order_draws_as_many_fine_samples_as_two_stages(kept) -> None:
    def drawn(order: str) -> float:
        return sum(
            length * fine_share(order, stage, kept=kept, stage_two=0.3) for stage, length in ((1, 0.7), (2, 0.3))
        )

    assert drawn("mixed") == pytest.approx(drawn("two_stage"))


def test_blend_draws_each_sample_by_its_seed() -> None:
    rule, fine = RuleBasedGenerator(["cutout"]), RuleBasedGenerator(["scratch"])
    assert blend_generators(rule, fine, 0) is rule
    assert blend_generators(rule, fine, 1) is fine
    images = torch.full((64, 3, 32, 32), 0.5)
    sample = blend_generators(rule, fine, 0.25)(images, seeds=range(64))
    again = blend_generators(rule, fine, 0.25)(images[:1], seeds=[5])
    families = Counter(record.family for record in sample.provenance if record.family)
    assert 0.1 < families["scratch"] / families.total() < 0.4
    assert torch.equal(again.image[0], sample.image[5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "backwards"}, r"`order` must be one of two_stage, reverse, .*got 'backwards'"),
        ({"switch_unit": "hours"}, r"`switch_unit` must be one of fraction, epoch, step, got 'hours'"),
        ({"switch": 1.0}, r"`switch` must be in \(0, 1\).*got 1.0"),
        ({"switch": float("nan")}, r"`switch` must be in \(0, 1\)"),
        ({"switch": 3.5, "switch_unit": "epoch"}, r"whole number >= 1 with `switch_unit: epoch`, got 3.5"),
        ({"switch": 0, "switch_unit": "step"}, r"whole number >= 1"),
        ({"switch": float("inf"), "switch_unit": "step"}, r"whole number >= 1"),
        ({"learning_rate_factor": 0}, r"`learning_rate_factor` must be > 0 and finite, got 0"),
        ({"keep_rule_share": 1.0}, r"`keep_rule_share` must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_arguments_are_named(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        TwoStageTrainingCallback(FINE, **options)


def test_arguments_of_a_wrong_type_are_named() -> None:
    with pytest.raises(TypeError, match="`fine_generator` must be one of"):
        TwoStageTrainingCallback("scratch")
    with pytest.raises(TypeError, match=r"`frozen` must be a list of patterns.*Write \['model.\*'\]"):
        TwoStageTrainingCallback(FINE, frozen="model.*")


def test_random_state_survives_a_checkpoint_read_without_unpickling(tmp_path) -> None:
    def draw() -> list[float]:
        return [random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))]

    before = capture_random_state()
    try:
        draw()  # leaves half a pair of normals in Python's and NumPy's states
        torch.save(capture_random_state(), tmp_path / "state.ckpt")
        expected = [draw(), draw()]
        restore_random_state(torch.load(tmp_path / "state.ckpt", weights_only=True))
        assert [draw(), draw()] == expected
    finally:
        restore_random_state(before)


class Network(nn.Module):
    """Calls ``train()`` on its parts in every step, as GLASS does."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.encoder.train()
        return self.head(self.encoder(x))


def test_frozen_parts_do_not_change_until_restored() -> None:
    model = Network()
    model.head[0].bias.requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    model(x).square().sum().backward()  # gradients that must not be applied once the parts are frozen

    frozen = FrozenModules(model, ["encoder.*"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    assert torch.equal(model.encoder(x), model.encoder(x)), "dropout must be off"
    model(x).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed >= {"head.0.weight", "head.1.running_mean"}
    assert not any(name.startswith("encoder") for name in changed)
    assert model.head.training

    frozen.restore()
    model(x)
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())
    assert not model.head[0].bias.requires_grad
    assert all(module.training for module in model.encoder.modules())
    assert not torch.equal(model.encoder[1].running_mean, before["encoder.1.running_mean"])


def test_part_with_a_trainable_parameter_stays_in_training() -> None:
    model = Network()
    FrozenModules(model, ["encoder.0.weight", "encoder.1.*"])
    assert [module.training for module in model.encoder] == [True, False, True]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["backbone.*"], r"'backbone.\*' matches none. Their names start with: encoder.0, encoder.1, head.0"),
        (["encoder.*", "head.*"], r"`frozen` must leave a trainable parameter of Network"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(patterns, message) -> None:
    model = Network()
    with pytest.raises(ValueError, match=message):
        FrozenModules(model, patterns)
    assert all(parameter.requires_grad for parameter in model.parameters())


SCHEDULERS = {
    "none": lambda optimizer: None,
    "multi-step": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 4], gamma=0.4),
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=6),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=12),
    "cyclic": lambda optimizer: lr_scheduler.CyclicLR(optimizer, base_lr=0.1, max_lr=0.5, step_size_up=3),
    "sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.5)], milestones=[3]
    ),
    "chain": lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(optimizer), lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_factor_scales_the_whole_course_of_the_learning_rate(name) -> None:
    def rates(factor: float) -> list[list[float]]:
        trainer = SimpleNamespace(optimizers=[], lr_scheduler_configs=[])

        def setup_optimizers(trainer: SimpleNamespace) -> None:
            groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.4)]
            trainer.optimizers = [SGD(groups, momentum=0.9)]
            scheduler = SCHEDULERS[name](trainer.optimizers[0])
            trainer.lr_scheduler_configs = [SimpleNamespace(scheduler=scheduler)] if scheduler else []

        trainer.strategy = SimpleNamespace(setup_optimizers=setup_optimizers)
        renew_optimizers(trainer, factor)
        course = []
        for _ in range(8):
            course.append([group["lr"] for group in trainer.optimizers[0].param_groups])
            trainer.optimizers[0].step()
            for config in trainer.lr_scheduler_configs:
                config.scheduler.step()
        return course

    torch.testing.assert_close(torch.tensor(rates(0.1)), 0.1 * torch.tensor(rates(1.0)))

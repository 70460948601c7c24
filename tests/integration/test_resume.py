"""Resuming a two-stage run at an epoch's end equals the run that was not interrupted, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from anomalib.callbacks import ModelCheckpoint
from lightning.pytorch import Callback, seed_everything

from anomalib_synth.callbacks import QualityWeightingCallback, SynthesisCallback, TwoStageTrainingCallback
from anomalib_synth.callbacks.random_state import capture_random_state, restore_random_state
from anomalib_synth.generators import RuleBasedGenerator
from tests.integration.models import make_engine, make_folder, make_glass, make_realnet, make_supersimplenet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anomalib.engine import Engine
    from anomalib.models import AnomalibModule


pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


@pytest.fixture(autouse=True)
def _random_state() -> Iterator[None]:
    """Runs are seeded here; other tests should not notice."""
    before = capture_random_state()
    yield
    restore_random_state(before)


class Scenario:
    """A run of four epochs of two batches whose stage 2 starts with the third epoch, and its resumed twins."""

    def __init__(self, make: Callable[[], AnomalibModule], root: Path, tmp_path: Path, **options: Any) -> None:
        self.make, self.root, self.tmp_path = make, root, tmp_path
        self.workers = options.pop("num_workers", 0)
        self.at_train_end = options.pop("save_on_train_epoch_end", True)
        self.two_stage = {"switch": 2, "switch_unit": "epoch", "keep_rule_share": 0.3, **options.pop("two_stage", {})}
        self.weighted = options.pop("weighted", False)
        self.options = {"max_epochs": 4, "limit_val_batches": 0, **options}

    def run(self, name: str, seed: int, checkpoint: Path | None = None) -> tuple[AnomalibModule, Engine]:
        save = ModelCheckpoint(
            dirpath=self.tmp_path / name, filename="{epoch}", save_top_k=-1, every_n_epochs=1,
            save_on_train_epoch_end=self.at_train_end,
        )  # fmt: skip
        synthesis = SynthesisCallback(RuleBasedGenerator(["cutout"]), probability=0.7, grid_every_n_epochs=0)
        two_stage = TwoStageTrainingCallback(RuleBasedGenerator(["scratch"]), **self.two_stage)
        weighting = [QualityWeightingCallback(effective_share=0.5)] if self.weighted else []
        seed_everything(seed, verbose=False)
        model = self.make()
        engine = make_engine(self.tmp_path, [synthesis, save, two_stage, *weighting], **self.options)
        engine.fit(model, datamodule=make_folder(self.root, num_workers=self.workers), ckpt_path=checkpoint)
        return model, engine

    def check(self, *epochs: int) -> None:
        """Resume the checkpoints of these epochs' ends, from another seed, and compare with the whole run."""
        model, engine = self.run("whole", seed=1)
        expected = state_of(model, engine)
        for epoch in epochs:
            twin = state_of(*self.run(f"from_{epoch}", 99, self.tmp_path / "whole" / f"epoch={epoch}.ckpt"))
            assert_same(twin, expected, f"after epoch {epoch}")


def state_of(model: AnomalibModule, engine: Engine) -> dict[str, Any]:
    """What a run leaves behind."""
    trainer = engine.trainer
    return {
        "model": {name: value.clone() for name, value in model.state_dict().items()},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "done": [trainer.global_step, trainer.current_epoch],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
    }


def assert_same(found: Any, expected: Any, place: str) -> None:
    """Compare nested states, tensors bit for bit (NaN equals NaN)."""
    assert type(found) is type(expected), place
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key, value in expected.items():
            assert_same(found[key], value, f"{place}: {key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), place
        for index, value in enumerate(expected):
            assert_same(found[index], value, f"{place}: {index}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found.nan_to_num(0.5), expected.nan_to_num(0.5)), place
    else:
        assert found == expected, place


@pytest.mark.slow
def test_resumed_run_equals_the_whole_run_with_automatic_optimisation(parts_root, tmp_path) -> None:
    Scenario(make_supersimplenet, parts_root, tmp_path).check(1, 2)


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({}, (0, 1, 2)),
        ({"limit_val_batches": 1, "save_on_train_epoch_end": False}, (1, 2)),
        (  # the loop would train one batch more
            {"max_steps": 15, "max_epochs": -1, "two_stage": {"switch": 0.6, "switch_unit": "fraction"}},
            (1, 2),
        ),
        ({"max_steps": 15, "limit_val_batches": 1}, (1,)),
        ({"two_stage": {"switch": 0.6, "switch_unit": "fraction", "frozen": ["model.discriminator.*"]}}, (1, 2)),
    ],
    ids=["plain", "saved after validation", "max_steps", "max_steps, validated", "frozen"],
)
def test_resumed_run_equals_the_whole_run_with_manual_optimisation(parts_root, tmp_path, options, epochs) -> None:
    Scenario(make_glass, parts_root, tmp_path, **options).check(*epochs)


@pytest.mark.slow
def test_resumed_run_equals_the_whole_run_with_workers(parts_root, tmp_path) -> None:
    Scenario(make_glass, parts_root, tmp_path, num_workers=2).check(1)


def test_resumed_run_equals_the_whole_run_with_weights(parts_root, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.losses.weights.LEAST_SEEN", 2)  # the run has no 32 synthetic samples
    Scenario(make_glass, parts_root, tmp_path, weighted=True).check(1)


@pytest.mark.slow
def test_optimisers_fit_the_checkpoint_when_they_hold_trainable_parameters_only(parts_root, tmp_path) -> None:
    frozen = {"frozen": ["model.reconstruction.*"]}
    Scenario(make_realnet, parts_root, tmp_path, two_stage=frozen, accumulate_grad_batches=2).check(1, 2)


def test_resumed_run_goes_on_in_its_stage_without_fresh_optimisers(parts_root, tmp_path, monkeypatch) -> None:
    from anomalib.models import Glass

    scenario = Scenario(make_glass, parts_root, tmp_path)
    scenario.run("whole", seed=1)
    made = []
    configure = Glass.configure_optimizers
    monkeypatch.setattr(Glass, "configure_optimizers", lambda self: made.append(self) or configure(self))
    for epoch, expected in ((1, 2), (2, 1)):
        made.clear()
        scenario.run(f"from_{epoch}", 99, tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert len(made) == expected


def test_checkpoint_at_the_switch_is_plain_data_of_the_first_stage(parts_root, tmp_path) -> None:
    Scenario(make_glass, parts_root, tmp_path, two_stage={"switch": 0.5, "switch_unit": "fraction"}).run(
        "whole", seed=1
    )
    stages, rates = [], []
    for epoch in range(4):
        checkpoint = torch.load(tmp_path / "whole" / f"epoch={epoch}.ckpt", weights_only=True)
        stages.append(checkpoint["callbacks"]["TwoStageTrainingCallback"]["stage"])
        rates.append(checkpoint["optimizer_states"][0]["param_groups"][0]["lr"])
    assert stages == [1, 1, 2, 2]
    assert rates == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5])


def test_testing_with_a_checkpoint_freezes_nothing(parts_root, tmp_path) -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.seen = []

        def on_test_start(self, trainer, pl_module) -> None:
            self.seen.extend(parameter.requires_grad for parameter in pl_module.model.discriminator.parameters())

    frozen = {"frozen": ["model.discriminator.*"], "switch": 1}
    scenario = Scenario(make_glass, parts_root, tmp_path, two_stage=frozen, max_epochs=2)
    model, engine = scenario.run("whole", seed=1)
    engine.trainer.callbacks.append(watch := Watch())
    engine.test(model, datamodule=make_folder(parts_root), ckpt_path=tmp_path / "whole" / "epoch=1.ckpt")
    assert watch.seen
    assert all(watch.seen)

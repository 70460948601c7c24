"""TwoStageTrainingCallback in the training loops of anomalib's models."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import FSDPStrategy
from torch.optim.optimizer import register_optimizer_step_post_hook

from anomalib_synth.callbacks import SynthesisCallback, TwoStageTrainingCallback
from anomalib_synth.commands.generate import generate
from anomalib_synth.generators import RuleBasedGenerator, StoredGenerator
from anomalib_synth.store import StoreError
from tests.conftest import save_images
from tests.contract import render_normals
from tests.integration.models import fit, make_dsr, make_engine, make_glass, make_supersimplenet
from tests.integration.test_configs import BASE, CONFIGS, run_cli, short

ORDERS = ["two_stage", "reverse", "mixed", "rule_only", "fine_only"]
RULE, FINE = "cutout", "scratch"


class Recorder(Callback):
    """Keeps, for each batch, the families drawn, the count of steps before it, and the learning rates."""

    def __init__(self) -> None:
        self.families: list[set[str]] = []
        self.steps: list[int] = []
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.families.append(set())
        self.steps.append(trainer.global_step)
        self.rates.append([group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups])

    @property
    def letters(self) -> str:
        """One letter a batch: r for rule samples, f for fine ones, m for both."""
        return "".join("m" if len(found) > 1 else min(found)[0] for found in self.families)


class Watched(RuleBasedGenerator):
    """Tells a recorder what it draws."""

    def __init__(self, family: str, recorder: Recorder) -> None:
        super().__init__([family], max_attempts=8)
        self.name, self.recorder = {RULE: "rule", FINE: "fine"}[family], recorder

    @property
    def init_args(self):
        """As far as it can be written down: the recorder cannot."""
        return {"family": next(iter(self.families))}

    def __call__(self, images, **options):
        self.recorder.families[-1].add(self.name)
        return super().__call__(images, **options)


def make_callbacks(recorder: Recorder | None = None, **options) -> list[Callback]:
    recorder = recorder or Recorder()
    synthesis = SynthesisCallback(Watched(RULE, recorder), probability=1.0, grid_every_n_epochs=0)
    return [recorder, synthesis, TwoStageTrainingCallback(Watched(FINE, recorder), **options)]


def train(model, root, tmp_path, callbacks, **options):
    """Four epochs of two batches without validation."""
    return fit(model, root, tmp_path, callbacks, **{"max_epochs": 4, "limit_val_batches": 0, **options})


@pytest.fixture
def optimizer_steps():
    """The steps that torch's optimisers make, by optimiser, in order of their first step."""
    made: dict[torch.optim.Optimizer, int] = {}
    handle = register_optimizer_step_post_hook(
        lambda optimizer, args, kwargs: made.__setitem__(optimizer, made.get(optimizer, 0) + 1)
    )
    yield made
    handle.remove()


@pytest.mark.slow
def test_orders_differ_in_their_samples_only(parts_root, tmp_path, optimizer_steps) -> None:
    letters, steps, rates = {}, {}, {}
    for order in ORDERS:
        recorder = Recorder()
        engine = train(make_glass(), parts_root, tmp_path, make_callbacks(recorder, order=order, switch=0.5))
        letters[order], rates[order] = recorder.letters, recorder.rates
        steps[order] = (*optimizer_steps.values(), engine.trainer.global_step)
        optimizer_steps.clear()
    assert {order: drawn for order, drawn in letters.items() if order != "mixed"} == {
        "two_stage": "rrrrffff", "reverse": "ffffrrrr", "rule_only": "rrrrrrrr", "fine_only": "ffffffff"
    }  # fmt: skip
    assert letters["mixed"].count("m") >= 5
    assert set(steps.values()) == {(4, 4, 4, 4, 16)}, "two optimisers in each stage, and both count"
    assert all(course == rates["two_stage"] for course in rates.values())
    first, second = rates["two_stage"][3], rates["two_stage"][4]
    assert second == pytest.approx([0.1 * rate for rate in first])


@pytest.mark.parametrize(
    ("first", "options", "expected"),
    [
        ("SynthesisCallback", {"switch": 2, "switch_unit": "epoch"}, "rrrrffff"),
        ("TwoStageTrainingCallback", {"switch": 2, "switch_unit": "epoch"}, "rrrrffff"),
        ("SynthesisCallback", {"switch": 0.6}, "rrrrrfff"),  # within an epoch
        ("TwoStageTrainingCallback", {"switch": 0.6}, "rrrrrfff"),
        ("TwoStageTrainingCallback", {"switch": 0.7}, "rrrrrrff"),  # 5.6 batches: the third epoch's end
        ("TwoStageTrainingCallback", {"switch": 9, "switch_unit": "step"}, "rrrrrfff"),  # two optimisers
    ],
)
def test_switch_takes_effect_before_the_first_batch_of_stage_two(
    parts_root, tmp_path, first, options, expected
) -> None:
    recorder = Recorder()
    callbacks = make_callbacks(recorder, **options)
    callbacks.sort(key=lambda callback: type(callback).__name__ != first)
    callbacks.remove(recorder)
    train(make_glass(), parts_root, tmp_path, [recorder, *callbacks])
    assert recorder.letters == expected
    assert recorder.rates[expected.index("f")] < recorder.rates[expected.index("f") - 1]


def test_fraction_of_max_steps_counts_steps(parts_root, tmp_path) -> None:
    recorder = Recorder()
    train(make_glass(), parts_root, tmp_path, make_callbacks(recorder, switch=0.4), max_steps=10, max_epochs=100)
    assert recorder.letters == "rrfff"


def test_optimisers_are_fresh_at_the_switch_and_steps_go_on(parts_root, tmp_path, optimizer_steps) -> None:
    recorder = Recorder()
    callbacks = make_callbacks(recorder, switch=3, switch_unit="epoch", learning_rate_factor=0.5)
    model = make_supersimplenet()
    engine = train(model, parts_root, tmp_path, callbacks)
    assert list(optimizer_steps.values()) == [6, 2]
    assert recorder.steps == list(range(8))
    assert engine.trainer.global_step == 8
    assert recorder.rates[-1] == pytest.approx([0.5e-4, 1e-4])
    assert recorder.rates[5] == pytest.approx([1e-4, 2e-4])
    scheduler = engine.trainer.lr_scheduler_configs[0].scheduler
    assert scheduler.base_lrs == pytest.approx([0.5e-4, 1e-4])
    assert scheduler.last_epoch == 1
    assert {float(state["step"]) for state in engine.trainer.optimizers[0].state.values()} == {2.0}


def test_switch_waits_for_accumulated_gradients(parts_root, tmp_path, optimizer_steps) -> None:
    recorder = Recorder()
    callbacks = make_callbacks(recorder, switch=0.34)
    engine = train(
        make_supersimplenet(), parts_root, tmp_path, callbacks,
        max_epochs=1, limit_train_batches=3, accumulate_grad_batches=2,
    )  # fmt: skip
    assert recorder.letters == "rrf"
    assert list(optimizer_steps.values()) == [1, 1]
    assert engine.trainer.global_step == 2


def test_models_with_several_schedules_train_in_two_stages(parts_root, tmp_path, monkeypatch) -> None:
    recorder = Recorder()
    callbacks = make_callbacks(recorder, switch=1, switch_unit="step")
    engine = train(make_dsr(tmp_path, monkeypatch), parts_root, tmp_path, callbacks, max_epochs=1)
    assert recorder.letters == "rf"
    assert engine.trainer.global_step == 2


def test_kept_share_mixes_the_samples_of_stage_two(parts_root, tmp_path) -> None:
    recorder = Recorder()
    callbacks = make_callbacks(recorder, switch=2, switch_unit="epoch", keep_rule_share=0.5)
    train(make_glass(), parts_root, tmp_path, callbacks)
    assert recorder.letters[:4] == "rrrr"
    assert recorder.letters[4:].count("m") >= 2


class Snapshots(Callback):
    """Keeps the parts of the model that should be frozen, at the start of each epoch."""

    def __init__(self, part: str) -> None:
        self.part, self.kept = part, []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        state = pl_module.get_submodule(self.part).state_dict()
        self.kept.append({name: value.clone() for name, value in state.items()})

    on_train_end = on_train_epoch_start


@pytest.mark.parametrize("accident", [False, True])
def test_frozen_parts_stay_as_they_are_and_are_given_back(parts_root, tmp_path, accident) -> None:
    class Failing(Callback):
        def on_train_end(self, *args) -> None:
            if accident:
                msg = "planted"
                raise RuntimeError(msg)

    model, watch = make_glass(), Snapshots("model.discriminator")
    before = [(parameter.requires_grad, parameter.shape) for parameter in model.parameters()]
    callbacks = make_callbacks(switch=2, switch_unit="epoch", frozen=["model.discriminator.*"])
    rule = callbacks[1].generator
    with pytest.raises(RuntimeError, match="planted") if accident else nullcontext():
        train(model, parts_root, tmp_path, [watch, *callbacks, Failing()])
    equal = [
        all(torch.equal(value, second[name]) for name, value in first.items())
        for first, second in zip(watch.kept, watch.kept[1:], strict=False)
    ]
    assert equal == [False, False, True, True]
    assert any("running_mean" in name for name in watch.kept[0])
    assert [(parameter.requires_grad, parameter.shape) for parameter in model.parameters()] == before
    assert model.model.discriminator.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert callbacks[1].generator is rule


def test_second_fit_starts_with_the_first_stage_on_the_new_normals(parts_root, tmp_path) -> None:
    other = tmp_path / "other"
    save_images(other / "train" / "good", render_normals(12, 3, 64, 64, seed=7))
    save_images(other / "test" / "good", render_normals(4, 3, 64, 64, seed=8))
    save_images(other / "test" / "spot", render_normals(4, 3, 64, 64, seed=9))
    recorder = Recorder()
    callbacks = make_callbacks(recorder, switch=1, switch_unit="epoch")
    digests = []
    for root in (parts_root, other):
        train(make_glass(), root, tmp_path, callbacks, max_epochs=2)
        generators = callbacks[1].generator, callbacks[2].fine_generator
        assert generators[0].prepare_digest == generators[1].prepare_digest
        digests.append(generators[0].prepare_digest)
    assert recorder.letters == "rrffrrff"
    assert digests[0] != digests[1]


def test_prepared_fine_generator_keeps_its_normals(parts_root, tmp_path) -> None:
    callbacks = make_callbacks()
    fine = Watched(FINE, callbacks[0]).prepare(render_normals(3, 3, 64, 64, seed=5))
    digest = fine.prepare_digest
    callbacks[2] = TwoStageTrainingCallback(fine, switch=0.5)
    train(make_glass(), parts_root, tmp_path, callbacks, max_epochs=1)
    assert fine.prepare_digest == digest != callbacks[1].generator.prepare_digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda callbacks: callbacks.pop(1), r"exactly one SynthesisCallback with a generator.*got 0"),
        (lambda callbacks: callbacks.append(SynthesisCallback(RuleBasedGenerator())), r"one SynthesisCallback, got 2"),
        (lambda callbacks: callbacks.__setitem__(1, SynthesisCallback()), "got one without a generator"),
    ],
)
def test_none_or_several_synthesis_callbacks_are_refused(parts_root, tmp_path, change, message) -> None:
    callbacks = make_callbacks()
    change(callbacks)
    with pytest.raises(ValueError, match=message):
        train(make_supersimplenet(), parts_root, tmp_path, callbacks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"switch": 4, "switch_unit": "epoch"}, "which has 4 epochs, got 4"),
        ({"switch": 8, "switch_unit": "step"}, "which has 8 steps, got 8"),
        ({"frozen": ["model.adapter.*"]}, r"'model.adapter.\*' matches none.*model.adaptor"),
    ],
)
def test_run_that_cannot_be_served_is_refused_before_the_first_batch(parts_root, tmp_path, options, message) -> None:
    callbacks = make_callbacks(**options)
    rule = callbacks[1].generator
    with pytest.raises(ValueError, match=message):
        train(make_supersimplenet(), parts_root, tmp_path, callbacks)
    assert not callbacks[0].steps
    assert callbacks[1].generator is rule


def test_stages_of_one_generator_are_refused_when_both_are_drawn(tmp_path) -> None:
    def setup(order: str, fine: RuleBasedGenerator) -> None:
        callbacks = make_callbacks()
        callbacks[1] = SynthesisCallback(RuleBasedGenerator(["cutout"]))
        callbacks[2] = TwoStageTrainingCallback(fine, order=order)
        engine = make_engine(tmp_path, callbacks)
        engine._setup_trainer(model := make_glass())
        callbacks[2].setup(engine.trainer, model, "fit")

    for order in ("two_stage", "reverse", "mixed"):
        with pytest.raises(ValueError, match=r"`fine_generator` must differ .*`order: rule_only`"):
            setup(order, RuleBasedGenerator(["cutout"]))
        setup(order, RuleBasedGenerator(["cutout"], strength=(0.5, 1.0)))
    for order in ("rule_only", "fine_only"):
        setup(order, RuleBasedGenerator(["cutout"]))


def test_a_store_that_serves_nothing_is_named_before_the_first_batch(parts_root, tmp_path) -> None:
    generate(parts_root / "train" / "good", out=tmp_path / "store", num_samples=2, image_size=64)
    callbacks = make_callbacks()
    fine = StoredGenerator(tmp_path / "store", families=["no_such_family"])
    callbacks[2] = TwoStageTrainingCallback(fine)
    with pytest.raises(StoreError, match=r"keeps 2 samples, but none of .* no_such_family"):
        train(make_supersimplenet(), parts_root, tmp_path, callbacks)
    assert not callbacks[0].steps


@pytest.mark.parametrize(("options", "warns"), [({"switch": 0.6}, True), ({}, False), ({"order": "mixed"}, False)])
def test_a_short_second_stage_is_said(parts_root, tmp_path, caplog, options, warns) -> None:
    train(make_glass(), parts_root, tmp_path, make_callbacks(**options), max_epochs=1, limit_train_batches=2)
    assert ("less than half" in caplog.text) is warns


def test_strategy_that_owns_the_optimisers_is_refused(tmp_path) -> None:
    trainer = make_engine(tmp_path, make_callbacks())
    trainer._setup_trainer(model := make_glass())
    trainer.trainer.strategy.__class__ = FSDPStrategy
    with pytest.raises(ValueError, match=r"single-device and DDP strategies, got FSDPStrategy"):
        TwoStageTrainingCallback(RuleBasedGenerator()).setup(trainer.trainer, model, "fit")


def test_run_that_ends_before_the_switch_says_so(parts_root, tmp_path, caplog) -> None:
    train(make_glass(), parts_root, tmp_path, make_callbacks(switch=99, switch_unit="step"), max_epochs=1)
    assert "Training ended at epoch 1, step 4, before stage 2" in caplog.text


def test_overlay_follows_any_other_and_its_arguments_can_be_set(parts_root, tmp_path, monkeypatch) -> None:
    from anomalib.engine import Engine

    base = tmp_path / "base.yaml"
    base.write_text(BASE.format(root=parts_root), encoding="utf-8")
    drawn = []

    def watch(self: Engine, *args: object, **kwargs: object) -> None:
        by_name = {type(callback).__name__: callback for callback in self._cache.args["callbacks"]}
        synthesis, two_stage = by_name["SynthesisCallback"], by_name["TwoStageTrainingCallback"]
        switch = synthesis.switch_generator
        synthesis.switch_generator = lambda generator: drawn.append(generator) or switch(generator)
        assert (two_stage.order, two_stage.frozen) == ("mixed", ["model.projection.layers.*"])
        two_stage.frozen = []
        self.fit(kwargs["model"], datamodule=kwargs["datamodule"])

    monkeypatch.setattr(Engine, "train", watch)
    run_cli(
        "train", "--config", str(base), "--config", str(CONFIGS / "synthesis" / "mixture.yaml"),
        "--config", str(CONFIGS / "synthesis" / "two_stage_physical.yaml"),
        "--default_root_dir", str(tmp_path / "results"),
        "--trainer.callbacks.order=mixed", "--trainer.callbacks.frozen=['model.projection.layers.*']",
        *short(logger="true", limit_train_batches=4),
    )  # fmt: skip
    before, after, restored = drawn
    assert before.generators[0] is after.generators[0] is restored, "mixed, mixed at the switch, restored"
    assert before.weights == after.weights == pytest.approx([0.5, 0.5])

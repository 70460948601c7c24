"""What callbacks change is put back, the last change first, by all of them, however the fit ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from anomalib_synth.callbacks import (
    LearningRateDecayCallback,
    QualityWeightingCallback,
    SynthesisCallback,
    TwoStageTrainingCallback,
)
from anomalib_synth.callbacks.freezing import FrozenModules
from anomalib_synth.callbacks.restoring import RestoringCallback, require_single
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.host.swapping import ModuleSwap


class Swapping(RestoringCallback):
    """Puts a module of its own into the model."""

    def __init__(self, model: nn.Module, *, fails: bool = False) -> None:
        self.swap: ModuleSwap | None = ModuleSwap(model, "0", lambda _: nn.Identity())
        self.fails = fails

    def restore(self) -> None:
        swap, self.swap = self.swap, None
        if swap is not None:
            swap.restore()
            if self.fails:
                raise RuntimeError("restore")


@pytest.mark.parametrize("hook", ["on_fit_end", "on_exception", "teardown"])
def test_the_own_module_is_back_when_two_callbacks_swapped_it(hook) -> None:
    model = nn.Sequential(nn.ReLU())
    own = model[0]
    trainer = SimpleNamespace(callbacks=[Swapping(model), object(), Swapping(model)])
    more = {"on_fit_end": (), "on_exception": (ValueError(),), "teardown": ("fit",)}[hook]
    for callback in (trainer.callbacks[0], trainer.callbacks[2]):  # in the order in which Lightning calls them
        getattr(callback, hook)(trainer, model, *more)
    assert model[0] is own


def test_the_others_restore_when_one_fails() -> None:
    model = nn.Sequential(nn.ReLU())
    own = model[0]
    trainer = SimpleNamespace(callbacks=[Swapping(model), Swapping(model, fails=True)])
    with pytest.raises(RuntimeError, match="restore"):
        trainer.callbacks[0].on_fit_end(trainer, model)
    assert model[0] is own


def test_weighting_restores_every_loss_when_one_cannot_be_restored() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sigmoid())
    own = list(model)
    callback = QualityWeightingCallback()
    callback._swaps = [ModuleSwap(model, name, lambda _: nn.Identity()) for name in ("0", "1")]
    callback._swaps.append(SimpleNamespace(restore=lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        callback.restore()
    assert list(model) == own


def test_two_stages_restore_the_generator_when_the_frozen_parts_fail() -> None:
    rules, fine = RuleBasedGenerator(["stain"]), RuleBasedGenerator(["scratch"])
    synthesis, callback = SynthesisCallback(rules), TwoStageTrainingCallback(fine)
    synthesis.switch_generator(fine)
    callback._synthesis, callback._rule_generator = synthesis, rules
    callback._frozen_modules = SimpleNamespace(restore=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        callback.restore()
    assert synthesis.generator is rules


def test_modes_are_as_they_were_when_parts_were_frozen_twice() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[1].eval()
    before = [(p.requires_grad, m.training) for m in model for p in m.parameters()]
    first, second = FrozenModules(model, ["0.*", "1.*"]), FrozenModules(model, ["0.*"])
    second.restore()
    first.restore()
    assert [(p.requires_grad, m.training) for m in model for p in m.parameters()] == before


@pytest.mark.parametrize(
    "make",
    [
        SynthesisCallback,
        QualityWeightingCallback,
        LearningRateDecayCallback,
        lambda: TwoStageTrainingCallback(RuleBasedGenerator(["stain"])),
    ],
)
def test_a_second_callback_is_refused_when_it_is_of_the_same_kind(make) -> None:
    first, second = make(), make()
    require_single(SimpleNamespace(callbacks=[first]), first, "")
    with pytest.raises(ValueError, match=r"must hold one \w+Callback, got 2.*`callbacks:` in the second replaces"):
        require_single(SimpleNamespace(callbacks=[first, second]), first, "")

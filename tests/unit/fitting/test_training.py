"""The training loop: rates, early stopping, and going on after a stop."""

from __future__ import annotations

import itertools

import pytest
import torch

from anomalib_synth.fitting.training import Schedule, train


def make_problem() -> tuple[torch.nn.Module, dict]:
    """A linear fit whose steps depend on their number alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)

    def loss_at(step: int) -> torch.Tensor:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    return model, {"loss_at": loss_at, "held_out_loss": lambda: float(loss_at(10**6))}


def test_rate_rises_then_falls_to_nothing() -> None:
    schedule = Schedule(steps=100, learning_rate=0.1, warmup=0.1)
    rates = [schedule.rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0)


def test_it_learns_and_ends_with_the_best_weights() -> None:
    model, problem = make_problem()
    outcome = train(model, Schedule(steps=300, learning_rate=0.05, check_every=50), **problem)
    assert outcome.best < 0.01
    assert problem["held_out_loss"]() == pytest.approx(outcome.best)
    assert [step for step, _ in outcome.history] == [50, 100, 150, 200, 250, 300]


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.fitting.training._SAVE_SECONDS", 0.0)
    schedule = Schedule(steps=120, learning_rate=0.05, check_every=20)
    model, problem = make_problem()
    train(model, schedule, **problem)

    def stop(step: int, _: str) -> None:
        if step == 70:
            raise KeyboardInterrupt

    other, problem = make_problem()
    checkpoint = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train(other, schedule, **problem, checkpoint=checkpoint, advance=stop)
    assert checkpoint.is_file()
    other, problem = make_problem()
    steps = []
    train(other, schedule, **problem, checkpoint=checkpoint, advance=lambda step, _: steps.append(step))
    assert steps[0] > 1
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def test_it_stops_when_the_held_out_loss_no_longer_falls() -> None:
    model, problem = make_problem()
    values = iter([3.0, 2.0, 2.5, 2.6, 2.7, 1.0])
    problem["held_out_loss"] = lambda: next(values)
    outcome = train(model, Schedule(steps=600, learning_rate=0.01, check_every=10, patience=3), **problem)
    assert outcome.steps == 50
    assert outcome.best == 2.0

"""The training loop of all local models: deterministic, resumable, with early stopping."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anomalib_synth.fitting.muon import Optimizers

_SAVE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Args:
        steps: Steps at most, >= 1.
        learning_rate: Rate after the warm-up; it falls to 0 along half a cosine.
        warmup: Share of the steps during which the rate rises linearly, in [0, 1].
        check_every: Steps between two measurements of the held-out loss, >= 1.
        patience: Number of measurements without improvement after which training stops, >= 1.
    """

    steps: int
    learning_rate: float
    warmup: float = 0.05
    check_every: int = 100
    patience: int = 5

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        done = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Result of a training: steps done, best held-out loss, and the held-out losses by step."""

    steps: int
    best: float
    history: list[tuple[int, float]]


def trained_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def make_adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return AdamW for all parameters."""
    return torch.optim.AdamW(trained_parameters(model), betas=(0.9, 0.98), weight_decay=0.01)


def train(
    model: torch.nn.Module,
    schedule: Schedule,
    *,
    loss_at: Callable[[int], torch.Tensor],
    held_out_loss: Callable[[], float],
    make_optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer | Optimizers] = make_adamw,
    checkpoint: Path | None = None,
    advance: Callable[[int, str], None] = lambda step, text: None,
) -> TrainingResult:
    """Train a model in place and leave it with the weights of the best held-out loss.

    Every step depends only on its number, so a run resumed from its checkpoint ends with the same weights, bit for bit,
    as an uninterrupted one (on one machine, with the same number of threads).

    Args:
        model: The model; parameters without ``requires_grad`` are not changed.
        schedule: Number of steps and learning rate.
        loss_at: Returns the loss of a step.
        held_out_loss: Returns the loss on held-out data; called without gradients.
        make_optimizer: Returns the optimiser of the model; the learning rate of a parameter group is multiplied by the
            group's ``rate``, if it has one.
        checkpoint: File to which the state is saved every 30 seconds and at the end; it is not deleted. None saves
            nothing.
        advance: Called after each step with the number of steps done and the state in words.

    Raises:
        ValueError: If a loss is not finite, or ``checkpoint`` exists but cannot be read.
    """
    parameters = trained_parameters(model)
    optimizer = make_optimizer(model)
    step, best, since, history, best_state = 0, math.inf, 0, [], _copy(model)
    if checkpoint is not None and checkpoint.is_file():
        kept = _read_checkpoint(checkpoint, model, optimizer)
        step, best, since, best_state = kept["step"], kept["best"], kept["since"], kept["best_state"]
        history = [tuple(each) for each in kept["history"]]
    saved = time.monotonic()

    def save() -> None:
        if checkpoint is not None:
            kept = {"best": best, "since": since, "best_state": best_state, "history": [list(each) for each in history]}
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            buffer = io.BytesIO()
            torch.save({**kept, **state}, buffer)
            write_whole(checkpoint, buffer.getvalue())

    while step < schedule.steps and since < schedule.patience:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step) * group.get("rate", 1.0)
        model.train()
        loss = loss_at(step)
        if not bool(loss.isfinite()):
            msg = (
                f"The loss of {type(model).__name__} is {float(loss.detach())} at step {step}, so nothing more can be "
                "learned and nothing is written. Look for images that are not finite, or fit again with another `seed`."
            )
            raise ValueError(msg)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % schedule.check_every == 0 or step == schedule.steps:
            model.eval()
            with torch.no_grad():
                value = held_out_loss()
            history.append((step, value))
            since = 0 if value < best else since + 1
            if value < best:
                best, best_state = value, _copy(model)
        advance(step, f"held-out loss {best:.4f}" if history else f"loss {float(loss.detach()):.4f}")
        if time.monotonic() - saved > _SAVE_SECONDS:
            save()
            saved = time.monotonic()
    save()
    model.load_state_dict(best_state)
    model.eval()
    return TrainingResult(steps=step, best=best, history=history)


def _read_checkpoint(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer | Optimizers) -> dict:
    """Restore model and optimiser from the checkpoint of an interrupted run, and return its content."""
    try:
        kept = torch.load(path, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        missing = {"step", "best", "since", "best_state", "history"} - set(kept)
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        missing, reason = {"everything"}, error
    else:
        reason = KeyError(*missing)
    if missing:
        msg = (
            f"{str(path)!r} must hold the state of an interrupted fit, but cannot be read "
            f"({type(reason).__name__}). Delete the file to start that part anew."
        )
        raise ValueError(msg) from reason
    return kept


def _copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def mark_time(marks: list[float], step: int, text: str) -> None:
    """Append the time to a list: an ``advance`` that measures how long steps take."""
    del step, text
    marks.append(time.monotonic())

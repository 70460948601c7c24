"""When the second stage of a run starts, and what is drawn in each stage: decisions that need no training loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.generators.mixture import MixtureGenerator

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Order = Literal["two_stage", "reverse", "mixed", "rule_only", "fine_only"]
SwitchUnit = Literal["fraction", "epoch", "step"]


class Progress(NamedTuple):
    """How far a run has come, or where it switches to stage 2.

    Args:
        epochs: Finished epochs.
        batches: Finished batches, over all epochs.
        steps: Optimiser steps as ``trainer.global_step`` counts them; with manual optimisation, of all optimisers.
    """

    epochs: float = math.inf
    batches: float = math.inf
    steps: float = math.inf


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """How long a run can last; infinite where nothing limits it.

    Args:
        epochs: Most epochs.
        steps: Most optimiser steps, as ``trainer.global_step`` counts them.
        batches: Batches per epoch.
        steps_per_epoch: Optimiser steps per epoch; None with manual optimisation, where only the model knows.
    """

    epochs: float = math.inf
    steps: float = math.inf
    batches: float = math.inf
    steps_per_epoch: int | None = None

    @classmethod
    def of(cls, trainer: Trainer) -> RunLimits:
        """Read the limits of a run that is about to start its first batch."""
        batches = trainer.num_training_batches
        automatic = trainer.lightning_module.automatic_optimization and math.isfinite(batches)
        return cls(
            epochs=math.inf if trainer.max_epochs == -1 else trainer.max_epochs,
            steps=math.inf if trainer.max_steps == -1 else trainer.max_steps,
            batches=batches,
            steps_per_epoch=math.ceil(batches / trainer.accumulate_grad_batches) if automatic else None,
        )


def check_switch(switch: float, unit: SwitchUnit) -> None:
    """Raise a ValueError if the switch is out of the range of its unit."""
    if unit == "fraction":
        if not 0 < switch < 1:
            msg = f"`switch` must be in (0, 1) as a fraction of the run, got {switch}. Or set `switch_unit`."
            raise ValueError(msg)
    elif not (switch >= 1 and float(switch).is_integer()):
        msg = f"`switch` must be a whole number >= 1 with `switch_unit: {unit}`, got {switch}."
        raise ValueError(msg)


def stage_at(done: Progress, switch: Progress) -> int:
    """Return the stage that follows ``done``: 2 if any of its counts has reached that of ``switch``, else 1.

    Example:
        >>> stage_at(Progress(0, 6, 6), Progress(batches=7)), stage_at(Progress(0, 7, 7), Progress(batches=7))
        (1, 2)
    """
    return 2 if any(count >= start for count, start in zip(done, switch, strict=True)) else 1


def place_switch(switch: float, unit: SwitchUnit, limits: RunLimits) -> Progress:
    """Return where stage 2 starts in a run with these limits.

    A fraction is taken of the batches in ``limits.epochs`` and of the steps in ``limits.steps``. Stage 2 starts at
    whichever comes first, as the run ends at whichever limit comes first.

    Raises:
        ValueError: If stage 2 would start at or after the end of the run, or the run has no end to take a fraction of.
    """
    if unit == "fraction":
        total = Progress(batches=_product(limits.epochs, limits.batches), steps=limits.steps)
        if math.isinf(total.batches) and math.isinf(total.steps):
            msg = (
                f"`switch` = {switch:g} is a fraction of a run, but this run has no known length. Set "
                "`trainer.max_epochs` or `trainer.max_steps`, or give `switch` in `switch_unit: epoch` or `step`."
            )
            raise ValueError(msg)
        return Progress(batches=_fraction_of(switch, total.batches), steps=_fraction_of(switch, total.steps))
    length = _length(unit, limits)
    if switch >= length:
        msg = (
            f"`switch` must lie before the end of the run, which has {length:g} {unit}s, got {switch:g} "
            f"(`switch_unit: {unit}`). Lower `switch`, or train longer."
        )
        raise ValueError(msg)
    return Progress(epochs=switch) if unit == "epoch" else Progress(steps=switch)


def stage_two_share(switch: float, unit: SwitchUnit, limits: RunLimits) -> float:
    """Return the share of the run that stage 2 takes, in (0, 1).

    Raises:
        ValueError: If that cannot be known before training.
    """
    if unit == "fraction":
        return 1 - switch
    length = _length(unit, limits)
    unknown = limits.steps_per_epoch is None and math.isfinite(limits.epochs) and math.isfinite(limits.steps)
    if math.isinf(length) or unknown:
        msg = (
            f"`order: mixed` draws as many fine samples as `two_stage`, but which share of this run comes after "
            f"`switch` = {switch:g} (`switch_unit: {unit}`) is not known. Give `switch` as a fraction."
        )
        raise ValueError(msg)
    return 1 - switch / length


def known_stage_two_share(switch: float, unit: SwitchUnit, limits: RunLimits) -> float | None:
    """Return the share of the run that stage 2 takes, None if it cannot be known before training."""
    try:
        return stage_two_share(switch, unit, limits)
    except ValueError:
        return None


def fine_share(order: Order, stage: int, *, kept: float = 0.0, stage_two: float = 0.0) -> float:
    """Return the share of the samples that the fine generator draws.

    Args:
        order: The order of the two generators.
        stage: 1 or 2.
        kept: Share of stage-1 samples in stage 2, in [0, 1).
        stage_two: Share of the run that stage 2 takes, in (0, 1); used by ``mixed`` alone.

    Example:
        >>> fine_share("two_stage", 2, kept=0.25), fine_share("reverse", 2, kept=0.25)
        (0.75, 0.25)
    """
    shares = {
        "two_stage": (0.0, 1 - kept),
        "reverse": (1.0, kept),
        "mixed": (stage_two * (1 - kept),) * 2,
        "rule_only": (0.0, 0.0),
        "fine_only": (1.0, 1.0),
    }
    return shares[order][stage - 1]


def blend_generators(rule: AnomalyGenerator, fine: AnomalyGenerator, share: float) -> AnomalyGenerator:
    """Return a generator that draws ``share`` of the samples with ``fine`` and the rest with ``rule``."""
    if share in {0, 1}:
        return fine if share else rule
    return MixtureGenerator([rule, fine], [1 - share, share])


def _length(unit: SwitchUnit, limits: RunLimits) -> float:
    """Return how many epochs or steps the run has at most."""
    per_epoch = limits.steps_per_epoch
    if unit == "epoch":
        return limits.epochs if per_epoch is None else min(limits.epochs, limits.steps / per_epoch)
    return limits.steps if per_epoch is None else min(limits.steps, limits.epochs * per_epoch)


def _fraction_of(fraction: float, total: float) -> float:
    """Return a fraction of a total as a whole number that leaves at least one on either side."""
    if math.isinf(total):
        return math.inf
    if total < 2:
        msg = f"Two stages need a run of at least two batches and two optimiser steps, got {total:g}. Train longer."
        raise ValueError(msg)
    return min(max(1, round(fraction * total)), total - 1)


def _product(epochs: float, batches: float) -> float:
    return math.inf if math.isinf(epochs) or math.isinf(batches) else epochs * batches

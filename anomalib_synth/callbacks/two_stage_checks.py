"""Checks of a run in two stages, made before its first batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anomalib_synth.callbacks.synthesis import SynthesisCallback
from anomalib_synth.generators.stored import StoredGenerator
from anomalib_synth.host.augmenters import find_anomaly_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import LightningModule, Trainer

    from anomalib_synth.callbacks.schedule import Order
    from anomalib_synth.generators.base import AnomalyGenerator


def find_synthesis(trainer: Trainer) -> SynthesisCallback:
    """Return the run's one SynthesisCallback.

    Raises:
        ValueError: If there is none, more than one, or one without a generator.
    """
    found = [callback for callback in trainer.callbacks if isinstance(callback, SynthesisCallback)]
    if len(found) != 1 or found[0].generator is None:
        got = "one without a generator" if len(found) == 1 else str(len(found))
        msg = (
            "TwoStageTrainingCallback drives exactly one SynthesisCallback with a generator, that of stage 1, got "
            f"{got}. List one under `trainer.callbacks`, as configs/synthesis/rule_based.yaml does."
        )
        raise ValueError(msg)
    return found[0]


def check_distinct(rules: AnomalyGenerator, fine: AnomalyGenerator, order: Order) -> None:
    """Refuse two stages with the same generator, unless the order draws with only one of them."""
    if order not in {"rule_only", "fine_only"} and (fine is rules or fine.config == rules.config):
        msg = (
            f"`fine_generator` must differ from the generator of SynthesisCallback, got {type(fine).__name__} with the "
            "same arguments for both: stage 2 would have nothing to add. Give stage 1 noise and the literature's "
            "families, as configs/synthesis/literature.yaml does, or set `order: rule_only` for one generator."
        )
        raise ValueError(msg)


def check_served(fine: AnomalyGenerator, pl_module: LightningModule) -> None:
    """Refuse served samples that would be missing at the switch, or that this model cannot train on.

    Raises:
        StoreError: If a store is missing, damaged, or keeps no sample that is asked for.
        ValueError: If the model compares each image of the batch with its own defect, but a store brings other images.
    """
    for part in fine.walk():
        if not isinstance(part, StoredGenerator):
            continue
        _ = part.kept
        if part.paired and find_anomaly_input(pl_module).kind == "slot":
            msg = (
                f"`fine_generator` must draw on the images of the batch, as {type(pl_module).__name__} compares each "
                f"with its own defect, but StoredGenerator of {str(part.store)!r} brings images of its own. Give it "
                "`paired: false`, another generator, as configs/synthesis/two_stage_physical.yaml does, or train "
                "Supersimplenet (supervised: true), UniNet, RealNet or DiscriminativePadim."
            )
            raise ValueError(msg)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        msg = f"`{name}` must be one of {', '.join(choices)}, got {value!r}."
        raise ValueError(msg)

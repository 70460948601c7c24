"""Two-stage training: first on many cheap samples, then on a few good ones."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast, get_args

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_synth.callbacks.freezing import FrozenModules, match_parameters
from anomalib_synth.callbacks.random_state import capture_random_state, restore_random_state
from anomalib_synth.callbacks.restoring import RestoringCallback, require_single
from anomalib_synth.callbacks.schedule import (
    Order,
    Progress,
    RunLimits,
    SwitchUnit,
    blend_generators,
    check_switch,
    fine_share,
    known_stage_two_share,
    place_switch,
    stage_at,
    stage_two_share,
)
from anomalib_synth.callbacks.two_stage_checks import check_choice, check_distinct, check_served, find_synthesis
from anomalib_synth.data.held_out import check_not_held_out, leave_held_out, remember_learned
from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.host.optimizers import renew_optimizers
from anomalib_synth.host.resuming import complete_last_epoch, renew_first_iterator

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from anomalib_synth.callbacks.synthesis import SynthesisCallback
    from anomalib_synth.generators.prepared import PreparedNormals

logger = logging.getLogger(__name__)
_LEAST_STAGE_TWO = 0.5 - 1e-9


class TwoStageTrainingCallback(RestoringCallback):
    """Trains on the samples of one generator first, and fine-tunes the same weights on those of another.

    After "Anomaly Detection by Effectively Leveraging Synthetic Images" (arXiv 2512.23227): pre-training on many
    rule-based samples, then fine-tuning on a small, filtered set with fresh optimisers and a lower learning rate.
    Stage 1 draws with the generator of the run's one :class:`~anomalib_synth.callbacks.SynthesisCallback`, which should
    be cheap and crude: noise and the literature's families. This callback adds the generator of stage 2, which draws
    good samples or serves them from a store; unless it is already prepared, it uses the normals measured for stage 1.
    The two generators must differ, as fine-tuning on the samples of stage 1 would add nothing. Stage 2 should take half
    of the run or more; the log warns if it is shorter.

    The orders other than ``two_stage`` are controls. In every order, the switch brings fresh optimisers, the new
    learning rate and the frozen parts, so runs of equal optimiser steps differ only in their samples. ``reverse`` draws
    the fine samples first. ``mixed`` draws as many fine samples as ``two_stage``, but spread over both stages.
    ``rule_only`` and ``fine_only`` draw one kind throughout.

    A switch within an epoch waits for the optimiser step of accumulated gradients. A switch at the end of an epoch
    takes effect at the start of the next one, so a checkpoint of that epoch's end still belongs to stage 1. A run
    resumed from a checkpoint of an epoch's end equals the uninterrupted run, bit for bit on the CPU with one process:
    the checkpoint holds the stage and the random states. (With several processes it holds only those of rank 0, and
    they are not restored.)

    Only single-device and DDP strategies work. Under DDP, ``frozen`` needs
    ``strategy: ddp_find_unused_parameters_true``.

    Args:
        fine_generator: The generator that draws the samples of stage 2.
        order: ``two_stage``, or a control: ``reverse``, ``mixed``, ``rule_only``, ``fine_only``.
        switch: Where stage 2 starts, in ``switch_unit``; by default at half of the run.
        switch_unit: ``fraction``: a fraction of the run, in (0, 1), either of ``max_steps`` or of the batches in
            ``max_epochs``, whichever ends the run. ``epoch``: the first epoch of stage 2, counted from 0. ``step``: the
            number of optimiser steps in stage 1, as ``trainer.global_step`` counts them; with manual optimisation
            (GLASS, DSR) it counts the steps of every optimiser.
        learning_rate_factor: Factor on every learning rate of ``configure_optimizers`` in stage 2, > 0.
        keep_rule_share: Share of stage-2 samples that stage 1's generator still draws, in [0, 1): rule-based ones in
            ``two_stage``, fine ones in ``reverse``. Each sample's seed decides.
        frozen: Shell patterns on the names of the model's parameters that are frozen in stage 2. Modules left without a
            trainable parameter go to eval mode, so their batch statistics stop too. (GLASS differentiates through its
            projection, which therefore cannot be frozen.)

    Raises:
        TypeError: If ``fine_generator`` is not a generator, or ``frozen`` is a string.
        ValueError: If an argument is out of its range; at the start of training, if there is not exactly one
            SynthesisCallback with a generator, both stages have the same generator, the model cannot train on the
            served samples, the switch lies beyond the run, or a pattern matches no parameter.
        StoreError: At the start of training, if stage 2 is served from a store that is missing or keeps nothing.

    Example:
        >>> from anomalib_synth.generators import RuleBasedGenerator, SampleChecks
        >>> fine = RuleBasedGenerator(["scratch", "dent"], checks=SampleChecks(min_visibility=2.0))
        >>> callback = TwoStageTrainingCallback(fine, keep_rule_share=0.1)
    """

    def __init__(
        self,
        fine_generator: AnomalyGenerator,
        *,
        order: Order = "two_stage",
        switch: float = 0.5,
        switch_unit: SwitchUnit = "fraction",
        learning_rate_factor: float = 0.1,
        keep_rule_share: float = 0.0,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not isinstance(fine_generator, AnomalyGenerator):
            got = type(fine_generator).__name__
            msg = f"`fine_generator` must be one of `anomalib_synth.generators`, got {got}."
            raise TypeError(msg)
        check_choice("order", order, get_args(Order))
        check_choice("switch_unit", switch_unit, get_args(SwitchUnit))
        check_switch(switch, switch_unit)
        if not 0 < learning_rate_factor < math.inf:
            msg = f"`learning_rate_factor` must be > 0 and finite, got {learning_rate_factor}. Use 1 to keep the rate."
            raise ValueError(msg)
        if not 0 <= keep_rule_share < 1:
            msg = (
                f"`keep_rule_share` must be in [0, 1), got {keep_rule_share}. To draw no fine samples, use order "
                "`rule_only`."
            )
            raise ValueError(msg)
        if isinstance(frozen, str):
            msg = f"`frozen` must be a list of patterns, got the string {frozen!r}. Write [{frozen!r}]."
            raise TypeError(msg)
        self.fine_generator = fine_generator
        self.order = order
        self.switch = switch
        self.switch_unit = switch_unit
        self.learning_rate_factor = learning_rate_factor
        self.keep_rule_share = keep_rule_share
        self.frozen = list(frozen)
        self._learned: list[str] = []  # digests of defects and normals that samples of stage 2 show
        self._shares_normals = fine_generator.prepared is None
        self._synthesis: SynthesisCallback | None = None
        self._rule_generator: AnomalyGenerator | None = None
        self._frozen_modules: FrozenModules | None = None
        self._stage = 1
        self._start = Progress()
        self._stage_two = 0.0
        self._random_state: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the SynthesisCallback to drive, and refuse a run that cannot have two stages."""
        if stage != "fit":
            return
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            msg = (
                "TwoStageTrainingCallback renews the optimisers, which works with single-device and DDP strategies, "
                f"got {type(trainer.strategy).__name__}. Set `trainer.strategy` to `auto` or `ddp`."
            )
            raise ValueError(msg)
        require_single(trainer, self, "Each would drive the SynthesisCallback. Remove all but one.")
        self._synthesis = find_synthesis(trainer)
        self._rule_generator = self._synthesis.generator
        check_distinct(cast("AnomalyGenerator", self._rule_generator), self.fine_generator, self.order)
        check_served(self.fine_generator, pl_module)
        self._stage = 1
        self._random_state = None

    def state_dict(self) -> dict[str, Any]:
        """Return the stage and the random states, as plain data."""
        return {"stage": self._stage, "random_state": capture_random_state()}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record in the checkpoint which real defects, and which normals of a store, samples of stage 2 show."""
        remember_learned(checkpoint, self._learned)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the stage of a resumed run.

        This is done here and not in ``load_state_dict``, because parts must be frozen before the optimisers are built:
        some models give them only trainable parameters, and they would not fit the checkpoint otherwise.
        """
        state = checkpoint["callbacks"].get(self.state_key)
        if trainer.state.fn != TrainerFn.FITTING or state is None:
            return
        self._stage = state["stage"]
        self._random_state = state["random_state"]
        if self._stage == 2:
            self._freeze(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Place the switch, now that the length of the run is known, and choose the stage's generator."""
        if self._random_state is not None:
            complete_last_epoch(trainer)
        limits = RunLimits.of(trainer)
        self._start = place_switch(self.switch, self.switch_unit, limits)
        if self.order == "mixed":
            self._stage_two = stage_two_share(self.switch, self.switch_unit, limits)
        share = known_stage_two_share(self.switch, self.switch_unit, limits)
        if self.order == "two_stage" and share is not None and share < _LEAST_STAGE_TWO:
            logger.warning(
                "Stage 2 takes %.0f %% of the run, less than half: stage 1 may outweigh it. Lower `switch`.",
                100 * share,
            )
        if self.frozen:
            match_parameters(pl_module, self.frozen)
        defects = check_not_held_out(trainer.datamodule, self.fine_generator.defect_digests, "fine_generator")
        leave_held_out(trainer.datamodule, self.fine_generator)
        self._learned = sorted({*defects, *self.fine_generator.normal_digests})
        if self._shares_normals:
            self.fine_generator.use_prepared(cast("PreparedNormals", self._driven[1].prepared))
        self._choose_generator()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random states of a resumed run; start stage 2 if the last epoch completed stage 1."""
        if self._random_state is not None and trainer.world_size == 1:
            renew_first_iterator(trainer)
            restore_random_state(self._random_state)
        self._random_state = None
        if self._stage == 1 and self._is_due(trainer):
            self._start_stage_two(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Start stage 2 within an epoch, before the next batch."""
        del outputs, batch
        if self._stage == 2 or trainer.is_last_batch or not self._is_due(trainer):
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._start_stage_two(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if training ended before the switch."""
        del pl_module
        if self._stage == 1:
            done = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
            logger.warning("Training ended at %s, before stage 2 was to start.", done)

    def restore(self) -> None:
        """Unfreeze the frozen parts, then put the stage-1 generator back."""
        synthesis, self._synthesis = self._synthesis, None
        frozen, self._frozen_modules = self._frozen_modules, None
        with ExitStack() as stack:
            if synthesis is not None and self._rule_generator is not None:
                stack.callback(synthesis.switch_generator, self._rule_generator)
            if frozen is not None:
                stack.callback(frozen.restore)

    def _is_due(self, trainer: Trainer) -> bool:
        done = Progress(trainer.current_epoch, trainer.fit_loop.total_batch_idx + 1, trainer.global_step)
        return stage_at(done, self._start) == 2

    def _start_stage_two(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stage = 2
        self._freeze(pl_module)
        renew_optimizers(trainer, self.learning_rate_factor)
        self._choose_generator()
        logger.info("Stage 2 starts at epoch %d, step %d.", trainer.current_epoch, trainer.global_step)

    def _freeze(self, pl_module: LightningModule) -> None:
        if self.frozen:
            self._frozen_modules = FrozenModules(pl_module, self.frozen)

    def _choose_generator(self) -> None:
        """Set the generator that the SynthesisCallback draws with in the current stage."""
        share = fine_share(self.order, self._stage, kept=self.keep_rule_share, stage_two=self._stage_two)
        synthesis, rules = self._driven
        synthesis.switch_generator(blend_generators(rules, self.fine_generator, share))

    @property
    def _driven(self) -> tuple[SynthesisCallback, AnomalyGenerator]:
        """The driven SynthesisCallback and its own generator, known since :meth:`setup`."""
        return cast("tuple[SynthesisCallback, AnomalyGenerator]", (self._synthesis, self._rule_generator))

"""Helps Lightning's fit loop resume from an epoch's end exactly as if there had been no interruption.

Relies on ``_restarting`` and ``_resuming_from_checkpoint`` of ``FitLoop`` in Lightning 2.6;
``tests/integration/test_resume.py`` fails when they change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def complete_last_epoch(trainer: Trainer) -> None:
    """Mark the epoch at whose end the checkpoint was saved as completed; to be called in ``on_train_start``.

    With ``max_steps`` set, the loop would enter that epoch again and, if the epoch has no validation, train one batch
    too many. With ``max_epochs`` alone, the loop itself does what this function does.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop._restarting = False  # not `loop.restarting`: its setter keeps True while `max_steps` is set
        loop.epoch_loop.restarting = False


def renew_first_iterator(trainer: Trainer) -> None:
    """Let the first epoch of a resumed run make a new iterator; to be called in ``on_train_epoch_start``.

    A resumed run makes that iterator before training starts, with other random numbers. An uninterrupted run makes it
    after the hooks at the epoch's start, some of which draw random numbers too (GLASS iterates over the data in its
    hook). Once the loop no longer counts as resuming, it makes the iterator at that later point as well.
    """
    if trainer.fit_loop.is_resuming:
        trainer.fit_loop._resuming_from_checkpoint = False

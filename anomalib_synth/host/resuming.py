"""Resuming at an epoch's end exactly as if there had been no interruption: where Lightning's fit loop needs help.

Touches ``_restarting`` and ``_resuming_from_checkpoint`` of ``FitLoop`` in Lightning 2.6;
``tests/integration/test_resume.py`` fails when they change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def complete_last_epoch(trainer: Trainer) -> None:
    """Count the epoch at whose end the checkpoint was saved as completed. Call it in ``on_train_start``.

    With ``max_steps`` set, the loop enters that epoch again, and where it does not validate in it, trains one batch
    more; with ``max_epochs`` alone it does what is done here.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop._restarting = False  # not `loop.restarting`: its setter keeps True while `max_steps` is set
        loop.epoch_loop.restarting = False


def renew_first_iterator(trainer: Trainer) -> None:
    """Have the first epoch of a resumed run make its iterator anew. Call it in ``on_train_epoch_start``.

    A resumed run makes that iterator before training starts, from other random numbers; a run that was not interrupted
    makes it after the hooks of the epoch's start, some of which draw too (GLASS goes through the data in its own). So
    does the loop once it no longer believes to be resuming.
    """
    if trainer.fit_loop.is_resuming:
        trainer.fit_loop._resuming_from_checkpoint = False

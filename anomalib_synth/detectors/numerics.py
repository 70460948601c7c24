"""Numerical checks: a precision the model cannot compute in, a loss or weights that are not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anomalib.data import Batch
    from anomalib.models import AnomalibModule

_SHOWN = 3


def check_precision(module: AnomalibModule, allowed: Sequence[str], *, reason: str) -> None:
    """Refuse a trainer whose precision the model does not support, before anything is computed.

    Args:
        module: The model, attached to its trainer.
        allowed: Supported precisions, as Lightning writes them; the error suggests the first.
        reason: Why the others are refused, for the error message.

    Raises:
        ValueError: If the trainer's precision is not among ``allowed``.
    """
    if str(module.trainer.precision) not in allowed:
        msg = (
            f"{type(module).__name__} {reason}: `trainer.precision` must be {' or '.join(allowed)}, got "
            f"{module.trainer.precision}. Set it to {allowed[0]}."
        )
        raise ValueError(msg)


def check_loss(loss: torch.Tensor, samples: torch.Tensor, module: AnomalibModule, batch: Batch) -> None:
    """Stop training when the loss is not finite, before the optimiser step, so that the weights stay finite.

    Args:
        loss: The loss of the batch.
        samples: The loss of each sample, (B,).
        module: The model.
        batch: The batch.

    Raises:
        ValueError: If the loss is not finite; the message names the step and the images, and says what to try.
    """
    if bool(loss.isfinite()):
        return
    rows = (~samples.detach().isfinite()).nonzero().flatten().tolist()
    paths = getattr(batch, "image_path", None) or []
    named = [str(paths[row]) for row in rows[:_SHOWN] if row < len(paths)]
    images = f", with {len(rows)} of {len(samples)} images" + (f" such as {named}" if named else "")
    msg = (
        f"The loss of {type(module).__name__} is {float(loss.detach())} at step {module.global_step} of epoch "
        f"{module.current_epoch}{images if rows else ''}. Training stops here to keep the weights finite. Try a lower "
        "`learning_rate`, `trainer.gradient_clip_val: 1`, `trainer.precision: 32-true`, and look at these images."
    )
    raise ValueError(msg)


def check_state(module: AnomalibModule, state: Mapping[str, Any]) -> None:
    """Refuse to save weights that are not finite: the file could not be told from that of a good model.

    Args:
        module: The model.
        state: State dict of the model, as in a checkpoint.

    Raises:
        ValueError: If a weight of the network is not finite; the message names the first.
    """
    odd = [
        name
        for name, value in state.items()
        if name.startswith("model.")  # thresholds of the post-processor are NaN until they are set
        and isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and not bool(value.isfinite().all())
    ]
    if odd:
        msg = (
            f"{type(module).__name__} has weights that are not finite at step {module.global_step}, such as "
            f"{odd[0]!r}, so no checkpoint is written. Try a lower `learning_rate`, `trainer.gradient_clip_val: 1` or "
            "`trainer.precision: 32-true`."
        )
        raise ValueError(msg)

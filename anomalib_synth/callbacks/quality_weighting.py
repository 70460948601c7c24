"""Weights each synthetic sample in the loss by its quality."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.callbacks.restoring import RestoringCallback, require_single
from anomalib_synth.host.augmenters import draws_by_itself
from anomalib_synth.host.loss_sites import find_losses, glass_parts
from anomalib_synth.host.swapping import ModuleSwap
from anomalib_synth.losses import (
    SPLITS,
    GlassPatches,
    QualityWeights,
    WeightedLoss,
    WeightMode,
)

if TYPE_CHECKING:
    from anomalib.data import ImageBatch
    from lightning.pytorch import LightningModule, Trainer

    from anomalib_synth.host.loss_sites import LossSite


class QualityWeightingCallback(RestoringCallback):
    r"""Weights the loss of each synthetic sample by its quality, before the losses of the batch are averaged.

    After QARAD (arXiv 2508.03539). The loss of the batch, :math:`\frac{1}{B} \sum_i l_i`, becomes
    :math:`\frac{1}{B} \sum_i w_i l_i`, where :math:`l_i` is what sample i contributes to the model's own loss. The
    authors' public code instead multiplies the loss of the batch by the mean weight, which treats all samples alike.

    Add it under ``trainer.callbacks`` next to ``SynthesisCallback``, in any order. It works with DRAEM, DSR (in the
    phase that trains the up-sampling module), SuperSimpleNet (``supervised: true``), UniNet, GLASS (its focal loss; its
    other loss sees no synthetic images), RealNet and DiscriminativePadim. It also works with a model of your own that
    hands its per-sample losses, (B,), to a module ``sample_reduction``, which returns their mean. Any other model is
    refused.

    The weight of a quality depends on the other qualities of the run, not on those in the same batch. The weights have
    mean 1 over the last ``history`` synthetic samples (under DDP, of each process by itself), so the mean of one batch
    is 1 only in expectation. The first 32 samples weigh 1. See :class:`anomalib_synth.losses.QualityWeights`. The
    qualities are part of the checkpoint, so a resumed run has the weights of an uninterrupted one. Under DDP those of
    rank 0 are kept, and every process goes on from them.

    If all weights of a batch are 1, or outside a training step, the model's own loss is returned unchanged. For every
    epoch ``weight_effective_share``, ``weight_min`` and ``weight_max`` are logged, and a histogram of the weights goes
    to the loggers that take one.

    Args:
        mode: How quality becomes a weight. ``softmax``: by a softmax whose temperature gives the weights of the latest
            samples a set effective sample size. ``linear``: linearly. ``none``: all weights are 1. ``shuffled``: each
            sample gets the softmax weight of another, at random; this is the control to compare ``softmax`` with.
        effective_share: Effective sample size of the softmax weights, (Σw)²/Σw², as a share of the synthetic samples of
            the run, in (0, 1]. The temperature is at least 0.01, so that noise in the quality does not decide.
        linear_floor: Least weight of ``linear`` before rescaling to mean 1, in (0, 1].
        linear_threshold: A sample with this quality or less has that least weight, in [0, 1).
        history: Number of the latest synthetic samples that set temperature and scale, >= 32. A small number follows a
            changing generator faster, as at the switch of two stages; a large number is steadier.
        seed: Seed of ``shuffled``; which sample gets which weight depends on it and on the step.

    Raises:
        ValueError: If an argument is out of its range; at the start of training, if the model's loss cannot be
            weighted; in training, if the batches have no quality, or one outside [0, 1].
        RuntimeError: In training, if the loss is not what anomalib 2.7 computes.

    Example:
        >>> callback = QualityWeightingCallback(mode="softmax", effective_share=0.5)
    """

    def __init__(
        self,
        *,
        mode: WeightMode = "softmax",
        effective_share: float = 0.7,
        linear_floor: float = 0.1,
        linear_threshold: float = 0.0,
        history: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.weigh = QualityWeights(
            mode=mode,
            effective_share=effective_share,
            linear_floor=linear_floor,
            linear_threshold=linear_threshold,
            history=history,
            seed=seed,
        )
        self._swaps: list[ModuleSwap] = []
        self._patches: GlassPatches | None = None
        self._batch: ImageBatch | None = None
        self._weights: torch.Tensor | None = None
        self._step = 0
        self._epoch_weights: list[torch.Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model whose loss cannot be weighted, before anything is prepared."""
        if stage != "fit":
            return
        find_losses(pl_module)
        require_single(trainer, self, "Each would weigh the loss again. Remove all but one.")
        self.weigh.forget()  # a checkpoint to resume from is loaded after this

    def state_dict(self) -> dict[str, Any]:
        """Return the qualities that weights depend on, as plain data."""
        return self.weigh.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the qualities of a resumed run; checkpoints of older versions hold none."""
        if state_dict:
            self.weigh.load_state_dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the model's losses; SynthesisCallback has replaced the model's augmenter before this."""
        del trainer
        if draws_by_itself(pl_module):
            msg = (
                f"{type(pl_module).__name__} draws its anomalies with its own augmenter, which gives them no quality. "
                "Add `anomalib_synth.callbacks.SynthesisCallback` with a generator to `trainer.callbacks`."
            )
            raise ValueError(msg)
        for site in find_losses(pl_module):
            self._swaps.append(ModuleSwap(pl_module, site.path, partial(self._wrap, pl_module, site)))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch's weights."""
        del trainer, pl_module
        self._epoch_weights.clear()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ImageBatch, batch_idx: int
    ) -> None:
        """Remember the batch: its quality may be known only once the model has drawn its anomalies."""
        del pl_module, batch_idx
        self._batch, self._weights, self._step = batch, None, trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, batch_idx: int
    ) -> None:
        """Forget the batch, as a loss outside a training step is not weighted."""
        del trainer, pl_module, outputs, batch, batch_idx
        self._batch = self._weights = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the effective share and the range of the epoch's weights, and their histogram."""
        weights = torch.cat([torch.zeros(0), *self._epoch_weights])
        low, high = (float(weights.min()), float(weights.max())) if len(weights) else (torch.inf, -torch.inf)
        own = torch.tensor([float(weights.sum()), float((weights**2).sum()), len(weights), low, high])
        gathered = trainer.strategy.all_gather(own.to(pl_module.device)).reshape(-1, 5)
        total, squares, count = gathered[:, :3].sum(0)
        if not float(count):
            return
        measured = {
            "effective_share": total**2 / (count * squares),
            "min": gathered[:, 3].min(),
            "max": gathered[:, 4].max(),
        }
        for name, value in measured.items():
            pl_module.log(f"weight_{name}", value, on_epoch=True, sync_dist=True)  # each process has the same
        if len(weights) and trainer.is_global_zero:
            _log_histogram(trainer, weights)

    def restore(self) -> None:
        """Put the model's own losses back."""
        swaps, self._swaps = self._swaps, []
        patches, self._patches = self._patches, None
        self._batch = self._weights = None
        with ExitStack() as stack:  # runs all in reverse order, even if one fails
            for swap in swaps:
                stack.callback(swap.restore)
            if patches is not None:
                stack.callback(patches.remove)

    def _wrap(self, pl_module: LightningModule, site: LossSite, loss: torch.nn.Module) -> WeightedLoss:
        """Return the weighted loss that replaces a loss of the model."""
        if site.kind == "patches":
            self._patches = GlassPatches(**glass_parts(pl_module))
            split = self._patches.split
        else:
            split = SPLITS[site.kind]
        return WeightedLoss(loss, split=split, get_weights=self._batch_weights, copies=site.copies)

    def _batch_weights(self) -> torch.Tensor | None:
        """Return the weights of the current training batch; None if there is no batch or all weights are 1."""
        if self._batch is None:
            return None
        if self._weights is None:
            quality, synthetic = _read(self._batch)
            self._weights = self.weigh(quality, synthetic, step=self._step)
            self._epoch_weights.append(self._weights[synthetic.bool().cpu()])
        return None if bool((self._weights == 1).all()) else self._weights


def _read(batch: ImageBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the quality of each sample and whether it is synthetic."""
    quality, synthetic = getattr(batch, "quality", None), getattr(batch, "synthetic", None)
    if synthetic is None:
        synthetic = batch.gt_label
    missing = "`quality`" if quality is None else "`synthetic` or `gt_label`" if synthetic is None else ""
    if missing:
        msg = (
            f"QualityWeightingCallback needs {missing} in every training batch, but this one has none. Add "
            "`anomalib_synth.callbacks.SynthesisCallback` to `trainer.callbacks`, or wrap the datamodule in "
            "`anomalib_synth.data.SyntheticDataModule` with `splits: [train]`; both set it."
        )
        raise ValueError(msg)
    return quality, synthetic


def _log_histogram(trainer: Trainer, weights: torch.Tensor) -> None:
    """Send the weights to the loggers that take histograms (TensorBoard)."""
    for destination in trainer.loggers:
        add_histogram = getattr(getattr(destination, "experiment", None), "add_histogram", None)
        if add_histogram is not None:
            add_histogram("synthetic_weights", weights, global_step=trainer.global_step)

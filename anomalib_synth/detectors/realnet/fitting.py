"""Fits RealNet's feature selection on the first labelled batches of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.detectors.batches import drawn_rows, label_writers, mask_of, source_of
from anomalib_synth.detectors.realnet.selection import selection_loss
from anomalib_synth.detectors.statistics import ChannelStatistics
from anomalib_synth.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anomalib.data import ImageBatch
    from lightning.pytorch import Trainer

    from anomalib_synth.detectors.realnet.torch_model import RealNetModel


@torch.no_grad()
def fit_selection(model: RealNetModel, batches: Iterable[ImageBatch], *, total: int, trainer: Trainer) -> None:
    """Choose the channels of every feature map.

    Args:
        model: The network.
        batches: Labelled batches; batches without a defect contribute to the statistics of normal images only.
        total: Number of batches, for the progress bar.
        trainer: The trainer, which adds up the measurements of all processes.

    Raises:
        ValueError: If no batch holds a synthetic defect.
    """
    channels = model.selector.total
    losses = [torch.zeros(count, dtype=torch.float64) for count in channels]
    statistics = [ChannelStatistics(count) for count in channels]
    seen, images = torch.zeros(1, dtype=torch.float64), 0
    bar = track(batches, "RealNet: selecting features", total=total, disable=not trainer.is_global_zero)
    for batch in bar:
        rows = drawn_rows(batch)
        normal = model.extract(source_of(batch))
        has_normal = rows if batch.gt_label is None else rows | ~batch.gt_label.bool()  # a real defect has no normal
        for statistic, features in zip(statistics, normal, strict=True):
            if bool(has_normal.any()):
                statistic.update(features[has_normal])
        images += len(rows)
        if not bool(rows.any()):
            continue
        seen += int(rows.sum())
        anomalous = model.extract(batch.image[rows].as_subclass(torch.Tensor))
        mask = mask_of(batch, "RealNet")[rows].float()[:, None]
        for level, (before, after) in enumerate(zip(normal, anomalous, strict=True)):
            losses[level] += selection_loss(after, before[rows], mask).cpu().double()
    losses = [_sum_over_processes(loss, trainer) for loss in losses]
    seen = _sum_over_processes(seen, trainer)
    for statistic in statistics:
        statistic.sums = _sum_over_processes(statistic.sums, trainer)
    if not float(seen):
        remedy = (
            "Raise its `probability`, loosen the `checks` of its generator, or train on more or larger batches."
            if label_writers(trainer)
            else "Add `anomalib_synth.callbacks.SynthesisCallback` to `trainer.callbacks`, or wrap the datamodule in "
            "`anomalib_synth.data.SyntheticDataModule` with `splits: [train]`."
        )
        msg = f"RealNet learns from synthetic defects, but none of the first {images} training images has one. {remedy}"
        raise ValueError(msg)
    device = next(model.parameters()).device
    model.selector.set_selection([(loss / seen).to(device) for loss in losses], statistics)


def _sum_over_processes(value: torch.Tensor, trainer: Trainer) -> torch.Tensor:
    if trainer.world_size == 1:
        return value
    return trainer.strategy.reduce(value.to(trainer.strategy.root_device), reduce_op="sum").cpu()

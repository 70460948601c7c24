"""Fits RealNet's feature selection on the first labelled batches of a run."""

from __future__ import annotations

import copy
from itertools import islice
from typing import TYPE_CHECKING

import torch
from rich.progress import track

from anomalib_synth.models.realnet.selection import selection_loss
from anomalib_synth.models.realnet.statistics import ChannelStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anomalib.data import ImageBatch
    from lightning.pytorch import Callback, Trainer

    from anomalib_synth.models.realnet.lightning_model import RealNet
    from anomalib_synth.models.realnet.torch_model import RealNetModel


def labelled_batches(trainer: Trainer, module: RealNet, limit: int) -> Iterator[ImageBatch]:
    """Yield training batches as ``training_step`` will see them: on the device, with defects, pre-processed.

    The callbacks that change batches are those with the attribute ``writes_labels`` (SynthesisCallback) and the model's
    pre-processor. torch's global random state is untouched.

    Args:
        trainer: The trainer, at the start of training.
        module: The model.
        limit: The most batches to yield.
    """
    writers = label_writers(trainer)
    if module.pre_processor is not None:
        writers.append(module.pre_processor)
    loader = copy.copy(trainer.train_dataloader)
    loader._iterator = None  # persistent workers would reset the iterator that the first epoch is to use
    with torch.random.fork_rng(devices=[]):
        for index, loaded in enumerate(islice(loader, limit)):
            batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(loaded))
            for writer in writers:
                writer.on_train_batch_start(trainer, module, batch, index)
            yield batch


@torch.no_grad()
def fit_selection(model: RealNetModel, batches: Iterable[ImageBatch], *, total: int, trainer: Trainer) -> None:
    """Choose the channels of every feature map.

    Args:
        model: The network.
        batches: Labelled batches; those without a defect only count for the statistics of normal images.
        total: Number of batches, for the progress bar.
        trainer: Adds up the measurements of all processes.

    Raises:
        ValueError: If no batch holds a synthetic defect.
    """
    channels = model.selector.total
    losses = [torch.zeros(count, dtype=torch.float64) for count in channels]
    statistics = [ChannelStatistics(count) for count in channels]
    seen, images = torch.zeros(1, dtype=torch.float64), 0
    bar = track(batches, "RealNet: selecting features", total=total, transient=True, disable=not trainer.is_global_zero)
    for batch in bar:
        rows = drawn_rows(batch)
        normal = model.backbone(source_of(batch))
        has_normal = rows if batch.gt_label is None else rows | ~batch.gt_label.bool()  # a real defect has no normal
        for statistic, features in zip(statistics, normal, strict=True):
            if bool(has_normal.any()):
                statistic.update(features[has_normal])
        images += len(rows)
        if not bool(rows.any()):
            continue
        seen += int(rows.sum())
        anomalous = model.backbone(batch.image[rows].as_subclass(torch.Tensor))
        mask = mask_of(batch)[rows].float()[:, None]
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


def label_writers(trainer: Trainer) -> list[Callback]:
    """Return the callbacks that draw defects onto training batches."""
    return [callback for callback in trainer.callbacks if getattr(callback, "writes_labels", False)]


def source_of(batch: ImageBatch) -> torch.Tensor:
    """Return (B, 3, H, W): what each image was before its defect was drawn.

    Raises:
        ValueError: If the batch has defects but no sources.
    """
    source = getattr(batch, "source", None)
    if source is not None:
        return source.as_subclass(torch.Tensor)
    if batch.gt_label is not None and bool(batch.gt_label.any()):
        msg = (
            "RealNet reconstructs `batch.source`, the image before its defect, but this batch has defects and no "
            "`source`. Draw them with `anomalib_synth.callbacks.SynthesisCallback` and a generator, or wrap the "
            "datamodule in `anomalib_synth.data.SyntheticDataModule`; a transform alone does not keep the source."
        )
        raise ValueError(msg)
    return batch.image.as_subclass(torch.Tensor)


def mask_of(batch: ImageBatch) -> torch.Tensor:
    """Return (B, H, W) bool: where the defects are; a batch without any may come without a mask.

    Raises:
        ValueError: If the batch has defects but no masks.
    """
    if batch.gt_mask is not None:
        return batch.gt_mask.as_subclass(torch.Tensor) > 0
    if batch.gt_label is not None and bool(batch.gt_label.any()):
        msg = "RealNet needs `gt_mask` where `gt_label` is True. Give the datamodule a mask folder."
        raise ValueError(msg)
    return torch.zeros(len(batch.image), *batch.image.shape[-2:], dtype=torch.bool, device=batch.image.device)


def drawn_rows(batch: ImageBatch) -> torch.Tensor:
    """Return (B,) bool: the rows with a synthetic defect, whose source is a normal image."""
    synthetic = getattr(batch, "synthetic", None)
    if synthetic is not None:
        return synthetic.bool()
    if batch.gt_label is None:
        return torch.zeros(len(batch.image), dtype=torch.bool, device=batch.image.device)
    return batch.gt_label.bool()

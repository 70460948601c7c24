"""Training batches as a detector sees them: images with defects, their defect-free sources, and their masks."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Resize

from anomalib_synth.host.loaders import fresh_loader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Callback, Trainer


def labelled_batches(trainer: Trainer, module: AnomalibModule, limit: int) -> Iterator[ImageBatch]:
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
    yield from _prepared(trainer, module, fresh_loader(trainer.train_dataloader), writers, limit=limit)


def normal_batches(trainer: Trainer, module: AnomalibModule) -> Iterator[ImageBatch]:
    """Yield the whole training set once, in its own order, on the device and pre-processed; no callback draws defects.

    A dataset that draws defects itself still does, and supplies the sources. Every process sees the whole set. A loader
    whose data has no length is read as it is. torch's global random state is untouched.

    Args:
        trainer: The trainer, at the start of training.
        module: The model.
    """
    loader = trainer.train_dataloader
    if hasattr(loader.dataset, "__len__") and loader.batch_size is not None:
        loader = DataLoader(
            loader.dataset, batch_size=loader.batch_size, num_workers=loader.num_workers, collate_fn=loader.collate_fn
        )
    else:
        loader = fresh_loader(loader)
    yield from _prepared(trainer, module, loader, [] if module.pre_processor is None else [module.pre_processor])


def count_normal_batches(trainer: Trainer) -> int | None:
    """Return how many batches :func:`normal_batches` yields, None where the data has no length."""
    loader = trainer.train_dataloader
    if hasattr(loader.dataset, "__len__") and loader.batch_size is not None:
        return math.ceil(len(loader.dataset) / loader.batch_size)
    return None


def may_bring_defects(trainer: Trainer) -> bool:
    """Return whether a training batch of this run can hold a defect; True where that cannot be told.

    The defect may be real, or drawn by a callback, a dataset or a transform.
    """
    dataset = trainer.train_dataloader.dataset
    if label_writers(trainer) or not hasattr(dataset, "samples"):
        return True
    if hasattr(dataset, "generator") or bool((dataset.samples.label_index == 1).any()):
        return True
    augmentations = getattr(dataset, "augmentations", None)  # anomalib appends the model's own resize
    steps = augmentations.modules() if isinstance(augmentations, nn.Module) else [augmentations]
    return any(not isinstance(step, Resize | Compose | None) for step in steps)


def _prepared(
    trainer: Trainer,
    module: AnomalibModule,
    loader: Iterable[ImageBatch],
    writers: list[Callback],
    *,
    limit: int | None = None,
) -> Iterator[ImageBatch]:
    with torch.random.fork_rng(devices=[]):  # around the loader's iterator too, which draws a seed
        for index, loaded in enumerate(islice(loader, limit)):
            batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(loaded))
            for writer in writers:
                writer.on_train_batch_start(trainer, module, batch, index)
            yield batch


def label_writers(trainer: Trainer) -> list[Callback]:
    """Return the callbacks that draw defects onto training batches."""
    return [callback for callback in trainer.callbacks if getattr(callback, "writes_labels", False)]


def source_of(batch: ImageBatch) -> torch.Tensor:
    """Return each image as it was before its defect was drawn, (B, 3, H, W).

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


def mask_of(batch: ImageBatch, model: str) -> torch.Tensor:
    """Return where the defects are, (B, H, W) bool; a batch without defects needs no mask.

    Args:
        batch: A training batch.
        model: Name of the model, for the error message.

    Raises:
        ValueError: If the batch has defects but no masks.
    """
    if batch.gt_mask is not None:
        return batch.gt_mask.as_subclass(torch.Tensor) > 0
    if batch.gt_label is not None and bool(batch.gt_label.any()):
        msg = f"{model} needs `gt_mask` where `gt_label` is True. Give the datamodule a mask folder."
        raise ValueError(msg)
    return torch.zeros(len(batch.image), *batch.image.shape[-2:], dtype=torch.bool, device=batch.image.device)


def marks_of(batch: ImageBatch) -> torch.Tensor | None:
    """Return the marks of real defects (:mod:`anomalib_synth.defects`), (B, H, W) uint8; None if the batch has none.

    Marks are the uncertain part of the annotation; ``gt_mask`` holds the certain part.
    """
    marks = getattr(batch, "marks", None)
    return None if marks is None or not bool(marks.any()) else marks.as_subclass(torch.Tensor)


def drawn_rows(batch: ImageBatch) -> torch.Tensor:
    """Return the rows with a synthetic defect, whose source is a normal image, as (B,) bool."""
    synthetic = getattr(batch, "synthetic", None)
    if synthetic is not None:
        return synthetic.bool()
    if batch.gt_label is None:
        return torch.zeros(len(batch.image), dtype=torch.bool, device=batch.image.device)
    return batch.gt_label.bool()

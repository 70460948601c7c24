"""Fits what is closed-form: the Gaussians of all normals, in one pass over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from rich.progress import track

from anomalib_synth.detectors.batches import drawn_rows
from anomalib_synth.detectors.discriminative_padim.cache import digest_pixels
from anomalib_synth.detectors.discriminative_padim.normality import PositionMoments
from anomalib_synth.detectors.discriminative_padim.normals import TrainingNormals
from anomalib_synth.detectors.statistics import ChannelStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anomalib.data import ImageBatch

    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel
    from anomalib_synth.detectors.discriminative_padim.training_features import TrainingFeatures

_CHUNK = 8


def normal_images(batch: ImageBatch) -> list[torch.Tensor]:
    """Return the (3, H, W) normal images of a batch: good images, and the sources of drawn defects."""
    images, source = batch.image.as_subclass(torch.Tensor), getattr(batch, "source", None)
    if source is not None:
        good = drawn_rows(batch) | ~batch.gt_label.bool() if batch.gt_label is not None else drawn_rows(batch) | True
        return list(source.as_subclass(torch.Tensor)[good])
    return list(images if batch.gt_label is None else images[~batch.gt_label.bool()])


@torch.no_grad()
def fit_normality(
    model: DiscriminativePadimModel,
    features: TrainingFeatures,
    batches: Iterable[ImageBatch],
    *,
    total: int | None = None,
    show: bool = True,
) -> TrainingNormals:
    """Fit the Gaussians, unless they are fitted, and list the normals.

    Args:
        model: The network.
        features: Computes and keeps the features.
        batches: The training set, once.
        total: Number of batches, for the progress bar.
        show: Whether to show it.

    Returns:
        The distinct normals.

    Raises:
        ValueError: If there are fewer than two different normals.
    """
    normals = TrainingNormals()
    fits = not model.is_fitted
    moments = [PositionMoments() for _ in model.branches]
    statistics = [ChannelStatistics(model.features.channels) for _ in model.branches]
    bar = track(batches, "DiscriminativePadim: looking at the normals", total=total, transient=True, disable=not show)
    for raw in _chunks(_raw_features(model, features, bar, normals, fits=fits)):
        if not fits:
            continue
        for level, each in enumerate(raw):
            moments[level].update(each)
            statistics[level].update(each)
    if fits:
        for branch, moment, statistic in zip(model.branches, moments, statistics, strict=True):
            mean, deviation = (value.to(branch.mean.device) for value in statistic.mean_and_deviation())
            branch.mean.copy_(mean.view_as(branch.mean))
            branch.deviation.copy_(deviation.view_as(branch.deviation))
            branch.gaussian.fit(*moment.standardised(mean, deviation))
    return normals


def _raw_features(
    model: DiscriminativePadimModel,
    features: TrainingFeatures,
    batches: Iterable[ImageBatch],
    normals: TrainingNormals,
    *,
    fits: bool,
) -> Iterator[list[torch.Tensor]]:
    """Yield the raw features of each normal that is new, (C, h, w) a scale."""
    for batch in batches:
        for image in normal_images(batch):
            if fits and not len(normals):
                model.set_size((image.shape[-2], image.shape[-1]))
            key = digest_pixels(image)
            if normals.add(image, key):
                yield features.raw(image, key)


def _chunks(rows: Iterator[list[torch.Tensor]]) -> Iterator[list[torch.Tensor]]:
    """Stack rows, so that each pass over the sums takes several."""
    waiting: list[list[torch.Tensor]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == _CHUNK:
            yield [torch.stack(scale) for scale in zip(*waiting, strict=True)]
            waiting = []
    if waiting:
        yield [torch.stack(scale) for scale in zip(*waiting, strict=True)]

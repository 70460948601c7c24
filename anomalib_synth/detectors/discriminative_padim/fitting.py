"""Fits the Gaussians of all normals in closed form, in one pass over the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.detectors.batches import drawn_rows
from anomalib_synth.detectors.discriminative_padim.cache import digest_values
from anomalib_synth.detectors.discriminative_padim.normality import PositionMoments
from anomalib_synth.detectors.discriminative_padim.normals import TrainingNormals
from anomalib_synth.detectors.statistics import ChannelStatistics
from anomalib_synth.generators.seeding import image_key
from anomalib_synth.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anomalib.data import ImageBatch

    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel
    from anomalib_synth.detectors.discriminative_padim.training_features import TrainingFeatures

_CHUNK = 8
_LEAST = 3  # with one left out, two remain to give a deviation


def normal_images(batch: ImageBatch) -> list[tuple[torch.Tensor, str | None]]:
    """Return the normal images (3, H, W) of a batch with their names: good images, and the sources of drawn defects.

    An image onto which a transform has drawn a defect is not a normal if the batch holds no source.
    """
    images, source = batch.image.as_subclass(torch.Tensor), getattr(batch, "source", None)
    good = torch.ones(len(images), dtype=torch.bool) if batch.gt_label is None else ~batch.gt_label.bool().cpu()
    if source is not None:
        images, good = source.as_subclass(torch.Tensor), good | drawn_rows(batch).cpu()
    elif batch.gt_mask is not None:
        good &= ~batch.gt_mask.flatten(1).any(1).cpu()
    names = image_names(batch)
    return [(images[row], names[row]) for row in good.nonzero().flatten().tolist()]


def image_names(batch: ImageBatch) -> list[str | None]:
    """Return the key of each image's file; None for all if the batch has no paths."""
    if batch.image_path is None:
        return [None] * len(batch.image)
    return [image_key(path) for path in batch.image_path]


@torch.no_grad()
def fit_normality(
    model: DiscriminativePadimModel,
    features: TrainingFeatures,
    batches: Iterable[ImageBatch],
    *,
    total: int | None = None,
    show: bool = True,
) -> TrainingNormals:
    """Fit the Gaussians, unless they are fitted already, and list the normals.

    Args:
        model: The network.
        features: Computes and keeps the features.
        batches: One pass over the training set.
        total: Number of batches, for the progress bar.
        show: Whether to show the progress bar.

    Returns:
        The distinct normals.

    Raises:
        ValueError: If there are fewer than three different normals, or the Gaussians were fitted to other normals.
    """
    normals = TrainingNormals()
    fits = not model.is_fitted
    moments = [PositionMoments() for _ in model.branches]
    statistics = [ChannelStatistics(model.features.channels) for _ in model.branches]
    bar = track(batches, "DiscriminativePadim: looking at the normals", total=total, disable=not show)
    for raw in _chunks(_raw_features(model, features, bar, normals, fits=fits)):
        if not fits:
            continue
        for level, each in enumerate(raw):
            moments[level].update(each)
            statistics[level].update(each)
    if len(normals) < _LEAST:
        msg = (
            f"DiscriminativePadim needs at least {_LEAST} different normal images to train on, got {len(normals)}. "
            "Add images; copies under other names do not count."
        )
        raise ValueError(msg)
    if not fits and int(model.fingerprint) != normals.fingerprint():
        msg = (
            "This DiscriminativePadim has Gaussians of other normal images than those of this training set. Train a "
            "new model, or give the images it was trained on."
        )
        raise ValueError(msg)
    if fits:
        for branch, moment, statistic in zip(model.branches, moments, statistics, strict=True):
            mean, deviation = (value.to(branch.mean.device) for value in statistic.mean_and_deviation())
            branch.mean.copy_(mean.view_as(branch.mean))
            branch.deviation.copy_(deviation.view_as(branch.deviation))
            branch.gaussian.fit(*moment.standardised(mean, deviation))
        model.mark_fitted(normals.fingerprint())
    return normals


def _raw_features(
    model: DiscriminativePadimModel,
    features: TrainingFeatures,
    batches: Iterable[ImageBatch],
    normals: TrainingNormals,
    *,
    fits: bool,
) -> Iterator[list[torch.Tensor]]:
    """Yield the raw features of each normal not seen before, one (C, h, w) per scale."""
    for batch in batches:
        for image, name in normal_images(batch):
            if fits and not len(normals):
                model.make_room((image.shape[-2], image.shape[-1]))
            key = digest_values(image)
            if normals.add(image, key, name):
                yield features.raw(image, key)


def _chunks(rows: Iterator[list[torch.Tensor]]) -> Iterator[list[torch.Tensor]]:
    """Stack images into batches, so that each update of the sums takes several."""
    waiting: list[list[torch.Tensor]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == _CHUNK:
            yield [torch.stack(scale) for scale in zip(*waiting, strict=True)]
            waiting = []
    if waiting:
        yield [torch.stack(scale) for scale in zip(*waiting, strict=True)]

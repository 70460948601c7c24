"""Datasets of real normals and synthetic defects: kept on disk, or drawn while training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anomalib.data import AnomalibDataset
from anomalib.data.utils import LabelName
from torch.utils.data import DistributedSampler
from torchvision.tv_tensors import Image, Mask

from anomalib_synth.data.items import SyntheticImageBatch, SyntheticImageItem
from anomalib_synth.generators.seeding import Draws, derive_seeds, hash64, image_key
from anomalib_synth.images import read_mask, read_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pandas import DataFrame

    from anomalib_synth.generators import AnomalyGenerator


class SyntheticDataset(AnomalibDataset):
    """Normal images and kept synthetic defects, always with mask, source, quality and origin.

    Augmentations are called with ``(image, source, mask)`` for a defect and ``(image, mask)`` for a normal image, so
    image, source and mask get the same random geometry.

    Args:
        samples: anomalib's columns, and for kept defects ``source_path`` and ``quality``.
        name: Name of the dataset.
        category: Category of the dataset.
    """

    def __init__(self, samples: DataFrame, *, name: str, category: str | None) -> None:
        super().__init__()
        self._name = name
        self.category = category
        self.samples = samples
        self._samples.attrs["task"] = "segmentation"

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self._name

    @property
    def collate_fn(self) -> Callable:
        """Collate into a :class:`SyntheticImageBatch`."""
        return SyntheticImageBatch.collate

    def __iter__(self) -> Iterator[SyntheticImageItem]:
        """Iterate once over the items."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> SyntheticImageItem:
        """Return an item; the label of a kept defect stays anomalous even where a coarse resize loses its mask."""
        row = self.samples.iloc[index]
        image, mask, anomalous = _read_row(row)
        source = Image(read_tensor(Path(row.source_path), "data")) if anomalous else image
        image, source, mask = self._augment(image, source, mask)
        return SyntheticImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(int(anomalous)),
            image_path=row.image_path,
            mask_path=row.mask_path,
            source=source,
            quality=float(row.quality),
            synthetic=bool(anomalous),
        )

    def _augment(self, image: Image, source: Image, mask: Mask) -> tuple[Image, Image, Mask]:
        if not self.augmentations:
            return image, source, mask
        if source is image:
            image, mask = self.augmentations(image, mask)
            return image, image, mask
        return self.augmentations(image, source, mask)


class SyntheticTrainDataset(SyntheticDataset):
    """Training images, each of which carries a freshly drawn defect with some probability.

    The seed of a defect is ``hash64(seed, epoch, image path)``. An index counts on over the epochs, ``epoch * len +
    position`` (:class:`EpochSampler` yields such), so the epoch reaches the workers however they were started.

    Args:
        samples: anomalib's columns; anomalous rows, if any, must have a mask and are left as they are.
        generator: Draws the defects, at the resolution of the files, before augmentations.
        probability: Probability of a defect, in (0, 1).
        seed: Base seed.
        name: Name of the dataset.
        category: Category of the dataset.
    """

    def __init__(
        self,
        samples: DataFrame,
        generator: AnomalyGenerator,
        *,
        probability: float,
        seed: int,
        name: str,
        category: str | None,
    ) -> None:
        unmasked = samples[(samples.label_index == LabelName.ABNORMAL) & (samples.mask_path.fillna("") == "")]
        if len(unmasked):
            msg = (
                f"`base` has {len(unmasked)} anomalous training images without a mask, such as "
                f"{unmasked.iloc[0].image_path!r}. Give it a mask folder, or leave 'train' out of `splits`."
            )
            raise ValueError(msg)
        super().__init__(samples, name=name, category=category)
        self.generator = generator
        self.probability = probability
        self.seed = seed

    def __getitem__(self, index: int) -> SyntheticImageItem:
        """Return the item at ``index % len`` as drawn in epoch ``index // len``; its label follows its mask."""
        epoch, position = divmod(index, len(self))
        row = self.samples.iloc[position]
        image, mask, anomalous = _read_row(row)
        source, quality, real = image, 1.0, anomalous
        chance = Draws(hash64(self.seed, epoch, image_key(row.image_path), "chance")).unit()
        if not anomalous and chance < self.probability:
            sample = self.generator(image[None], seeds=derive_seeds(self.seed, epoch, [image_key(row.image_path)]))
            if bool(sample.accepted[0]):
                image, source = Image(sample.image[0]), Image(sample.source[0])
                mask = Mask(sample.mask[0, 0].to(torch.uint8))
                quality = float(sample.quality[0])
        image, source, mask = self._augment(image, source, mask)
        anomalous = bool(mask.any())
        return SyntheticImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(int(anomalous)),
            image_path=row.image_path,
            source=source,
            quality=quality if anomalous else 1.0,
            synthetic=anomalous and not real,
        )


class EpochSampler(DistributedSampler):
    """Shuffles with a seed and yields ``epoch * len + position``.

    Being a ``DistributedSampler`` it shards itself, and Lightning leaves it alone and calls ``set_epoch`` on it.
    """

    def __iter__(self) -> Iterator[int]:
        """Iterate over the indices of this epoch and rank."""
        offset = self.epoch * len(self.dataset)
        return (offset + position for position in super().__iter__())


def _read_row(row: Any) -> tuple[Image, Mask, bool]:
    """Read the image and the mask of a row: (C, H, W) float32 and (H, W) uint8."""
    image = Image(read_tensor(Path(row.image_path), "data"))
    anomalous = row.label_index == LabelName.ABNORMAL
    if not anomalous:
        return image, Mask(torch.zeros(image.shape[-2:], dtype=torch.uint8)), False
    inside = np.ascontiguousarray(read_mask(Path(row.mask_path), "data"))
    return image, Mask(torch.from_numpy(inside).to(torch.uint8)), True

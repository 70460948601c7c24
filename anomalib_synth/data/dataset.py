"""Datasets of real normals and synthetic defects: kept on disk, or drawn while training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from anomalib.data import AnomalibDataset
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.data.utils import LabelName
from torch.utils.data import DistributedSampler
from torchvision.transforms.v2 import Resize
from torchvision.tv_tensors import Image, Mask

from anomalib_synth.data.items import SyntheticImageBatch, SyntheticImageItem
from anomalib_synth.functional.field_of_view import CoverageMask, in_view, sees_all
from anomalib_synth.generators.seeding import derive_seeds, gets_defect, hash64, image_key
from anomalib_synth.images import decode_mask, read_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pandas import DataFrame

    from anomalib_synth.generators import AnomalyGenerator

_TRIES = 4  # draws until the model sees something of the defect


class SyntheticDataset(AnomalibDataset):
    """Normal images and kept synthetic defects, always with mask, source, quality and origin.

    Augmentations are called with ``(image, source, mask)`` for a defect and ``(image, mask)`` for a normal image, so
    image, source and mask get the same random geometry. When a mask is reduced, a pixel stays marked if any part of it
    was, so that no defect in the image gets lost. A defect of which the augmentations and the model's own transform
    leave nothing does not count: its image is labelled normal.

    Args:
        samples: anomalib's columns, and for kept defects ``source_path`` and ``quality`` in [0, 1].
        name: Name of the dataset.
        category: Category of the dataset.
    """

    def __init__(self, samples: DataFrame, *, name: str, category: str | None) -> None:
        super().__init__()
        self._name = name
        self.category = category
        self.samples = samples
        self.samples.attrs["task"] = "segmentation"
        self._transform: Callable | None = None

    def look_through(self, transform: Callable | None) -> int:
        """Take the transform of the model's pre-processor, and label each image by what it leaves of the defect.

        Returns:
            The number of defects that lie wholly outside what the model sees; their images count as normal.
        """
        self._transform = transform
        resizes = extract_transforms_by_type(transform, Resize)  # anomalib's datamodules apply the first when they read
        drawn = self.samples.mask_path.fillna("") != ""
        seen = drawn.copy()
        for place in [] if sees_all(transform) else seen.index[drawn]:
            mask = _read_mask(self.samples.mask_path[place])
            seen[place] = self._sees(resizes[0](mask) if resizes else mask)
        self.samples.loc[drawn, "label_index"] = seen[drawn].map({True: LabelName.ABNORMAL, False: LabelName.NORMAL})
        self.samples.loc[drawn, "label"] = seen[drawn].map({True: "abnormal", False: "normal"})
        return int((drawn & ~seen).sum())

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
        """Return an item; its label follows what the model sees of its mask."""
        row = self.samples.iloc[index]
        image, mask, anomalous = _read_row(row)
        source = Image(read_tensor(Path(row.source_path), "data")) if anomalous else image
        image, source, mask = self._augment(image, source, mask)
        seen = anomalous and self._sees(mask)
        return SyntheticImageItem(
            image=image,
            gt_mask=mask if seen else torch.zeros_like(mask),
            gt_label=torch.tensor(int(seen)),
            image_path=row.image_path,
            mask_path=row.mask_path if seen else "",
            source=source,
            quality=float(row.quality) if seen else 1.0,
            synthetic=seen,
        )

    def _sees(self, mask: Mask) -> bool:
        """Return whether the model's transform leaves anything of an augmented mask (H, W)."""
        return bool(mask.any()) and bool(in_view(mask[None], self._transform)[0])

    def _augment(self, image: Image, source: Image, mask: Mask) -> tuple[Image, Image, Mask]:
        if not self.augmentations:
            return image, source, mask
        if source is image:
            image, mask = self.augmentations(image, mask)
            return image, image, mask
        return self.augmentations(image, source, mask)


class SyntheticTrainDataset(SyntheticDataset):
    """Training images, each of which carries a freshly drawn defect with some probability.

    The seed of a defect follows from the base seed, the epoch and the last three parts of the image's path. An index
    counts on over the epochs: it is ``epoch * len + position``, as :class:`EpochSampler` yields it. So the epoch
    reaches the workers however they were started.

    Args:
        samples: anomalib's columns; anomalous rows, if any, must have a mask and are left as they are.
        generator: Draws the defects, at the resolution of the files, before augmentations.
        probability: Probability of a defect, in (0, 1).
        seed: Base seed.
        name: Name of the dataset.
        category: Category of the dataset.

    Raises:
        ValueError: If an anomalous image has no mask.
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

    def look_through(self, transform: Callable | None) -> int:
        """Take the transform of the model's pre-processor; a defect of which it leaves nothing is drawn again."""
        self._transform = transform
        return 0

    def __getitem__(self, index: int) -> SyntheticImageItem:
        """Return the item at ``index % len`` as drawn in epoch ``index // len``; its label follows its mask."""
        epoch, position = divmod(index, len(self))
        row = self.samples.iloc[position]
        image, mask, anomalous = _read_row(row)
        seed = int(derive_seeds(self.seed, epoch, [image_key(row.image_path)])[0])
        drawn = None
        if not anomalous and gets_defect(seed, self.probability):
            drawn = self._draw(image, seed, row.image_path)
        if drawn is not None:
            image, source, mask, quality = drawn
        else:
            image, source, mask = self._augment(image, image, mask)
            quality = 1.0
        seen = self._sees(mask)
        return SyntheticImageItem(
            image=image,
            gt_mask=mask if seen else torch.zeros_like(mask),
            gt_label=torch.tensor(int(seen)),
            image_path=row.image_path,
            source=source,
            quality=quality,
            synthetic=drawn is not None,
        )

    def _draw(self, image: Image, seed: int, path: str) -> tuple[Image, Image, Mask, float] | None:
        """Return an augmented image, source and mask, and the quality of the defect; None if the model sees none.

        A defect outside the model's field of view is drawn again, with a seed that follows from the first.
        """
        for attempt in range(_TRIES):
            again = hash64(seed, "in view", attempt) if attempt else seed
            sample = self.generator(image[None], seeds=[again], **self.generator.name_images([path]))
            if not bool(sample.accepted[0]):
                return None
            mask = CoverageMask(sample.mask[0, 0].to(torch.uint8))
            shown = self._augment(Image(sample.image[0]), Image(sample.source[0]), mask)
            if self._sees(shown[-1]):
                return *shown, float(sample.quality[0])
        return None


class EpochSampler(DistributedSampler):
    """Shuffles with a seed and yields ``epoch * len + position``.

    As a ``DistributedSampler`` it gives each process its share; Lightning does not replace it, and calls ``set_epoch``.
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
        return image, CoverageMask(torch.zeros(image.shape[-2:], dtype=torch.uint8)), False
    return image, _read_mask(row.mask_path), True


def _read_mask(path: str) -> CoverageMask:
    """Read a mask: (H, W) uint8."""
    return CoverageMask(torch.from_numpy(np.ascontiguousarray(decode_mask(Path(path), "data"))).to(torch.uint8))

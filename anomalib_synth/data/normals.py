"""The training normals of a run, as generators are prepared with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from anomalib.data.transforms.utils import extract_transforms_by_type
from torchvision.transforms.v2 import Resize
from torchvision.tv_tensors import Image as TvImage

from anomalib_synth.generators.prepared import evenly_spread
from anomalib_synth.generators.validation import to_unit_range
from anomalib_synth.host.loaders import fresh_loader
from anomalib_synth.images import (
    ImageFolder,
    ImageSize,
    check_host_agrees,
    check_host_masks,
    list_images,
    read_tensor,
    to_tensor,
    warn_of_left_out,
)
from anomalib_synth.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch import LightningModule, Trainer
    from torchvision.transforms.v2 import Transform

_QUIET = 64


def read_folder(folder: Path, *, image_size: int, limit: int) -> Iterator[torch.Tensor]:
    """Yield images of a folder, (3, image_size, image_size) in [0, 1].

    Args:
        folder: Folder, searched recursively.
        image_size: Side in pixels.
        limit: Largest number of images, evenly spread over the sorted paths.

    Raises:
        ValueError: If the folder does not exist, holds no image, or holds one that cannot be read.
    """
    listing = list_images(folder)
    warn_of_left_out(listing.left_out, listing.argument)
    files = dict(evenly_spread(list(listing.files.items()), limit))
    images = ImageFolder(files, image_size=ImageSize(height=image_size, width=image_size))
    for _, pixels in images:
        yield to_tensor(pixels)
    images.require(len(files), "normals")


def training_normals(trainer: Trainer, *, limit: int) -> Iterator[torch.Tensor]:
    """Yield training normals (C, H, W) in [0, 1] at the size the model sees, without random augmentation.

    Reads the images of the datamodule's ``train_data`` from their files, resized as the model's pre-processor does;
    a run with bare dataloaders is sampled from its first batches instead.

    Args:
        trainer: A trainer whose data is set up.
        limit: Largest number of images.

    Raises:
        ValueError: If the training set holds no normal image.
    """
    dataset = getattr(trainer.datamodule, "train_data", None)
    if dataset is None or not hasattr(dataset, "samples"):
        yield from _from_batches(trainer, limit)
        return
    samples = dataset.samples
    paths = evenly_spread(sorted(samples[samples.label_index == 0].image_path), limit)
    if not paths:
        msg = "The training set holds no normal image to prepare the generator with. Check the datamodule's normal_dir."
        raise ValueError(msg)
    resize = model_resize(trainer.lightning_module)
    for path in track(paths, "Preparing the generator", disable=len(paths) < _QUIET):
        image = TvImage(read_tensor(Path(path), "data"))
        yield (resize(image) if resize else image).clamp(0, 1)


def check_images_of(datamodule: object, argument: str) -> None:
    """Refuse a datamodule, set up, whose images or masks anomalib would read differently from this package.

    Raises:
        ValueError: If it has such files; the message names examples and the command that converts them.
    """
    images: set[str] = set()
    masks: set[str] = set()
    for split in ("train", "val", "test"):
        samples = getattr(getattr(datamodule, f"{split}_data", None), "samples", None)
        if samples is None or "image_path" not in samples:
            continue
        images |= set(samples.image_path)
        if "mask_path" in samples:
            masks |= {path for path in samples[samples.label_index == 1].mask_path if isinstance(path, str) and path}
    check_host_agrees(images, argument)
    check_host_masks(masks, argument)


def model_resize(model: LightningModule) -> Transform | None:
    """Return the resize of the model's pre-processor, which anomalib's datamodules apply when they read an image."""
    found = extract_transforms_by_type(model_transform(model), Resize)
    return found[0] if found else None


def model_transform(model: LightningModule) -> Transform | None:
    """Return the transform of the model's pre-processor, None where it has none."""
    return getattr(getattr(model, "pre_processor", None), "transform", None)


def _from_batches(trainer: Trainer, limit: int) -> Iterator[torch.Tensor]:
    """Yield the normal images of a run's first training batches, leaving torch's global random state as it was.

    The images are augmented as in training and, on several devices, come from each device's own share. Use a datamodule
    where samples must not depend on the number of devices.
    """
    loader = trainer.train_dataloader
    if loader is None:
        trainer.fit_loop.setup_data()
        loader = trainer.train_dataloader
    count = 0
    with torch.random.fork_rng():
        for batch in fresh_loader(loader):
            images = batch.image if batch.gt_label is None else batch.image[~batch.gt_label.bool()]
            for image in to_unit_range(images):
                yield image
                count += 1
                if count == limit:
                    return

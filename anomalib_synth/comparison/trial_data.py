"""Checks that the images of a run allow a fair test, and digests them."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from anomalib_synth.calibration.statistics import least_count
from anomalib_synth.images import digest_file, digest_images

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anomalib.data import AnomalibDataModule
    from lightning.pytorch import Callback


def check_images(name: str, datamodule: AnomalibDataModule, rate: float | None) -> None:
    """Refuse a datamodule, set up, whose images do not allow a fair test.

    Args:
        name: Name of the data set, for errors.
        datamodule: The datamodule.
        rate: False-alarm rate that a threshold is set for, in (0, 1); None for no threshold.

    Raises:
        ValueError: If the test set lacks good or defective images or shares images with training or validation, or
            there are too few normals for the threshold.
    """
    labels = set(datamodule.test_data.samples.label_index)
    if labels != {0, 1}:
        lacking = "defective" if 1 not in labels else "good"
        msg = f"`data.{name}` must have good and defective test images, got no {lacking} ones. Check its folders."
        raise ValueError(msg)
    tested = set(digest_images(datamodule.test_data.samples.image_path))
    for role, images in (("training", datamodule.train_data), ("validation", datamodule.val_data)):
        if shared := len(tested.intersection(digest_images(images.samples.image_path))):
            msg = (
                f"`data.{name}` must be tested on images of their own, but {shared} of {len(tested)} test images are "
                f"{role} images too. Give it other folders, or leave `normal_test_dir` out."
            )
            raise ValueError(msg)
    good = datamodule.val_data.samples.image_path[datamodule.val_data.samples.label_index == 0]
    normals = len(set(digest_images(good)))  # copies of one image count once
    if rate is not None and normals // 2 < least_count(rate):
        least = f"{-(-1000 // (normals // 2 + 1)) / 1000:g}"
        msg = (
            f"`false_alarm_rate` {rate:g} takes at least {2 * least_count(rate)} good validation images (half of them "
            f"set the threshold, half measure it), `data.{name}` has {normals}. Raise its `val_split_ratio`, or ask "
            f"for a rate of at least {least}, or set it to null to leave thresholds out."
        )
        raise ValueError(msg)


def digest_data(datamodule: AnomalibDataModule) -> str:
    """Return a digest of all images and masks, with their labels and splits."""
    lines = []
    for role in ("train", "val", "test"):
        samples = getattr(datamodule, f"{role}_data").samples
        masks = samples["mask_path"] if "mask_path" in samples else [""] * len(samples)
        for image, mask, label in zip(samples.image_path, masks, samples.label_index, strict=True):
            drawn = digest_file(mask) if isinstance(mask, str) and mask else ""
            lines.append(f"{role} {digest_file(image)} {drawn} {label}")
    return blake2b("\n".join(sorted(lines)).encode(), digest_size=8).hexdigest()


def digest_generators(callbacks: Iterable[Callback]) -> str:
    """Return a digest of the files and weights that the callbacks' generators draw with; ``""`` for none."""
    found: list[Any] = [getattr(each, name, None) for each in callbacks for name in ("generator", "fine_generator")]
    parts = [
        f"{getattr(generator, 'files_digest', '')} {getattr(generator, 'weights_hash', '')}"
        for generator in found
        if generator is not None
    ]
    return blake2b("\n".join(parts).encode(), digest_size=8).hexdigest() if parts else ""

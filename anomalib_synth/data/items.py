"""Items and batches that know which defects are synthetic, how good they are, and the image they were drawn on."""

from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.data.dataclasses.generic import FieldDescriptor
from anomalib.data.dataclasses.numpy import NumpyImageBatch, NumpyImageItem
from torchvision.tv_tensors import Image, Mask

from anomalib_synth.functional.field_of_view import CoverageMask


def _as_tensor(name: str, rank: int, value: torch.Tensor | float | None) -> torch.Tensor | None:
    """Check what a field is set to, and give it the field's type."""
    if value is None:
        return None
    if name == "source" and not isinstance(value, torch.Tensor):
        msg = f"`source` must be a tensor with {rank} dimensions, got {type(value).__name__}."
        raise ValueError(msg)
    tensor = torch.as_tensor(value, dtype=torch.bool if name == "synthetic" else torch.float32)
    if tensor.ndim != rank:
        msg = f"`{name}` must be a tensor with {rank} dimensions, got {tuple(tensor.shape)}."
        raise ValueError(msg)
    return Image(tensor) if name == "source" else tensor


@dataclass
class _SyntheticFields:
    """The extra fields; outside the batch class, whose type hints cannot be resolved, as in anomalib."""

    source: FieldDescriptor[Image | None] = FieldDescriptor(validator_name="validate_source")  # noqa: RUF009
    quality: FieldDescriptor[torch.Tensor | None] = FieldDescriptor(validator_name="validate_quality")  # noqa: RUF009
    synthetic: FieldDescriptor[torch.Tensor | None] = FieldDescriptor(validator_name="validate_synthetic")  # noqa: RUF009


def _keep_coverage(mask: Mask | None) -> Mask | None:
    """Give a mask the type whose resizing loses no defect; anomalib's own check has taken it away."""
    return mask if mask is None else CoverageMask(mask)


@dataclass
class SyntheticImageItem(_SyntheticFields, ImageItem):
    """An image item with its source, its quality and its origin.

    Always set all three: anomalib's collate drops a field that is None in the first item of a batch.

    Args:
        source: (C, H, W) float32, the image without the defect; for a real image, the image itself.
        quality: Scalar in [0, 1]; 1 for a real image.
        synthetic: Whether the image carries a synthetic defect.

    Example:
        >>> image = torch.rand(3, 8, 8)
        >>> SyntheticImageItem(image=image, source=image, quality=1.0, synthetic=False).quality
        tensor(1.)
    """

    @staticmethod
    def validate_gt_mask(mask: torch.Tensor | None) -> Mask | None:
        """Check the mask as anomalib does, and keep its type."""
        return _keep_coverage(ImageItem.validate_gt_mask(mask))

    validate_source = staticmethod(partial(_as_tensor, "source", 3))
    validate_quality = staticmethod(partial(_as_tensor, "quality", 0))
    validate_synthetic = staticmethod(partial(_as_tensor, "synthetic", 0))

    def to_numpy(self) -> NumpyImageItem:
        """Convert to anomalib's NumPy item, which has no room for the extra fields."""
        return ImageItem(**_host_fields(self, ImageItem)).to_numpy()


@dataclass
class SyntheticImageBatch(_SyntheticFields, ImageBatch):
    """A batch of :class:`SyntheticImageItem`.

    Args:
        source: (B, C, H, W) float32, the images without their defects.
        quality: (B,) float32 in [0, 1]; 1 for real images.
        synthetic: (B,) bool; True where the image carries a synthetic defect.
    """

    item_class: ClassVar[type[SyntheticImageItem]] = SyntheticImageItem

    @staticmethod
    def validate_gt_mask(gt_mask: torch.Tensor | None) -> Mask | None:
        """Check the masks as anomalib does, and keep their type."""
        return _keep_coverage(ImageBatch.validate_gt_mask(gt_mask))

    validate_source = staticmethod(partial(_as_tensor, "source", 4))
    validate_quality = staticmethod(partial(_as_tensor, "quality", 1))
    validate_synthetic = staticmethod(partial(_as_tensor, "synthetic", 1))

    def to_numpy(self) -> NumpyImageBatch:
        """Convert to anomalib's NumPy batch, which has no room for the extra fields."""
        return ImageBatch(**_host_fields(self, ImageBatch)).to_numpy()


def _host_fields(item: ImageItem | ImageBatch, host: type) -> dict:
    return {field.name: getattr(item, field.name) for field in fields(host)}

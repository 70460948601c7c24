"""Items and batches that know which defects are synthetic, how good they are, and the image they were drawn on."""

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.data.dataclasses.generic import FieldDescriptor
from anomalib.data.dataclasses.numpy import NumpyImageBatch, NumpyImageItem
from torchvision.tv_tensors import Image


@dataclass
class _SyntheticFields:
    """The extra fields; declared outside the batch class, as anomalib does, whose type hints cannot be resolved."""

    source: FieldDescriptor[Image | None] = FieldDescriptor(validator_name="validate_source")  # noqa: RUF009
    quality: FieldDescriptor[torch.Tensor | None] = FieldDescriptor(validator_name="validate_quality")  # noqa: RUF009
    synthetic: FieldDescriptor[torch.Tensor | None] = FieldDescriptor(validator_name="validate_synthetic")  # noqa: RUF009


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
    def validate_source(source: torch.Tensor | None) -> Image | None:
        """Check that the source is a (C, H, W) image."""
        if source is None:
            return None
        _check_rank("source", source, 3)
        return Image(source, dtype=torch.float32)

    @staticmethod
    def validate_quality(quality: torch.Tensor | float | None) -> torch.Tensor | None:
        """Turn the quality into a scalar tensor."""
        if quality is None:
            return None
        quality = torch.as_tensor(quality, dtype=torch.float32)
        _check_rank("quality", quality, 0)
        return quality

    @staticmethod
    def validate_synthetic(synthetic: torch.Tensor | bool | None) -> torch.Tensor | None:
        """Turn the flag into a scalar tensor."""
        if synthetic is None:
            return None
        synthetic = torch.as_tensor(synthetic, dtype=torch.bool)
        _check_rank("synthetic", synthetic, 0)
        return synthetic

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
    def validate_source(source: torch.Tensor | None) -> Image | None:
        """Check that the sources are (B, C, H, W) images."""
        if source is None:
            return None
        _check_rank("source", source, 4)
        return Image(source, dtype=torch.float32)

    @staticmethod
    def validate_quality(quality: torch.Tensor | None) -> torch.Tensor | None:
        """Check that there is one quality an image."""
        if quality is None:
            return None
        quality = torch.as_tensor(quality, dtype=torch.float32)
        _check_rank("quality", quality, 1)
        return quality

    @staticmethod
    def validate_synthetic(synthetic: torch.Tensor | None) -> torch.Tensor | None:
        """Check that there is one flag an image."""
        if synthetic is None:
            return None
        synthetic = torch.as_tensor(synthetic, dtype=torch.bool)
        _check_rank("synthetic", synthetic, 1)
        return synthetic

    def to_numpy(self) -> NumpyImageBatch:
        """Convert to anomalib's NumPy batch, which has no room for the extra fields."""
        return ImageBatch(**_host_fields(self, ImageBatch)).to_numpy()


def _host_fields(item: ImageItem | ImageBatch, host: type) -> dict:
    return {field.name: getattr(item, field.name) for field in fields(host)}


def _check_rank(name: str, value: torch.Tensor, rank: int) -> None:
    if not isinstance(value, torch.Tensor) or value.ndim != rank:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        msg = f"`{name}` must be a tensor with {rank} dimensions, got {got}."
        raise ValueError(msg)

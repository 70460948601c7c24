"""What a generator takes from the normals of a product before it draws: donors, noise floor, foreground."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from anomalib_synth.functional.foreground import (
    distance_to_background,
    fit_background,
    otsu_threshold,
    segment_part,
    to_grid,
)
from anomalib_synth.functional.masks import box_blur
from anomalib_synth.generators.families.palette import Palette, measure_palette

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

T = TypeVar("T")
_NOISE_GRID = 16
_MAX_STATISTICS = 256
_MAX_COLOURED = 32
_SURE = 0.8
_ONE_PART = 0.6


@dataclass(frozen=True, kw_only=True)
class ForegroundModel:
    """How to tell the part from its background, and why it was decided so.

    Args:
        threshold: Least difference from an image's own background, in image units; None: the whole image is the part.
        area: Median share of the image that the part covers on the normals, in (0, 1].
        note: The reason, in words for a log.
    """

    threshold: float | None
    area: float
    note: str

    def segment(self, images: torch.Tensor) -> torch.Tensor | None:
        """Segment images: (B, C, H, W) -> (B, 1, h, w) bool on a coarse grid, or None for the whole image.

        An image whose part would have less than a third or more than three times the usual area counts as a part
        everywhere: a defect on the background is better than no defect on the part.
        """
        if self.threshold is None:
            return None
        part = segment_part(distance_to_background(to_grid(images)), self.threshold)
        share = part.flatten(1).sum(1) / part[0].numel()
        odd = (share < self.area / 3) | (share > self.area * 3)
        return part | odd.view(-1, 1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class PreparedNormals:
    """Statistics of the normals of one product. Build it with :meth:`from_images`.

    Args:
        digest: Digest of the normals, independent of their order.
        count: Number of normals seen.
        donors: (D, C, H, W) uint8, the normals from which patches are taken.
        noise: (16, 16) mean absolute high-pass response of the normals, in image units.
        foreground: How to find the part.
        background: (C,) typical colour of the border, in image units.
        palette: The product's colours; None for images of one channel.
    """

    digest: str
    count: int
    donors: torch.Tensor
    noise: torch.Tensor
    foreground: ForegroundModel
    background: torch.Tensor
    palette: Palette | None = None

    @classmethod
    def from_images(cls, normals: Iterable[torch.Tensor], *, max_donor_bytes: int = 128 * 2**20) -> PreparedNormals:
        """Measure the normals in one pass, and keep at most ``max_donor_bytes`` of them as donors.

        Donors and statistics use the images with the smallest content hashes, so neither depends on the order.

        Args:
            normals: Images (C, H, W) or batches (B, C, H, W) in [0, 1]; sizes may differ, channels may not.
            max_donor_bytes: Memory for donors, as 8-bit images.

        Raises:
            ValueError: If there is no image, or an image is not a finite float image in [0, 1].
        """
        kept: dict[bytes, torch.Tensor] = {}
        grids: dict[bytes, torch.Tensor] = {}
        hashes: list[bytes] = []
        noise = torch.zeros(_NOISE_GRID, _NOISE_GRID, dtype=torch.int64)
        for image in _single_images(normals):
            levels = (image * 255).round().to(torch.uint8)
            key = blake2b(levels.numpy().tobytes(), digest_size=16, key=str(tuple(levels.shape)).encode()).digest()
            hashes.append(key)
            image = levels.float() / 255  # noqa: PLW2901  (measure exactly what the digest covers)
            _keep_smallest(kept, key, levels, limit=max(1, max_donor_bytes // levels.numel()))
            _keep_smallest(grids, key, to_grid(image[None]), limit=_MAX_STATISTICS)
            high_pass = (image - box_blur(image[None])[0]).abs().mean(0)
            noise += (F.adaptive_avg_pool2d(high_pass[None], _NOISE_GRID)[0] * 2.0**20).round().long()
        if not hashes:
            msg = "`normals` must hold at least one image, got none. Check the folder or the training split."
            raise ValueError(msg)
        kept_grids = [grids[key] for key in sorted(grids)]
        foreground, background = _fit_foreground(kept_grids)
        return cls(
            digest=blake2b(b"".join(sorted(hashes)), digest_size=16).hexdigest(),
            count=len(hashes),
            donors=_stack([kept[key] for key in sorted(kept)]),
            noise=(noise.double() / (len(hashes) * 2.0**20)).float(),
            foreground=foreground,
            background=background,
            palette=_measure_colours(kept_grids),
        )


def evenly_spread(items: Sequence[T], limit: int) -> list[T]:
    """Return at most ``limit`` items, evenly spread over the sequence.

    Example:
        >>> evenly_spread("abcdef", 3)
        ['a', 'c', 'e']
    """
    return list(items) if len(items) <= limit else [items[index * len(items) // limit] for index in range(limit)]


def _single_images(normals: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield float32 images (C, H, W) on the CPU, checked."""
    channels = None
    for position, item in enumerate(normals):
        if not isinstance(item, torch.Tensor) or not item.is_floating_point() or item.ndim not in {3, 4}:
            got = tuple(item.shape) if isinstance(item, torch.Tensor) else type(item).__name__
            msg = f"`normals` must yield float images (C, H, W) or (B, C, H, W), got {got} at position {position}."
            raise ValueError(msg)
        images = item.detach().as_subclass(torch.Tensor).float().cpu()
        for image in images if images.ndim == 4 else images[None]:
            if not torch.isfinite(image).all() or image.min() < 0 or image.max() > 1:
                msg = (
                    f"`normals` must be finite and in [0, 1], but the image at position {position} is not. "
                    "Divide 8-bit images by 255."
                )
                raise ValueError(msg)
            if channels not in {None, image.shape[0]}:
                msg = f"`normals` must all have the same number of channels, got {channels} and {image.shape[0]}."
                raise ValueError(msg)
            channels = image.shape[0]
            yield image


def _keep_smallest(kept: dict[bytes, torch.Tensor], key: bytes, value: torch.Tensor, *, limit: int) -> None:
    """Add an entry, then drop the largest keys beyond ``limit``."""
    kept[key] = value
    while len(kept) > limit:
        del kept[max(kept)]


def _stack(images: list[torch.Tensor]) -> torch.Tensor:
    """Stack uint8 images; those of another size are resized to that of the first."""
    size = images[0].shape[-2:]
    resized = [
        image
        if image.shape[-2:] == size
        else F.interpolate(image[None].float(), size=size, mode="area")[0].round().to(torch.uint8)
        for image in images
    ]
    return torch.stack(resized)


def _measure_areas(distances: list[torch.Tensor], threshold: float) -> torch.Tensor:
    """Return the share of each normal that the part covers, at a threshold."""
    return torch.tensor([float(segment_part(one, threshold).float().mean()) for one in distances])


def _largest_share(part: torch.Tensor) -> float:
    """Return the share of a part (1, 1, h, w) in its largest piece: the components of a board are many pieces."""
    labels, count = ndimage.label(part[0, 0].numpy(), np.ones((3, 3)))
    return float(np.bincount(labels.flatten())[1:].max() / (labels > 0).sum()) if count else 1.0


def _measure_colours(grids: list[torch.Tensor]) -> Palette | None:
    """Measure the product's colours on the cells of evenly chosen grids."""
    flat = torch.cat([grid.flatten(2) for grid in evenly_spread(grids, _MAX_COLOURED)], dim=2)
    return measure_palette(flat.unsqueeze(2))


def _fit_foreground(grids: list[torch.Tensor]) -> tuple[ForegroundModel, torch.Tensor]:
    """Decide from the normals whether there is an object on a plain background, and with which threshold."""
    statistics = [fit_background(grid) for grid in grids]
    background = torch.stack([surface[0].mean((1, 2)) for surface, _ in statistics]).median(0).values
    spread = float(torch.stack([value for _, value in statistics]).median())
    whole = 1.0

    def rejected(note: str) -> tuple[ForegroundModel, torch.Tensor]:
        return ForegroundModel(threshold=None, area=whole, note=f"whole image: {note}"), background

    if spread > 0.08:
        return rejected(f"the border is not plain (spread {spread:.3f} > 0.08)")
    distances = [
        (grid - surface).abs().amax(1, keepdim=True) for grid, (surface, _) in zip(grids, statistics, strict=True)
    ]
    distance = torch.cat([one.flatten() for one in distances])
    split = otsu_threshold(distance)
    inside, outside = distance[distance > split], distance[distance <= split]
    contrast = float(inside.mean() - outside.mean()) if len(inside) else 0.0
    if contrast < max(0.12, 4 * spread):
        return rejected(f"too little contrast between border and rest ({contrast:.3f})")
    threshold = max(0.5 * split, 2.5 * spread, 0.03)
    areas = _measure_areas(distances, threshold)
    without_shadow = _measure_areas(distances, max(split, threshold))
    if without_shadow.median() >= _SURE * areas.median():  # the small rest between both thresholds is a soft shadow
        threshold, areas = max(split, threshold), without_shadow
    area = float(areas.median())
    if not 0.03 <= area <= 0.97:
        return rejected(f"the part would take {area:.0%} of the image")
    whole_part = float(torch.tensor([_largest_share(segment_part(one, threshold)) for one in distances]).median())
    if whole_part < _ONE_PART:
        return rejected(f"what differs from the border lies in pieces (the largest has {whole_part:.0%} of it)")
    odd = float(((areas < area / 3) | (areas > 3 * area)).float().mean())
    if odd > 0.2:
        return rejected(f"the part's area varies too much ({odd:.0%} of the normals are off by a factor of three)")
    return ForegroundModel(
        threshold=threshold, area=area, note=f"object on a plain background, {area:.0%} of the image"
    ), background

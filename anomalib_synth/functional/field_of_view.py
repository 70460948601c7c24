"""The part of a mask that a model sees after its transform: crops remove parts, resizing loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import Compose, Grayscale, Normalize, Pad, Resize, ToDtype
from torchvision.transforms.v2 import functional as tvf
from torchvision.tv_tensors import Image, Mask, wrap

if TYPE_CHECKING:
    from collections.abc import Callable

_BENT = 0.05  # largest deviation from an affine transform, in halves of the image side
_WHOLE = (Grayscale, Normalize, Pad, Resize, ToDtype)  # transforms that keep the whole image


class CoverageMask(Mask):
    """A mask that torchvision's transforms shrink by any overlap: a pixel is set if any pixel in its area was set.

    torchvision picks every n-th pixel of a plain mask, so a thinner scratch breaks up or vanishes, and the image would
    keep its label without a mask. Warps, where they would lose the whole mask, are applied to a mask one pixel thicker.
    All other transforms treat this class as a plain mask.

    Example:
        >>> from torchvision.transforms.v2 import Resize
        >>> mask = torch.zeros(64, 64, dtype=torch.bool)
        >>> mask[:, 21] = True
        >>> bool(Resize((8, 8))(Mask(mask)).any()), int(Resize((8, 8))(CoverageMask(mask)).sum())
        (False, 8)
    """


@tvf.register_kernel("resize", CoverageMask)
def _resize(mask: CoverageMask, size: list[int] | None, *args: Any, **kwargs: Any) -> CoverageMask:
    plain = mask.as_subclass(torch.Tensor)
    options = {name: value for name, value in kwargs.items() if name in {"interpolation", "max_size"}}
    like = tvf.resize_mask(plain.to(torch.uint8), size, *args[:1], **options)
    return wrap(cover(plain, (like.shape[-2], like.shape[-1])), like=mask)


@tvf.register_kernel("resized_crop", CoverageMask)
def _resize_crop(
    mask: CoverageMask, top: int, left: int, height: int, width: int, size: list[int], **kwargs: Any
) -> CoverageMask:
    del kwargs  # interpolation and antialiasing are for images
    cropped = tvf.crop_mask(mask.as_subclass(torch.Tensor), top, left, height, width)
    return _resize(wrap(cropped, like=mask), size)


def _keep_warped(name: str) -> None:
    """Register a kernel that, if the warp loses a mask completely, warps it again one pixel thicker."""
    warp = getattr(tvf, f"{name}_mask")

    @tvf.register_kernel(name, CoverageMask)
    def _warp(mask: CoverageMask, *args: Any, interpolation: Any = None, **kwargs: Any) -> CoverageMask:
        del interpolation  # masks use the nearest pixel only
        plain = mask.as_subclass(torch.Tensor)
        warped = warp(plain, *args, **kwargs)
        lost = ~(warped > 0).flatten(-2).any(-1)[..., None, None] & (plain > 0).flatten(-2).any(-1)[..., None, None]
        if bool(lost.any()):
            flat = plain.reshape(-1, 1, *plain.shape[-2:]).float()
            thicker = F.max_pool2d(flat, 3, stride=1, padding=1).to(plain.dtype).reshape(plain.shape)
            warped = torch.where(lost, warp(thicker, *args, **kwargs), warped)
        return wrap(warped, like=mask)


for _name in ("affine", "elastic", "perspective", "rotate"):
    _keep_warped(_name)


def cover(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize a mask: by any overlap along a side that shrinks, by the nearest pixel along one that grows.

    Shape:
        - mask: (..., H, W), any dtype; returns (..., *size) of the same dtype
    """
    height, width = mask.shape[-2:]
    if (height, width) == size:
        return mask
    flat = mask.reshape(-1, 1, height, width).float()
    smaller = F.adaptive_max_pool2d(flat, (min(height, size[0]), min(width, size[1])))
    resized = F.interpolate(smaller, size=size, mode="nearest")
    return resized.to(mask.dtype).reshape(*mask.shape[:-2], *size)


def see_masks(masks: torch.Tensor, transform: Callable | None) -> torch.Tensor:
    """Return masks as a model sees them after its transform; torch's global random state is restored.

    A random transform that is called next draws the same numbers, so the result shows what it will leave of the masks.

    Args:
        masks: The masks; non-zero is defective.
        transform: The transform of the model's pre-processor, called with an image and a mask as in anomalib; None if
            the model has none.

    Shape:
        - masks: (B, H, W); returns (B, H', W') bool
    """
    seen = masks.as_subclass(torch.Tensor) > 0
    if transform is None:
        return seen
    blank = Image(torch.zeros(len(masks), 3, *masks.shape[-2:], device=masks.device))
    with torch.random.fork_rng(devices=[]):
        _, seen = transform(blank, CoverageMask(seen))
    return seen.as_subclass(torch.Tensor)


def see_marks(marks: torch.Tensor, transform: Callable | None) -> torch.Tensor:
    """Return marks of several values as a model sees them after its transform, like :func:`see_masks` for masks.

    Where marks shrink, a pixel gets the largest value in its area, so no certain mark is lost.

    Shape:
        - marks: (B, H, W) uint8; returns (B, H', W') uint8
    """
    if transform is None:
        return marks
    blank = Image(torch.zeros(len(marks), 3, *marks.shape[-2:], device=marks.device))
    with torch.random.fork_rng(devices=[]):
        _, seen = transform(blank, CoverageMask(marks))
    return seen.as_subclass(torch.Tensor)


def in_view(masks: torch.Tensor, transform: Callable | None) -> torch.Tensor:
    """Return whether any pixel of each mask remains after the model's transform: (B, H, W) -> (B,) bool."""
    return see_masks(masks, transform).flatten(1).any(1)


def sees_all(transform: Callable | None) -> bool:
    """Return whether a transform is known to keep the whole image; False if unknown."""
    if isinstance(transform, Compose):
        return all(sees_all(step) for step in transform.transforms)
    return transform is None or type(transform) in _WHOLE


def find_view(prepare: Callable[[torch.Tensor], torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Return the affine map from an image to the view that a model gets of it.

    A brightness ramp along each side is sent through the model's transform, together with a black and a white image,
    which serve to undo the transform's effect on brightness.

    Args:
        prepare: The transform, from an image (1, 3, H, W) in [0, 1].
        size: Height and width of the image.

    Returns:
        (2, 3) float32 in the form of :func:`torch.nn.functional.affine_grid`: from x, y in the image to x, y in the
        view, both in [-1, 1]. Points mapped outside that range are not seen.

    Raises:
        ValueError: If the transform does more than move, scale, turn and crop.
    """
    height, width = size
    across = ((torch.arange(width) + 0.5) / width).expand(height, width)
    down = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    black, white = torch.zeros(1).expand(size), torch.ones(1).expand(size)
    low, high, x, y = (
        prepare(each.expand(1, 3, *size).clone()).float().mean((0, 1)).cpu().double()
        for each in (black, white, across, down)
    )
    span = high - low
    seen = span.abs() > 0.5 * span.abs().max()
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in span.shape)
    v, u = torch.meshgrid((2 * rows + 1) / len(rows) - 1, (2 * columns + 1) / len(columns) - 1, indexing="ij")
    view = torch.stack([u[seen], v[seen], torch.ones_like(u[seen])], 1)
    image = torch.stack([2 * (each - low)[seen] / span[seen] - 1 for each in (x, y)], 1)
    fit = torch.linalg.lstsq(view, image).solution
    errors = (view @ fit - image).abs().amax(1)
    inner = errors <= errors.mean()
    fit = torch.linalg.lstsq(view[inner], image[inner]).solution  # without the border, where the ramp is cut off
    whole = torch.cat([fit.T, torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)])
    if not bool(torch.isfinite(whole).all()) or (view[inner] @ fit - image[inner]).abs().max() > _BENT:
        msg = "`detector` must move, scale, turn or crop its images, but its transform bends them. Give `normals`."
        raise ValueError(msg)
    return torch.linalg.inv(whole)[:2].float()

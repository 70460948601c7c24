"""Which good images look alike, because they show the same part, place, batch or weave."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering
from torchvision.transforms.v2 import functional as transforms

from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.images import to_tensor
from anomalib_synth.models.bundled_backbone import BACKBONE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SIDE = 160  # pixels
_LAYERS = ("blocks.1", "blocks.2", "blocks.4")
_BATCH = 8
_TOGETHER = 10  # mean number of images in a cluster
_MOST = 2000  # images that are clustered; the others join the nearest cluster


def describe_images(
    images: Iterable[np.ndarray], count: int, *, advance: Callable[[float], None] = lambda _: None
) -> np.ndarray:
    """Describe images by mean and standard deviation of each feature map of the bundled backbone.

    Args:
        images: Images (H, W, 3) uint8, read one after the other.
        count: How many there are.
        advance: Called with the share that is done, in [0, 1].

    Returns:
        (N, 352) float32.
    """
    backbone = FrozenBackbone(BACKBONE_NAME, list(_LAYERS))
    backbone.load_weights()
    backbone.eval()
    found: list[np.ndarray] = []
    batch: list[torch.Tensor] = []

    def describe() -> None:
        maps = backbone(torch.stack(batch) * 2 - 1)  # the network's mean and deviation are 0.5
        pooled = [each for layer in maps for each in (layer.mean((2, 3)), layer.std((2, 3)))]
        found.append(torch.cat(pooled, 1).numpy())
        batch.clear()

    for n, pixels in enumerate(images, 1):
        batch.append(transforms.resize(to_tensor(pixels), [_SIDE, _SIDE], antialias=True).clamp(0, 1))
        if len(batch) == _BATCH:
            describe()
            advance(n / count)
    if batch:
        describe()
    return np.concatenate(found)


def group_look_alikes(vectors: np.ndarray) -> list[int]:
    """Return the number of each image's cluster; there are a tenth as many clusters as images.

    The clusters are Ward's (1963), on features of equal scale. Pictures do not tell how many parts or batches there
    are, so the number of clusters is fixed. Whether scores within a cluster are alike is measured later, on the scores.

    Args:
        vectors: (N, F), one row for each image, see :func:`describe_images`.
    """
    count = len(vectors)
    if count < 2 * _TOGETHER:
        return list(range(count))
    spread = vectors.std(0)
    scaled = (vectors - vectors.mean(0)) / np.where(spread > 0, spread, 1.0)
    shown = np.random.default_rng(0).permutation(count)[:_MOST]  # at random, as every n-th image could be of one camera
    sample = scaled[shown]
    found = AgglomerativeClustering(len(shown) // _TOGETHER, linkage="ward").fit_predict(sample)
    centres = np.stack([sample[found == n].mean(0) for n in range(found.max() + 1)])
    squares = (centres**2).sum(1)
    return [int((squares - 2 * centres @ vector).argmin()) for vector in scaled]


def name_part(name: str, pattern: str) -> str:
    """Return the part that an image shows, taken from its name: the expression's first group, or its whole match.

    Args:
        name: Path within the folder of good images, with ``/`` on every system.
        pattern: Regular expression.

    Raises:
        ValueError: If the expression is not found in the name, or what it finds is empty.

    Example:
        >>> name_part("monday/tile07_top.png", "tile([0-9]+)"), name_part("monday/tile07_top.png", "^[^/]+")
        ('07', 'monday')
    """
    found = re.search(pattern, name)
    kind = None if found is None else found[1] if found.re.groups else found[0]
    if not kind:
        msg = (
            f"`group_by` must find a non-empty text in the name of every image, got {pattern!r}, which finds none in "
            f"{name!r}. Correct the expression, or move that image."
        )
        raise ValueError(msg)
    return str(kind)

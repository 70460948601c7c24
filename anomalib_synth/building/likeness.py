"""Which good images look alike: of one part, place, batch or weave, as far as pictures tell."""

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
_TOGETHER = 10  # images of a cluster, in the mean
_MOST = 2000  # images that are clustered; the others join the cluster that is nearest


def describe_images(
    images: Iterable[np.ndarray], count: int, *, advance: Callable[[float], None] = lambda _: None
) -> np.ndarray:
    """Return what images look like: mean and deviation of each feature map of the bundled backbone, (N, 352).

    Args:
        images: Pixels, (H, W, 3) uint8, read one after the other.
        count: How many.
        advance: Called with the share that is done.
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
    """Return a number for each image, the same for those that look alike: a tenth as many as there are images.

    Ward's clusters (1963) of the vectors, each feature to the same scale. How many parts or batches there are no
    picture tells; whether scores go together within clusters the scores tell.

    Args:
        vectors: What the images look like, a row an image.
    """
    count = len(vectors)
    if count < 2 * _TOGETHER:
        return list(range(count))
    spread = vectors.std(0)
    scaled = (vectors - vectors.mean(0)) / np.where(spread > 0, spread, 1.0)
    shown = np.random.default_rng(0).permutation(count)[:_MOST]  # not every so many-th: cameras may take turns
    sample = scaled[shown]
    found = AgglomerativeClustering(len(shown) // _TOGETHER, linkage="ward").fit_predict(sample)
    centres = np.stack([sample[found == n].mean(0) for n in range(found.max() + 1)])
    squares = (centres**2).sum(1)
    return [int((squares - 2 * centres @ vector).argmin()) for vector in scaled]


def name_part(name: str, pattern: str) -> str:
    """Return what an image is a picture of, by its name: the expression's first group, or all that it matches.

    Args:
        name: Path within the folder of good images, with ``/`` on every system.
        pattern: Regular expression.

    Raises:
        ValueError: If it is not in the name.

    Example:
        >>> name_part("monday/tile07_top.png", "tile([0-9]+)"), name_part("monday/tile07_top.png", "^[^/]+")
        ('07', 'monday')
    """
    found = re.search(pattern, name)
    kind = None if found is None else found[1] if found.re.groups else found[0]
    if not kind:
        msg = (
            f"`group_by` must be found in the name of every image and say something there, got {pattern!r}, which does "
            f"not in {name!r}. Mend the expression, or move that image."
        )
        raise ValueError(msg)
    return str(kind)

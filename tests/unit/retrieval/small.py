"""Small embedders for tests of the filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from anomalib_synth.models import bundle as bundles
from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.dual_encoder import DualEncoder

if TYPE_CHECKING:
    from pathlib import Path


def write_bundle(folder: Path, seed: int = 0) -> str:
    """Write a bundle with a small random dual encoder, and return its name as an embedder."""
    vocabulary = CaptionVocabulary(["a", "scratch"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = DualEncoder(vocabulary_size=len(vocabulary), width=8, dim=16)
    bundles.save_bundle(folder, {"dual_encoder": encoder}, vocabulary, {})
    return f"bundle:{folder}"


class Thumbnail:
    """Embeds a window as its 4 x 4 thumbnail and its contrast; counts the windows it is asked for."""

    name, weights_hash, image_size = "thumbnail", "none", 16

    def __init__(self) -> None:
        self.count = 0

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        self.count += len(windows)
        small = F.adaptive_avg_pool2d(windows, 4)
        contrast = (windows - F.interpolate(small, windows.shape[-2:])).abs().mean((1, 2, 3), keepdim=True)
        return F.normalize(torch.cat([small.flatten(1), 8 * contrast.flatten(1)], dim=1), dim=1)

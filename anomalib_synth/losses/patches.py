"""GLASS computes its loss over patches, and may drop most of them: which sample does each row belong to?"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


class GlassPatches:
    """Splits GLASS' focal loss into what each sample contributes.

    GLASS scores every patch of the synthetic images, drops those that are easy, and hands the rest to its focal loss.
    Which they were is not passed on. So this watches the modules whose outputs decide it, and selects once more.

    Args:
        scorer: The discriminator. The last scores it gave before the focal loss are those of the synthetic patches.
        drawer: The augmenter; its output's second part is the mask.
        extractor: The backbone, whose feature maps give the grid of patches.
        layer: Name of the layer whose map does.
        patchify: Cuts a feature map into patches, and says how many there are in height and width.
        quantile: Quantile of the patches' errors below which they are dropped; 0 or less keeps all.
    """

    def __init__(
        self,
        *,
        scorer: nn.Module,
        drawer: nn.Module,
        extractor: nn.Module,
        layer: str,
        patchify: Callable[..., tuple[torch.Tensor, tuple[int, int]]],
        quantile: float,
    ) -> None:
        self._layer, self._patchify, self._quantile = layer, patchify, quantile
        self._scores: torch.Tensor | None = None
        self._mask: torch.Tensor | None = None
        self._map_size = (0, 0)
        self._hooks = [
            scorer.register_forward_hook(self._see_scores),
            drawer.register_forward_hook(self._see_mask),
            extractor.register_forward_hook(self._see_features),
        ]

    def remove(self) -> None:
        """Stop watching."""
        for hook in self._hooks:
            hook.remove()
        self._scores = self._mask = None

    def split(self, loss: nn.Module, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the contribution of each sample, (B,), whose mean is the loss of all rows.

        Args:
            loss: GLASS' focal loss, which averages over rows.
            logits: (R, 2).
            target: (R, 1), or (R, 1, 1) for rows that were selected.

        Raises:
            RuntimeError: If the rows are not those that were selected here.
        """
        counts = self._count_rows(logits.detach(), target)
        parts = zip(logits.split(counts), target.split(counts), counts, strict=True)
        sums = [loss(*rows) * count if count else logits.new_zeros(()) for *rows, count in parts]
        return torch.stack(sums) * (len(counts) / len(logits))

    @torch.no_grad()
    def _count_rows(self, logits: torch.Tensor, target: torch.Tensor) -> list[int]:
        """Return how many of the rows, which are in the order of the samples, belong to each sample."""
        seen_scores, seen_mask = cast("tuple[torch.Tensor, torch.Tensor]", (self._scores, self._mask))
        mask = pool_mask(seen_mask, self._count_patches()).reshape(-1, 1)
        kept = torch.ones_like(mask, dtype=torch.bool)
        known = len(mask) == len(seen_scores)
        if known and self._quantile > 0:
            error = (seen_scores - mask) ** 2
            kept = error >= torch.quantile(error, q=self._quantile)
        known = known and torch.equal(logits[:, 1], seen_scores[kept]) and torch.equal(target.flatten(), mask[kept])
        if not known:
            msg = (
                f"The {len(logits)} rows of GLASS' focal loss are not the patches that were expected, so their samples "
                "are not known. This version of anomalib may select them in another way: remove "
                "QualityWeightingCallback, or use anomalib 2.7."
            )
            raise RuntimeError(msg)
        return kept.reshape(len(seen_mask), -1).sum(1).tolist()

    def _count_patches(self) -> tuple[int, int]:
        """Return the number of patches in height and width."""
        return self._patchify(torch.empty(1, 1, *self._map_size), return_spatial_info=True)[1]

    def _see_scores(self, module: nn.Module, inputs: Any, scores: torch.Tensor) -> None:
        del module, inputs
        self._scores = scores.detach()

    def _see_mask(self, module: nn.Module, inputs: Any, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        del module, inputs
        self._mask = output[1].detach()

    def _see_features(self, module: nn.Module, inputs: Any, output: dict[str, torch.Tensor]) -> None:
        del module, inputs
        features = output[self._layer]
        tokens = features.ndim == 3  # (B, H*W, C), a transformer's
        self._map_size = (isqrt(features.shape[1]),) * 2 if tokens else tuple(features.shape[-2:])


def pool_mask(mask: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return the mask of the patches, (B, 1, h, w), as GLASS does: a patch with any of the defect is anomalous.

    Args:
        mask: (B, 1, H, W).
        grid: Number of patches in height and width.
    """
    if tuple(mask.shape[2:]) == tuple(grid):
        return mask
    kernel = mask.shape[2] // grid[0], mask.shape[3] // grid[1]
    if min(kernel) >= 1:
        mask = F.max_pool2d(mask.float(), kernel_size=kernel)
    if tuple(mask.shape[2:]) != tuple(grid):
        mask = F.interpolate(mask.float(), size=grid, mode="nearest")
    return mask

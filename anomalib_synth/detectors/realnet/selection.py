"""Anomaly-aware feature selection (AFS): keeps the channels whose response to a defect looks like its mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_synth.detectors.statistics import ChannelStatistics

_UNFITTED = -1


class FeatureSelector(nn.Module):
    """Keeps some channels of each feature map, standardised by the statistics of normal images.

    For channel i, over synthetic images A_n with source I_n and mask M_n (arXiv 2403.05897, equation 5):
    ``L(i) = mean_n |F([phi_i(A_n) - phi_i(I_n)]^2) - M_n|^2``, with F the min-max normalisation of a map; the channels
    with the smallest loss are kept. As in the paper, F normalises each image on its own (the authors' code normalises
    over the batch, so its choice depends on the batch size). Two things are ours. M_n is reduced to the size of a map
    by max pooling: a position counts as soon as a defect touches it, whereas nearest interpolation loses most of a thin
    crack. And the kept channels are standardised, so the reconstruction sees them on one scale and its initial
    residuals are squared z-scores.

    Args:
        channels: Channels of each feature map.
        kept: Number of channels to keep of each feature map.

    Raises:
        ValueError: If ``kept`` does not hold one number in [1, channels] per feature map.
    """

    def __init__(self, channels: list[int], kept: list[int]) -> None:
        super().__init__()
        if len(kept) != len(channels) or any(not 0 < k <= c for k, c in zip(kept, channels, strict=False)):
            msg = f"`feature_dims` must hold one number a layer, each in [1, its channels] = {channels}, got {kept}."
            raise ValueError(msg)
        self.kept = list(kept)
        self.total = list(channels)
        for level, count in enumerate(kept):
            self.register_buffer(f"index_{level}", torch.full((count,), _UNFITTED))
            self.register_buffer(f"mean_{level}", torch.zeros(1, count, 1, 1))
            self.register_buffer(f"scale_{level}", torch.ones(1, count, 1, 1))
        self._is_fitted = False

    @property
    def is_fitted(self) -> bool:
        """Whether the channels have been chosen, by fitting or by loading a checkpoint."""
        if not self._is_fitted:  # once True, the device is not read again
            self._is_fitted = all(int(getattr(self, f"index_{level}")[0]) >= 0 for level in range(len(self.kept)))
        return self._is_fitted

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._is_fitted = False  # the loaded buffers decide

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the kept channels of each feature map, standardised: (B, C, h, w) -> (B, kept, h, w).

        Raises:
            RuntimeError: If the channels have not been chosen yet.
        """
        if not self.is_fitted:
            msg = (
                "RealNet's feature selection (AFS) is not fitted, so it cannot predict. Train it first (selection runs "
                "at the start of training), or load a checkpoint of a trained model."
            )
            raise RuntimeError(msg)
        return [self._select(level, feature) for level, feature in enumerate(features)]

    def _select(self, level: int, feature: torch.Tensor) -> torch.Tensor:
        chosen = feature.index_select(1, getattr(self, f"index_{level}"))
        standard = (chosen - getattr(self, f"mean_{level}")) / getattr(self, f"scale_{level}")
        return standard.contiguous(memory_format=torch.channels_last)

    def set_selection(self, losses: list[torch.Tensor], statistics: list[ChannelStatistics]) -> None:
        """Keep the channels with the smallest loss.

        Args:
            losses: (C,) selection loss of each channel, one tensor per feature map.
            statistics: Mean and deviation of each channel on normal images, one object per feature map.
        """
        for level, (loss, statistic) in enumerate(zip(losses, statistics, strict=True)):
            index = loss.topk(self.kept[level], largest=False).indices.sort().values
            mean, scale = statistic.mean_and_deviation()
            getattr(self, f"index_{level}").copy_(index)
            getattr(self, f"mean_{level}").copy_(mean[index].view(1, -1, 1, 1))
            getattr(self, f"scale_{level}").copy_(scale[index].view(1, -1, 1, 1))


@torch.no_grad()
def selection_loss(anomalous: torch.Tensor, normal: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the AFS loss of each channel, summed over images: how badly its change matches the mask.

    A position of a map belongs to the defect if the mask covers at least one pixel of it.

    Args:
        anomalous: (B, C, h, w) features of the images with defects.
        normal: (B, C, h, w) features of their sources.
        mask: (B, 1, H, W) float in {0, 1}.

    Returns:
        (C,) float, sums over the images of the mean squared difference, each in [0, B].
    """
    change = (anomalous - normal).square()
    low, high = change.amin((2, 3), keepdim=True), change.amax((2, 3), keepdim=True)
    change = (change - low) / (high - low + 1e-4)
    target = F.adaptive_max_pool2d(mask, change.shape[-2:])
    return (change - target).square().mean((2, 3)).sum(0)

"""RealNet's network: backbone, feature selection, reconstruction, residual selection, discriminator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F

from anomalib_synth.detectors.realnet.discriminator import Discriminator, ResidualSelection
from anomalib_synth.detectors.realnet.reconstruction import ReconstructionUNet
from anomalib_synth.detectors.realnet.selection import FeatureSelector

if TYPE_CHECKING:
    from anomalib_synth.detectors.backbone import FrozenBackbone

_SCORE_WINDOWS = 16  # the window of the image score is a sixteenth of the image's side


class RealNetModel(nn.Module):
    """RealNet (arXiv 2403.05897), from normalised images to an anomaly map.

    Args:
        backbone: Frozen feature extractor.
        selector: Chooses channels of its feature maps.
        reconstruction: One reconstruction network per feature map.
        selection: Chooses residual channels.
        discriminator: Turns the chosen residuals into logits.

    Shape:
        - Input: (B, 3, H, W), normalised
        - Output: ``anomaly_map`` (B, 1, H, W) and ``pred_score`` (B,), both in [0, 1]
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        selector: FeatureSelector,
        reconstruction: nn.ModuleList,
        selection: ResidualSelection,
        discriminator: Discriminator,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.selector = selector
        self.reconstruction = reconstruction
        self.selection = selection
        self.discriminator = discriminator

    @classmethod
    def build(
        cls,
        backbone: FrozenBackbone,
        *,
        feature_dims: list[int],
        reconstruction_width: float,
        reconstruction_blocks: int,
        residual_dims: tuple[int, int],
        discriminator_width: int,
        discriminator_blocks: int,
    ) -> RealNetModel:
        """Put the parts together; the arguments are those of :class:`anomalib_synth.models.RealNet`."""
        by_maximum, by_mean = residual_dims
        model = cls(
            backbone,
            FeatureSelector(backbone.channels, feature_dims),
            nn.ModuleList(
                ReconstructionUNet(dim, width=max(1, round(reconstruction_width * dim)), blocks=reconstruction_blocks)
                for dim in feature_dims
            ),
            ResidualSelection(sum(feature_dims), by_maximum=by_maximum, by_mean=by_mean),
            Discriminator(by_maximum + by_mean, width=discriminator_width, blocks=discriminator_blocks),
        )
        return model.to(memory_format=torch.channels_last)

    def extract(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the backbone's feature maps, each value averaged over its 3 x 3 neighbours (fewer at the border)."""
        return [F.avg_pool2d(feature, 3, 1, 1, count_include_pad=False) for feature in self.backbone(images)]

    def reconstruct(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the reconstructions of selected features."""
        return [network(feature) for network, feature in zip(self.reconstruction, features, strict=True)]

    def logits(self, features: list[torch.Tensor], reconstructed: list[torch.Tensor]) -> torch.Tensor:
        """Return the logits (B, 2, 2h, 2w) of the residuals, aligned to the finest feature map (h, w)."""
        finest = features[0].shape[-2:]
        residuals = []
        for feature, rebuilt in zip(features, reconstructed, strict=True):
            residual = (feature - rebuilt).square()
            if residual.shape[-2:] != finest:
                residual = F.interpolate(residual, finest, mode="bilinear", align_corners=True)
            residuals.append(residual)
        return self.discriminator(self.selection(torch.cat(residuals, 1)))

    def discriminate(
        self, features: list[torch.Tensor], reconstructed: list[torch.Tensor], size: torch.Size | tuple[int, int]
    ) -> torch.Tensor:
        """Return the logits (B, 2, H, W) at the size of the image."""
        return F.interpolate(self.logits(features, reconstructed), size, mode="bilinear", align_corners=True)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Return the anomaly map and the score of each image.

        Raises:
            RuntimeError: If the feature selection is not fitted.
        """
        features = self.selector(self.extract(images))
        logits = self.logits(features, self.reconstruct(features))
        size = images.shape[-2:]
        margin = logits[:, 1:] - logits[:, :1]  # sigmoid(margin) is the softmax of two classes, at half the work
        anomaly_map = F.interpolate(margin, size, mode="bilinear", align_corners=True).sigmoid()
        height, width = (max(1, int(side) // _SCORE_WINDOWS) for side in size)
        pooled = anomaly_map.unfold(2, height, 1).mean(-1).unfold(3, width, 1).mean(-1)  # as avg_pool2d, only faster
        pred_score = pooled.amax((1, 2, 3))
        return InferenceBatch(anomaly_map=anomaly_map, pred_score=pred_score)

"""DiscriminativePadim's network, from normalised images to an anomaly map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from anomalib.data import InferenceBatch
from torch import nn

from anomalib_synth.detectors.discriminative_padim.features import GridFeatures
from anomalib_synth.detectors.discriminative_padim.heads import Head
from anomalib_synth.detectors.discriminative_padim.normality import PositionGaussian, distance
from anomalib_synth.detectors.discriminative_padim.scales import make_resize, make_upsampling, scaled_size
from anomalib_synth.detectors.discriminative_padim.score import trust_in_heads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.detectors.backbone import FrozenBackbone
    from anomalib_synth.detectors.discriminative_padim.score import GroupScale

_SMOOTHING = 0.016  # deviation of the blur as a share of the side
MAPS = 3  # per scale: the distance, the head on features, the head on residuals


class ScaleBranch(nn.Module):
    """One scale of the network: features, their distance from normal, and the logits of two heads.

    Args:
        features: Feature extractor, shared by the branches.
        side: Longer side of the image in this branch, in pixels.
        head_width: Channels within the heads.
    """

    def __init__(self, features: GridFeatures, *, side: int, head_width: int) -> None:
        super().__init__()
        self._features = [features]  # in a list, so that only the model registers it
        self.side = side
        channels = features.channels
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("deviation", torch.ones(1, channels, 1, 1))
        self.gaussian = PositionGaussian(0, channels)
        self.feature_head = Head(channels, head_width)
        self.residual_head = Head(channels, head_width)
        self.resize: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()
        self.grid = (0, 0)

    def make_room(self, size: tuple[int, int]) -> None:
        """Allocate the Gaussians and resizing matrices for images of this (height, width)."""
        device = self.mean.device
        target = scaled_size(size, self.side)
        self.resize = make_resize(size, target).to(device)
        self.grid = self._features[0].grid_of(target)
        self.upsample = make_upsampling(self.grid, size, _SMOOTHING).to(device)
        positions = self.grid[0] * self.grid[1]
        self.gaussian = PositionGaussian(positions, self._features[0].channels).to(device)

    def raw_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, C, h, w) features before standardisation."""
        return self._features[0](self.resize(images))

    def standardise(self, raw: torch.Tensor) -> torch.Tensor:
        """Return raw features with mean 0 and deviation 1 over the cells of the normals."""
        return (raw - self.mean) / self.deviation

    def heads(self, features: torch.Tensor, residuals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits (B, 1, h, w) of both heads."""
        return self.feature_head(features), self.residual_head(residuals)


class DiscriminativePadimModel(nn.Module):
    """The network: distance from normal plus the heads' logits, at several scales.

    Args:
        backbone: Frozen feature extractor.
        scales: Lengths of the image's longer side, in pixels, one per branch.
        channels: Largest number of feature channels; if the layers have more, they are projected to this number.
        head_width: Channels within the heads.

    Shape:
        - Input: (B, 3, H, W), normalised, of the size the model was trained on
        - Output: ``anomaly_map`` (B, 1, H, W) and ``pred_score`` (B,): the inverse hyperbolic sine of the standardised
          map and score, in deviations of normal pixels and of normal images; unbounded
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        *,
        scales: Sequence[int],
        channels: int,
        head_width: int,
    ) -> None:
        super().__init__()
        self.features = GridFeatures(backbone, channels=channels)
        self.branches = nn.ModuleList(ScaleBranch(self.features, side=side, head_width=head_width) for side in scales)
        self.register_buffer("size", torch.zeros(2, dtype=torch.long))
        self.register_buffer("fingerprint", torch.zeros((), dtype=torch.long))  # of the normals of the Gaussians
        self.register_buffer("has_heads", torch.zeros((), dtype=torch.bool))
        self.register_buffer("map_weights", torch.zeros(len(self.branches), MAPS))
        self.register_buffer("offset", torch.zeros(2))  # of N and of H
        self.register_buffer("trust", torch.ones(()))  # weight of H next to N in the map
        self.register_buffer("maximum_mean", torch.zeros(2))
        self.register_buffer("maximum_deviation", torch.ones(2))
        self._room = (0, 0)
        self._fitted_size = (0, 0)  # copy of `size` on the host
        self._uses_heads = False  # copy of `has_heads` on the host

    @property
    def is_fitted(self) -> bool:
        """Whether the Gaussians have been fitted or loaded."""
        return self._fitted_size != (0, 0)

    def make_room(self, size: tuple[int, int]) -> None:
        """Allocate the Gaussians for images of this (height, width), without fitting them."""
        self._room = (int(size[0]), int(size[1]))
        for branch in self.branches:
            branch.make_room(self._room)

    def mark_fitted(self, fingerprint: int = 0) -> None:
        """Mark the allocated Gaussians as fitted to normals with this fingerprint."""
        self._fitted_size = self._room
        self.size.copy_(torch.tensor(self._room))
        self.fingerprint.fill_(fingerprint)

    def set_score(self, distances: GroupScale, heads: GroupScale | None, *, real_masks: int = 0) -> None:
        """Set the scales of the distances and of the heads; None leaves the heads out of map and score.

        Args:
            distances: Scale of the distances, measured on normals.
            heads: Scale of the heads, measured on normals; None without heads.
            real_masks: Number of real defects with masks that the heads learned.
        """
        scales = len(self.branches)
        self.map_weights[:, 0] = distances.weights
        self.map_weights[:, 1:] = 0 if heads is None else heads.weights.view(scales, -1)
        for place, group in enumerate((distances, heads)):
            if group is not None:
                self.offset[place] = group.offset
                self.maximum_mean[place] = group.maximum_mean
                self.maximum_deviation[place] = group.maximum_deviation
        self.trust.fill_(1.0 if heads is None else trust_in_heads(distances, heads, real_masks))
        self._uses_heads = heads is not None
        self.has_heads.fill_(self._uses_heads)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        size = state_dict.get(f"{prefix}size")
        if size is not None and int(size[0]):
            self.make_room((int(size[0]), int(size[1])))  # before the branches' weights are loaded
            self._fitted_size = self._room
        self._uses_heads = bool(state_dict.get(f"{prefix}has_heads", self._uses_heads))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Return the anomaly map and the score of each image.

        Raises:
            RuntimeError: If the model is not trained.
            ValueError: If the images do not have the size the model was trained on.
        """
        if not self.is_fitted:
            msg = (
                "DiscriminativePadim is not fitted, so it cannot predict. Train it first (the Gaussians are fitted at "
                "the start of training), or load a checkpoint of a trained model."
            )
            raise RuntimeError(msg)
        if tuple(images.shape[-2:]) != self._fitted_size:
            msg = (
                f"DiscriminativePadim was trained on images of {self._fitted_size[0]} x {self._fitted_size[1]} pixels, "
                f"got {images.shape[-2]} x {images.shape[-1]}. Give it the pre-processor it was trained with."
            )
            raise ValueError(msg)
        return self.predict_from(self.see(images))

    def see(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return standardised features and whitened residuals of images, (B, C, h, w) each, one pair per scale."""
        pairs = []
        for branch in self.branches:
            features = branch.standardise(branch.raw_features(images))
            pairs.append((features, branch.gaussian(features)))
        return pairs

    def predict_from(self, views: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> InferenceBatch:
        """Return the anomaly map and the score from the features and residuals that :meth:`see` returns."""
        normality, defect = self.group_maps(views)
        score = self.standardise_maximum(normality, 0)
        if defect is not None:
            normality = normality + self.trust * defect
            score = score + self.standardise_maximum(defect, 1)
        return InferenceBatch(anomaly_map=torch.asinh(normality), pred_score=torch.asinh(score))

    def group_maps(
        self, views: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return N and H, (B, 1, H, W) each, in deviations of normal pixels; H is None without heads."""
        normality, defect = self.offset.split(1)
        for branch, weights, (features, residuals) in zip(self.branches, self.map_weights, views, strict=True):
            normality = normality + branch.upsample(distance(residuals) * weights[0])
            if self._uses_heads:
                on_features, on_residuals = branch.heads(features, residuals)
                defect = defect + branch.upsample(on_features * weights[1] + on_residuals * weights[2])
        return normality, defect if self._uses_heads else None

    def standardise_maximum(self, maps: torch.Tensor, group: int) -> torch.Tensor:
        """Return the largest value of each map (B, 1, H, W), in deviations of normal images, as (B,)."""
        return (maps.amax((1, 2, 3)) - self.maximum_mean[group]) / self.maximum_deviation[group]

    def smooth_maps(self, cells: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return maps at image size, smoothed, (B, K, H, W), from one (B, k, h, w) per scale."""
        return torch.cat([branch.upsample(maps) for branch, maps in zip(self.branches, cells, strict=True)], 1)

"""A training run of the heads: what it needs besides the network, and what a checkpoint does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.detectors.batches import drawn_rows, mask_of, normal_batches
from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache
from anomalib_synth.detectors.discriminative_padim.fitting import fit_normality
from anomalib_synth.detectors.discriminative_padim.heads import cover_cells, focal_losses
from anomalib_synth.detectors.discriminative_padim.normality import distance
from anomalib_synth.detectors.discriminative_padim.normals import TrainingNormals, hold_out_clusters
from anomalib_synth.detectors.discriminative_padim.score import MapMoments, weigh_maps
from anomalib_synth.detectors.discriminative_padim.torch_model import MAPS
from anomalib_synth.detectors.discriminative_padim.training_features import TrainingFeatures, Views
from anomalib_synth.generators.prepared import evenly_spread

if TYPE_CHECKING:
    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Trainer

    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel

_HELD_OUT = 0.2
_CHUNK = 16
_MOST_SCORED = 64  # held-out normals that the score's scale is measured on


class HeadTraining:
    """Fits the Gaussians, gives the heads their losses, and puts the score on its scale.

    Args:
        model: The network.
        memory: Bytes of features kept in memory.
        disk: Bytes of features kept in a file beyond that.
    """

    def __init__(self, model: DiscriminativePadimModel, *, memory: int, disk: int) -> None:
        self._model = model
        self._cache = FeatureCache(memory=memory, disk=disk)
        self._features = TrainingFeatures(model, self._cache)
        self._normals = TrainingNormals()
        self._held_out = torch.zeros(0, dtype=torch.bool)
        self._device = torch.device("cpu")
        self._distance_score: tuple[torch.Tensor, float] = (torch.zeros(0), 0.0)
        self._reference: list[Views] = []
        self._scored_at = -1
        self.seen_defects = False

    def look_at_normals(self, trainer: Trainer, module: AnomalibModule) -> None:
        """Fit the Gaussians, unless a checkpoint brought them, and choose the normals that train no head."""
        self._normals, pooled = fit_normality(
            self._model,
            self._features,
            normal_batches(trainer, module),
            total=int(trainer.num_training_batches),
            show=trainer.is_global_zero,
        )
        self._held_out = hold_out_clusters(pooled, share=_HELD_OUT)
        self._device = module.device
        self._weigh_distances(evenly_spread(range(len(self._normals)), _MOST_SCORED))
        self._reference = self._collect(evenly_spread(self._held_out.nonzero().flatten().tolist(), _MOST_SCORED))

    def sample_losses(self, batch: ImageBatch, *, step: int) -> torch.Tensor:
        """Return the losses of each sample, (B,), whose mean is the loss of the batch; 0 for what is held out.

        Args:
            batch: A labelled training batch, pre-processed.
            step: Number of the step: decides which way the features are mirrored.
        """
        trained, views = self._view(batch)
        mask = mask_of(batch, "DiscriminativePadim")
        losses = torch.zeros(len(mask), device=mask.device)
        if not bool(trained.any()):
            return losses + 0 * sum(p.sum() for p in self._model.parameters() if p.requires_grad)
        axes = _mirrored_axes(step)
        for branch, view in zip(self._model.branches, views, strict=True):
            cover = cover_cells(mask[trained], branch.grid).flip(axes)
            self.seen_defects = self.seen_defects or bool((cover > 0).any())
            total = sum(
                focal_losses(logits, cover)
                for logits in branch.heads(view.features.flip(axes), view.residuals.flip(axes))
            )
            losses = losses.index_put((trained,), total * len(mask) / trained.sum(), accumulate=True)
        return losses

    def _view(self, batch: ImageBatch) -> tuple[torch.Tensor, list[Views]]:
        """Return which rows train, (B,) bool, and what the heads see of those, one a scale."""
        images, source = batch.image.as_subclass(torch.Tensor), getattr(batch, "source", None)
        label = torch.zeros(len(images), dtype=torch.bool) if batch.gt_label is None else batch.gt_label.bool().cpu()
        known = ~label if source is None else ~label | drawn_rows(batch).cpu()
        source = images if source is None else source.as_subclass(torch.Tensor)
        rows, trained = [], []
        for position, image in enumerate(images):
            place, views = self._features.views(image, source[position] if known[position] else None, self._normals)
            trained.append(place < 0 or not bool(self._held_out[place]))
            if trained[-1]:
                rows.append(views)
        views = [Views(*(torch.stack(part) for part in zip(*scale, strict=True))) for scale in zip(*rows, strict=True)]
        return torch.tensor(trained, device=images.device), views

    @torch.no_grad()
    def update_score(self, *, step: int) -> None:
        """Measure the maps on normals that trained no head, and weigh them; once a step at most."""
        if step == self._scored_at:
            return
        self._scored_at = step
        weights, offset = self._distance_score
        rows = torch.zeros(len(self._model.branches), MAPS)
        rows[:, 0] = weights
        if self.seen_defects:
            moments = self._measure_heads()
            head_weights, head_offset = weigh_maps(moments)
            rows[:, 1:] = head_weights.view(len(rows), -1)
            offset += head_offset
        self._model.set_score(rows, offset, uses_heads=self.seen_defects)

    def _measure_heads(self) -> MapMoments:
        """Return the moments of the heads' maps over the held-out normals."""
        branches = self._model.branches
        moments = MapMoments((MAPS - 1) * len(branches))
        modes = [branch.training for branch in branches]
        branches.eval()
        for start in range(0, len(self._reference[0].features), _CHUNK):
            cells = []
            for branch, views in zip(branches, self._reference, strict=True):
                features, residuals = (part[start : start + _CHUNK].float() for part in views)
                cells.append(torch.cat(branch.heads(features, residuals), 1))
            moments.update(self._model.smooth_maps(cells))
        for branch, mode in zip(branches, modes, strict=True):
            branch.train(mode)
        return moments

    def _weigh_distances(self, places: list[int]) -> None:
        """Put the distances on their scale: of normals by the Gaussians without themselves."""
        moments = MapMoments(len(self._model.branches))
        for views in self._views_of(places):
            moments.update(self._model.smooth_maps([distance(view.residuals[None]) for view in views]))
        self._distance_score = weigh_maps(moments)

    def _collect(self, places: list[int]) -> list[Views]:
        """Return the views of some normals, stacked, in half precision."""
        rows = zip(*self._views_of(places), strict=True)
        return [Views(*(torch.stack(part).half() for part in zip(*scale, strict=True))) for scale in rows]

    def _views_of(self, places: list[int]) -> list[list[Views]]:
        """Return the views of those normals whose features are still kept.

        Raises:
            ValueError: If there are none.
        """
        keys = self._normals.keys
        found = (self._features.views_of_normal(keys[place], len(keys), self._device) for place in places)
        views = [each for each in found if each is not None]
        if not views:
            msg = (
                "DiscriminativePadim puts its score on the scale of normals whose features it keeps, but the cache is "
                "too small for any. Raise `cache_memory` or `cache_disk`."
            )
            raise ValueError(msg)
        return views

    def close(self) -> None:
        """Give memory and disk back."""
        self._cache.close()


def _mirrored_axes(step: int) -> list[int]:
    """Return which of the axes 2 (upside down) and 3 (left to right) are mirrored in a step."""
    chances = torch.rand(2, generator=torch.Generator().manual_seed(step))
    return [axis + 2 for axis in range(2) if float(chances[axis]) < 0.5]

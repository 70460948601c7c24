"""A training run of the heads: what it needs besides the network, and what a checkpoint does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.detectors.batches import count_normal_batches, drawn_rows, mask_of, normal_batches
from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache, digest_pixels
from anomalib_synth.detectors.discriminative_padim.fitting import fit_normality, image_names
from anomalib_synth.detectors.discriminative_padim.heads import cover_cells, focal_losses
from anomalib_synth.detectors.discriminative_padim.normality import distance
from anomalib_synth.detectors.discriminative_padim.normals import TrainingNormals, hold_out
from anomalib_synth.detectors.discriminative_padim.score import GroupScale, measure_scale
from anomalib_synth.detectors.discriminative_padim.training_features import Request, TrainingFeatures, Views
from anomalib_synth.generators.prepared import evenly_spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Trainer

    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel

_HELD_OUT = 0.2
_CHUNK = 8
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
        self._distances = GroupScale(torch.ones(1), 0.0, 0.0, 1.0, 1.0)
        self._reference: list[list[Views]] = []  # of held-out normals, some at a time
        self._scored_at = -1
        self.seen_defects = bool(model.has_heads)  # a resumed run has seen them before

    def look_at_normals(self, trainer: Trainer, module: AnomalibModule) -> None:
        """Fit the Gaussians, unless a checkpoint brought them, and choose the normals that train no head."""
        self._normals = fit_normality(
            self._model,
            self._features,
            normal_batches(trainer, module),
            total=count_normal_batches(trainer),
            show=trainer.is_global_zero,
        )
        self._held_out = hold_out(self._normals.keys, share=_HELD_OUT)
        most = most_scored(self._model.size.tolist())
        scored = self._views_of(evenly_spread(range(len(self._normals)), most))
        self._distances = measure_scale(
            [self._model.smooth_maps([distance(view.residuals) for view in views]) for views in scored]
        )
        held_out = evenly_spread(self._held_out.nonzero().flatten().tolist(), _MOST_SCORED)
        self._reference = [
            [Views(*(part.half() for part in view)) for view in views] for views in self._views_of(held_out)
        ]
        if not self.seen_defects:
            self._model.set_score(self._distances, None)  # for a checkpoint of the first steps

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
        names = image_names(batch)
        label = torch.zeros(len(images), dtype=torch.bool) if batch.gt_label is None else batch.gt_label.bool().cpu()
        known = ~label if source is None else ~label | drawn_rows(batch).cpu()
        drawn = label if batch.gt_mask is None else batch.gt_mask.flatten(1).any(1).cpu()
        if source is None:
            known &= ~drawn  # what a transform drew on may have no label yet
        lost = label & ~drawn  # a defect whose mask a resize lost would teach that it is normal
        source = images if source is None else source.as_subclass(torch.Tensor)
        requests, trained = [], []
        for position, image in enumerate(images):
            request, place = self._request(image, source[position] if known[position] else None)
            place = place if place >= 0 else self._normals.find_name(names[position])
            trained.append(not bool(lost[position]) and (place < 0 or not bool(self._held_out[place])))
            if trained[-1]:
                requests.append(request)
        views = self._features.views(requests, count=len(self._normals)) if requests else []
        return torch.tensor(trained, device=images.device), views

    def _request(self, image: torch.Tensor, source: torch.Tensor | None) -> tuple[Request, int]:
        """Return what to ask of the features, and which normal is behind the image, -1 for none of the run's."""
        key = digest_pixels(image)
        if source is None:
            return Request(image, key, None, None), -1
        behind = key if torch.equal(source, image) else digest_pixels(source)
        place = self._normals.find(source, behind)
        return Request(image, key, *((source, behind) if place >= 0 else (None, None))), place

    @torch.no_grad()
    def update_score(self, *, step: int) -> None:
        """Measure the maps on normals that trained no head, and weigh them; once a step at most."""
        if step == self._scored_at:
            return
        self._scored_at = step
        self._model.set_score(self._distances, self._measure_heads() if self.seen_defects else None)

    def _measure_heads(self) -> GroupScale:
        """Measure the heads' maps on the held-out normals."""
        branches = self._model.branches
        modes = [branch.training for branch in branches]
        branches.eval()
        maps = [
            self._model.smooth_maps(
                [
                    torch.cat(branch.heads(*(part.float() for part in view)), 1)
                    for branch, view in zip(branches, views, strict=True)
                ]
            )
            for views in self._reference
        ]
        for branch, mode in zip(branches, modes, strict=True):
            branch.train(mode)
        return measure_scale(maps)

    def _views_of(self, places: list[int]) -> list[list[Views]]:
        """Return the views of those normals whose features are still kept, some at a time, one pair a scale.

        Raises:
            ValueError: If there are none.
        """
        keys = self._normals.keys
        kept = [keys[place] for place in places if self._features.has_raw(keys[place])]
        if not kept:
            msg = (
                "DiscriminativePadim puts its score on the scale of normals whose features it keeps, but the cache is "
                "too small for any. Raise `cache_memory` or `cache_disk`."
            )
            raise ValueError(msg)
        requests = [Request(None, key, None, key) for key in kept]
        groups = [requests[start : start + _CHUNK] for start in range(0, len(requests), _CHUNK)]
        return [self._features.views(group, count=len(keys)) for group in groups]

    def close(self) -> None:
        """Give memory and disk back."""
        self._cache.close()


def most_scored(size: Sequence[int]) -> int:
    """Return how many normals of this height and width the scale is measured on: their maps are held all at once."""
    return max(16, min(_MOST_SCORED, _MOST_SCORED * 256**2 // (size[0] * size[1])))


def _mirrored_axes(step: int) -> list[int]:
    """Return which of the axes 2 (upside down) and 3 (left to right) are mirrored in a step."""
    chances = torch.rand(2, generator=torch.Generator().manual_seed(step))
    return [axis + 2 for axis in range(2) if float(chances[axis]) < 0.5]

"""A training run of the heads: the state besides the network, which checkpoints do not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.detectors.batches import count_normal_batches, drawn_rows, marks_of, mask_of, normal_batches
from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache, digest_values
from anomalib_synth.detectors.discriminative_padim.fitting import fit_normality, image_names
from anomalib_synth.detectors.discriminative_padim.losses import head_losses
from anomalib_synth.detectors.discriminative_padim.normals import TrainingNormals
from anomalib_synth.detectors.discriminative_padim.reference import ReferenceNormals
from anomalib_synth.detectors.discriminative_padim.targets import make_targets
from anomalib_synth.detectors.discriminative_padim.training_features import HeadInputs, Request, TrainingFeatures

if TYPE_CHECKING:
    from anomalib.data import ImageBatch
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Trainer

    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel


class HeadTraining:
    """Fits the Gaussians, computes the heads' losses and measures the scale of the score.

    Args:
        model: The network.
        memory: Most bytes of features to keep in memory.
        disk: Most bytes of further features to keep in a temporary file.
    """

    def __init__(self, model: DiscriminativePadimModel, *, memory: int, disk: int) -> None:
        self._model = model
        self._cache = FeatureCache(memory=memory, disk=disk)
        self._features = TrainingFeatures(model, self._cache)
        self._normals = TrainingNormals()
        self._reference: ReferenceNormals | None = None
        self._scored_at = -1
        self.seen_defects = bool(model.has_heads)  # True in a resumed run that trained the heads

    def look_at_normals(self, trainer: Trainer, module: AnomalibModule) -> None:
        """Fit the Gaussians, unless they are fitted, and choose the normals that train no head."""
        self._normals = fit_normality(
            self._model,
            self._features,
            normal_batches(trainer, module),
            total=count_normal_batches(trainer),
            show=trainer.is_global_zero,
        )
        self._reference = ReferenceNormals(self._model, self._features, self._normals.keys)
        if not self.seen_defects:
            self._reference.set_score(with_heads=False)  # for checkpoints saved before the first update

    def sample_losses(self, batch: ImageBatch, *, step: int, looks: bool = True) -> torch.Tensor:
        """Return the loss of each sample, (B,), whose mean is the loss of the batch; 0 for samples that train nothing.

        Args:
            batch: A labelled training batch, pre-processed.
            step: Number of the step, which decides how the features are mirrored.
            looks: Whether to guess where defects without a mask are.
        """
        trained, views = self._view(batch)
        mask, marks = mask_of(batch, "DiscriminativePadim"), marks_of(batch)
        losses = torch.zeros(len(mask), device=mask.device)
        if not bool(trained.any()):
            return losses + 0 * sum(p.sum() for p in self._model.parameters() if p.requires_grad)
        branches = self._model.branches
        rows = None if marks is None else marks[trained]
        targets = [make_targets(mask[trained], rows, branch.grid) for branch in branches]
        self.seen_defects = self.seen_defects or any(bool((each.cover + each.boxes > 0).any()) for each in targets)
        own = head_losses(branches, views, targets, axes=mirrored_axes(step), looks=looks)
        return losses.index_put((trained,), own * len(mask) / trained.sum())

    def _view(self, batch: ImageBatch) -> tuple[torch.Tensor, list[HeadInputs]]:
        """Return which rows train, (B,) bool, and the heads' inputs for those rows, one entry per scale."""
        images, source = batch.image.as_subclass(torch.Tensor), getattr(batch, "source", None)
        names = image_names(batch)
        label = torch.zeros(len(images), dtype=torch.bool) if batch.gt_label is None else batch.gt_label.bool().cpu()
        known = ~label if source is None else ~label | drawn_rows(batch).cpu()
        drawn = label if batch.gt_mask is None else batch.gt_mask.flatten(1).any(1).cpu()
        if source is None:
            known &= ~drawn  # an image that a transform drew on may have no label yet
        marks = marks_of(batch)
        marked = drawn if marks is None else drawn | (marks > 0).flatten(1).any(1).cpu()
        lost = label & ~marked  # without its mask, a defect would be learned as normal
        source = images if source is None else source.as_subclass(torch.Tensor)
        requests, trained, reference = [], [], self._measured
        for position, image in enumerate(images):
            request, place = self._request(image, source[position] if known[position] else None)
            place = place if place >= 0 else self._normals.find_name(names[position])
            trained.append(not bool(lost[position]) and (place < 0 or not bool(reference.held_out[place])))
            if trained[-1]:
                requests.append(request)
        views = self._features.views(requests, count=len(self._normals)) if requests else []
        return torch.tensor(trained, device=images.device), views

    def _request(self, image: torch.Tensor, source: torch.Tensor | None) -> tuple[Request, int]:
        """Return the request for an image's features, and the index of the normal behind it, -1 if that is unknown."""
        key = digest_values(image)
        if source is None:
            return Request(image, key, None, None), -1
        behind = key if torch.equal(source, image) else digest_values(source)
        place = self._normals.find(source, behind)
        return Request(image, key, *((source, behind) if place >= 0 else (None, None))), place

    def update_score(self, *, step: int, real_masks: int) -> None:
        """Measure the scale of the score on the reference normals and set it; at most once per step."""
        if step == self._scored_at:
            return
        self._scored_at = step
        self._measured.set_score(with_heads=self.seen_defects, real_masks=real_masks)

    @property
    def _measured(self) -> ReferenceNormals:
        if self._reference is None:
            msg = "DiscriminativePadim is not fitted to the normals; call `look_at_normals` before training."
            raise RuntimeError(msg)
        return self._reference

    def close(self) -> None:
        """Release the cached features."""
        self._cache.close()


def mirrored_axes(step: int) -> list[int]:
    """Return which of the axes 2 (height) and 3 (width) are mirrored in a step."""
    chances = torch.rand(2, generator=torch.Generator().manual_seed(step))
    return [axis + 2 for axis in range(2) if float(chances[axis]) < 0.5]

"""DiscriminativePadim as a model of anomalib."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.detectors.batches import may_bring_defects
from anomalib_synth.detectors.discriminative_padim.schedule import OneCycle
from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel
from anomalib_synth.detectors.discriminative_padim.training import HeadTraining
from anomalib_synth.detectors.numerics import check_loss, check_precision, check_state
from anomalib_synth.host.thresholds import lower_pixel_threshold
from anomalib_synth.losses.reduction import MeanOverSamples

logger = logging.getLogger(__name__)
_LOOKS_FROM = 0.4  # of the steps: the heads know by then what to look for where a defect has no mask


class DiscriminativePadim(AnomalibModule):
    """A Gaussian at each position says what is normal, two small heads a scale learn what a defect looks like.

    Ours. Its normality is PaDiM's (arXiv 2011.08785) with shrinkage in place of a random choice of channels, fitted in
    closed form in one pass; the training is spent on the defects. A head on the features and one on their whitened
    residuals see synthetic and real defects, the residuals without the normal behind each image
    (:mod:`~anomalib_synth.detectors.discriminative_padim.cross_fitting`). The score adds both, each in deviations of
    normals that trained neither (:mod:`~anomalib_synth.detectors.discriminative_padim.score`).

    It learns from labelled batches (``image``, ``source``, ``gt_mask``, ``gt_label``), which
    :class:`~anomalib_synth.callbacks.SynthesisCallback` or :class:`~anomalib_synth.data.SyntheticDataModule` provide;
    real defects with masks train the heads too. When nothing in the run brings a defect, it is the normality alone,
    says so and stops after a batch. The features of an image are computed once and kept, so a step costs what the heads
    cost once ``SynthesisCallback`` repeats its draws, which it does after some 800.

    The Gaussians are fitted once, at the start of the first training, and kept: training the same model again goes on
    from there. For another product, make a new model.

    Args:
        backbone: Name of a convolutional timm network. Its weights are read when training starts.
        layers: Layers whose features are used, from fine to coarse.
        backbone_weights: File with the backbone's weights, in place of those timm names.
        pre_trained: Whether to read pretrained weights at all.
        scales: Longer sides at which the image is looked at, in pixels; rounded so that 32 divides both sides.
        channels: The most feature channels; wider backbones are projected to as many.
        head_width: Channels within the heads.
        learning_rate: Largest learning rate of AdamW, whose weight decay is 0.01.
        cache_memory: Mebibytes of features kept in memory while training.
        cache_disk: Mebibytes of features kept in a temporary file beyond that; what does not fit is computed again.
        pre_processor: See :class:`anomalib.models.components.AnomalibModule`, as the three below.
        post_processor: Post-processor, or whether to use the default.
        evaluator: Evaluator, or whether to use the default.
        visualizer: Visualizer, or whether to use the default.

    Raises:
        ValueError: If an argument is out of its range; in training, if there are fewer than three different normals,
            defects without masks, a precision other than 32-true, a loss that is not finite, or a resumed run of
            another length or other normals.
        OSError: At the start of training, if the backbone's weights cannot be read.

    Example:
        >>> model = DiscriminativePadim(scales=[64])
        >>> model.model.is_fitted
        False
    """

    learns_from_labels = True
    learns_from_marks = True  # boxes, clicks, or nothing, in place of a mask
    distinct_samples = 800  # asked of SynthesisCallback, where it is not told a number

    def __init__(
        self,
        *,
        backbone: str = "efficientnet_lite0_bundled",
        layers: Sequence[str] = ("blocks.1", "blocks.2", "blocks.4"),
        backbone_weights: Path | None = None,
        pre_trained: bool = True,
        scales: Sequence[int] = (160, 256),
        channels: int = 200,
        head_width: int = 64,
        learning_rate: float = 0.002,
        cache_memory: int = 64,
        cache_disk: int = 4096,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        _check_arguments(
            scales, (cache_memory, cache_disk), channels=channels, head_width=head_width, learning_rate=learning_rate
        )
        super().__init__(
            pre_processor=pre_processor, post_processor=post_processor, evaluator=evaluator, visualizer=visualizer
        )
        self.pre_trained = pre_trained
        self.learning_rate = learning_rate
        self.cache_limits = {"memory": cache_memory * 2**20, "disk": cache_disk * 2**20}
        self.model = DiscriminativePadimModel(
            FrozenBackbone(backbone, layers, weights=backbone_weights),
            scales=scales,
            channels=channels,
            head_width=head_width,
        )
        self.sample_reduction = MeanOverSamples()
        self._training: HeadTraining | None = None
        self._learns = True
        self.real_masks = 0  # real defects with masks that the heads learn; RealDefectsCallback says how many
        self._highest_good = float("-inf")  # value of the map in a good validation image

    def setup(self, stage: str) -> None:
        """Refuse precisions but 32-true: in lower ones features of the same image differ from step to step.

        Raises:
            ValueError: If the trainer's precision is another.
        """
        super().setup(stage)
        reason = "measures distances in deviations of good images, for which others are too coarse or not made"
        check_precision(self, ("32-true",), reason=reason)

    def on_train_start(self) -> None:
        """Read the backbone's weights and fit the Gaussians, unless a checkpoint brought both."""
        super().on_train_start()
        self._check_schedule()
        if self.model.is_fitted:
            logger.info("DiscriminativePadim goes on with the Gaussians it has; use a new model for another product.")
        elif self.pre_trained:
            self.model.features.backbone.load_weights()
        self._training = HeadTraining(self.model, **self.cache_limits)
        self._training.look_at_normals(self.trainer, self)
        self._learns = may_bring_defects(self.trainer)
        if not self._learns:
            logger.warning(
                "Nothing in this run brings a defect, so DiscriminativePadim is its normality alone (a PaDiM) and "
                "training ends after a batch. For the heads, add `anomalib_synth.callbacks.SynthesisCallback` to "
                "`trainer.callbacks`, wrap the datamodule in `anomalib_synth.data.SyntheticDataModule`, or add real "
                "defects with masks."
            )

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Return the mean over samples of the heads' losses."""
        del args, kwargs
        looks = self.global_step >= _LOOKS_FROM * self.trainer.estimated_stepping_batches
        losses = self._materials.sample_losses(batch, step=self.global_step, looks=looks)
        loss = self.sample_reduction(losses)
        check_loss(loss, losses, self, batch)
        self.log("train_loss", loss.detach(), on_epoch=True, prog_bar=True, batch_size=len(losses))
        return {"loss": loss}

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop where there is nothing to train the heads with: before validation, which sets the threshold."""
        super().on_train_batch_end(*args, **kwargs)
        if not self._learns:
            self.trainer.should_stop = True

    def on_validation_start(self) -> None:
        """Bring the score up to date before anything is scored."""
        super().on_validation_start()
        self._update_score()
        self._highest_good = float("-inf")

    def on_train_epoch_end(self) -> None:
        """Bring the score up to date."""
        super().on_train_epoch_end()
        self._update_score()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring the score up to date: the checkpoint holds the buffers themselves."""
        super().on_save_checkpoint(checkpoint)
        self._update_score()
        check_state(self, checkpoint["state_dict"])

    def on_train_end(self) -> None:
        """Give the memory of the features back."""
        super().on_train_end()
        training, self._training = self._training, None
        if training is None:
            return
        training.close()
        if self._learns and not bool(self.model.has_heads):
            logger.warning(
                "No training image had a defect that trains, so DiscriminativePadim is its normality alone (a PaDiM). "
                "Raise the `probability` of SynthesisCallback, loosen the `checks` of its generator, or train longer."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leave what belongs to a training run out of copies: one that broke off leaves an open file behind."""
        return {**super().__getstate__(), "_training": None}

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Add the predictions to the batch."""
        del args, kwargs
        batch.update(**self.model(batch.image)._asdict())
        if batch.gt_label is not None and not bool(batch.gt_label.all()):
            self._highest_good = max(self._highest_good, float(batch.anomaly_map[~batch.gt_label.bool()].max()))
        return batch

    def on_validation_epoch_end(self) -> None:
        """Have masks begin no higher than good images reach.

        The threshold that anomalib has found by then serves the F1 of the validation set's defects. Where those are
        drawn, and stronger than real ones, it lies far above all that a faint defect reaches.
        """
        super().on_validation_epoch_end()
        highest = self.trainer.strategy.reduce(torch.tensor(self._highest_good, device=self.device), reduce_op="max")
        if torch.isfinite(highest):
            lower_pixel_threshold(self, float(highest))

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW over the heads, its learning rate in one cycle over what is left of the run.

        Raises:
            ValueError: If the run has no end.
        """
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            msg = (
                "DiscriminativePadim's learning rate follows the run's length, but this run has none. Set "
                "`trainer.max_steps` (800 serve most products) or `trainer.max_epochs`."
            )
            raise ValueError(msg)
        heads = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(heads, lr=self.learning_rate, weight_decay=0.01)
        cycle = OneCycle(int(total) - self.global_step, start=self.global_step)
        schedule = {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, cycle), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No validation before training: the Gaussians are not fitted then."""
        return {"num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """It is trained on normal images; the defects are drawn."""
        return LearningType.ONE_CLASS

    @property
    def _materials(self) -> HeadTraining:
        if self._training is None:
            msg = "DiscriminativePadim trains within a Trainer's fit, which looks at the normals first."
            raise RuntimeError(msg)
        return self._training

    def _update_score(self) -> None:
        if self._training is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._training.seen_defects = self.trainer.strategy.reduce_boolean_decision(
                self._training.seen_defects, all=False
            )
            self._training.update_score(step=self.global_step, real_masks=self.real_masks)

    def _check_schedule(self) -> None:
        """Refuse a resumed run of another length: its learning rate would be that of the end of the old one."""
        total = self.trainer.estimated_stepping_batches
        for config in self.trainer.lr_scheduler_configs:
            for cycle in getattr(config.scheduler, "lr_lambdas", []):
                if isinstance(cycle, OneCycle) and cycle.start + cycle.steps != max(total, cycle.start + 1):
                    msg = (
                        "DiscriminativePadim's learning rate follows the run's length: a run of "
                        f"{cycle.start + cycle.steps} steps cannot be resumed as one of {total:g}. Set "
                        "`trainer.max_steps` or `trainer.max_epochs` as it was, or train a new model for longer."
                    )
                    raise ValueError(msg)

    @classmethod
    def configure_pre_processor(cls, image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Return the default pre-processor: 256 x 256, and the normalisation of the default backbone (0.5, 0.5).

        Most other timm networks want the ImageNet statistics: give the model a pre-processor with those.
        """
        size = image_size or (256, 256)
        return PreProcessor(Compose([Resize(size, antialias=True), Normalize([0.5] * 3, [0.5] * 3)]))


def _check_arguments(scales: Sequence[int], cache: Sequence[int], **positive: float) -> None:
    if not scales or any(side < 32 for side in scales) or len({round(side / 32) for side in scales}) < len(scales):
        msg = f"`scales` must hold sides in pixels, each >= 32 and different as multiples of 32, got {list(scales)}."
        raise ValueError(msg)
    if min(cache) < 0:
        msg = f"`cache_memory` and `cache_disk` must be >= 0 MiB, got {tuple(cache)}."
        raise ValueError(msg)
    for name, value in positive.items():
        if not value > 0:
            msg = f"`{name}` must be > 0, got {value}."
            raise ValueError(msg)

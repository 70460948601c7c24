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
_LOOKS_FROM = 0.4  # share of the steps after which defects without a mask are searched for


class DiscriminativePadim(AnomalibModule):
    """One Gaussian per position describes what is normal; two small heads per scale learn what a defect looks like.

    Our own model. Its normality part is PaDiM (arXiv 2011.08785) with shrinkage in place of a random choice of
    channels, fitted in closed form in one pass; all training is spent on the defects. One head sees the features and
    one their whitened residuals, for synthetic and real defects; each residual is computed without the normal behind
    the image (:mod:`~anomalib_synth.detectors.discriminative_padim.cross_fitting`). The score adds normality and heads,
    each standardised on normals that did not train it (:mod:`~anomalib_synth.detectors.discriminative_padim.score`).

    The model learns from labelled batches (``image``, ``source``, ``gt_mask``, ``gt_label``), which
    :class:`~anomalib_synth.callbacks.SynthesisCallback` or :class:`~anomalib_synth.data.SyntheticDataModule` provide;
    real defects train the heads too, by masks or other marks. If nothing in the run supplies a defect, the model uses
    the normality part alone, logs a warning and stops after one batch. The features of an image are computed once and
    kept, so a step costs only the heads as soon as ``SynthesisCallback`` repeats its samples, which it does after about
    800.

    The Gaussians are fitted once, at the start of the first training, and then kept: further training of the same model
    starts from them and needs the same normals. For another product, make a new model.

    Args:
        backbone: Name of a convolutional timm network. Its weights are read when training starts.
        layers: Layers whose features are used, from fine to coarse.
        backbone_weights: File with the backbone's weights, in place of timm's own.
        pre_trained: Whether to read pretrained weights; otherwise the backbone stays random.
        scales: Lengths in pixels of the longer side at which the image is processed, each >= 32; both sides are rounded
            to multiples of 32.
        channels: Largest number of feature channels; if the layers have more, they are projected to this number.
        head_width: Channels within the heads.
        learning_rate: Peak learning rate of AdamW (weight decay 0.01), > 0.
        cache_memory: MiB of features kept in memory while training, >= 0.
        cache_disk: MiB of further features kept in a temporary file, >= 0; features that fit in neither are computed
            again.
        pre_processor: Pre-processor, or whether to use the default; see
            :class:`anomalib.models.components.AnomalibModule`.
        post_processor: Post-processor, or whether to use the default.
        evaluator: Evaluator, or whether to use the default.
        visualizer: Visualizer, or whether to use the default.

    Raises:
        ValueError: If an argument is out of its range; in training, if there are fewer than three different normals,
            labelled defects without masks, a precision other than 32-true, a run without an end, a loss that is not
            finite, or a resumed run of another length or with other normals.
        OSError: At the start of training, if the backbone's weights cannot be read.

    Example:
        >>> model = DiscriminativePadim(scales=[64])
        >>> model.model.is_fitted
        False
    """

    learns_from_labels = True
    learns_from_marks = True  # a box, a click or nothing may replace the mask
    distinct_samples = 800  # SynthesisCallback's number, unless it is given one

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
        self.real_masks = 0  # real defects with masks among the training images, set by RealDefectsCallback
        self._highest_good = float("-inf")  # largest map value in good validation images

    def setup(self, stage: str) -> None:
        """Refuse every precision but 32-true: in lower ones, features of one image differ from step to step.

        Raises:
            ValueError: If the trainer's precision is not 32-true.
        """
        super().setup(stage)
        reason = "measures distances in deviations of good images, which takes full 32-bit precision"
        check_precision(self, ("32-true",), reason=reason)

    def on_train_start(self) -> None:
        """Read the backbone's weights and fit the Gaussians, unless a checkpoint or earlier training supplied both."""
        super().on_train_start()
        self._check_schedule()
        if self.model.is_fitted:
            logger.info("DiscriminativePadim keeps the Gaussians it has; use a new model for another product.")
        elif self.pre_trained:
            self.model.features.backbone.load_weights()
        self._training = HeadTraining(self.model, **self.cache_limits)
        self._training.look_at_normals(self.trainer, self)
        self._learns = may_bring_defects(self.trainer)
        if not self._learns:
            logger.warning(
                "Nothing in this run supplies a defect, so DiscriminativePadim is its normality alone (a PaDiM) and "
                "training ends after one batch. For the heads, add `anomalib_synth.callbacks.SynthesisCallback` to "
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
        """Stop if no defects can train the heads; validation still runs and sets the threshold."""
        super().on_train_batch_end(*args, **kwargs)
        if not self._learns:
            self.trainer.should_stop = True

    def on_validation_start(self) -> None:
        """Update the scale of the score before anything is scored."""
        super().on_validation_start()
        self._update_score()
        self._highest_good = float("-inf")

    def on_train_epoch_end(self) -> None:
        """Update the scale of the score."""
        super().on_train_epoch_end()
        self._update_score()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Update the scale of the score, which the checkpoint holds, and refuse weights that are not finite."""
        super().on_save_checkpoint(checkpoint)
        self._update_score()
        check_state(self, checkpoint["state_dict"])

    def on_train_end(self) -> None:
        """Release the cached features."""
        super().on_train_end()
        training, self._training = self._training, None
        if training is None:
            return
        training.close()
        if self._learns and not bool(self.model.has_heads):
            logger.warning(
                "No training image had a usable defect, so DiscriminativePadim is its normality alone (a PaDiM). "
                "Raise the `probability` of SynthesisCallback, loosen the `checks` of its generator, or train longer."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the state of a training run out of copies: an interrupted run holds an open file."""
        return {**super().__getstate__(), "_training": None}

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Add the predictions to the batch."""
        del args, kwargs
        batch.update(**self.model(batch.image)._asdict())
        if batch.gt_label is not None and not bool(batch.gt_label.all()):
            self._highest_good = max(self._highest_good, float(batch.anomaly_map[~batch.gt_label.bool()].max()))
        return batch

    def on_validation_epoch_end(self) -> None:
        """Lower the pixel threshold to the largest map value in good validation images.

        anomalib's threshold maximises F1 on the defects of the validation set. If those are drawn and stronger than
        real ones, that threshold lies far above the map of a faint defect.
        """
        super().on_validation_epoch_end()
        highest = self.trainer.strategy.reduce(torch.tensor(self._highest_good, device=self.device), reduce_op="max")
        if torch.isfinite(highest):
            lower_pixel_threshold(self, float(highest))

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW over the heads, with a one-cycle learning rate over the remaining steps of the run.

        Raises:
            ValueError: If the run has neither a largest number of steps nor of epochs.
        """
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            msg = (
                "DiscriminativePadim's learning rate follows the run's length, but this run has none. Set "
                "`trainer.max_steps` (800 suit most products) or `trainer.max_epochs`."
            )
            raise ValueError(msg)
        heads = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(heads, lr=self.learning_rate, weight_decay=0.01)
        cycle = OneCycle(int(total) - self.global_step, start=self.global_step)
        schedule = {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, cycle), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No validation before training, because the Gaussians are not fitted yet."""
        return {"num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """One-class: the model is trained on normal images, and the defects are drawn."""
        return LearningType.ONE_CLASS

    @property
    def _materials(self) -> HeadTraining:
        if self._training is None:
            msg = "DiscriminativePadim can only be trained in a Trainer's fit, which fits its Gaussians first."
            raise RuntimeError(msg)
        return self._training

    def _update_score(self) -> None:
        if self._training is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._training.seen_defects = self.trainer.strategy.reduce_boolean_decision(
                self._training.seen_defects, all=False
            )
            self._training.update_score(step=self.global_step, real_masks=self.real_masks)

    def _check_schedule(self) -> None:
        """Refuse a resumed run of another length: its learning rate would follow the old length."""
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

        Most other timm networks need the ImageNet statistics: give the model a pre-processor that uses them.
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

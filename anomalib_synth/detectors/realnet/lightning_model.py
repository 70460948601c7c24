"""RealNet as a model of anomalib."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from anomalib import LearningType
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.detectors.batches import drawn_rows, labelled_batches, mask_of, source_of
from anomalib_synth.detectors.numerics import check_loss, check_precision, check_state
from anomalib_synth.detectors.realnet.fitting import fit_selection
from anomalib_synth.detectors.realnet.loss import SegmentationLoss, reconstruction_loss, segmentation_loss
from anomalib_synth.detectors.realnet.torch_model import RealNetModel
from anomalib_synth.losses.reduction import MeanOverSamples

logger = logging.getLogger(__name__)


class RealNet(AnomalibModule):
    """RealNet: reconstructs the features of the normal image and finds the defect in the residual.

    After "RealNet: A Feature Selection Network with Realistic Synthetic Anomaly for Anomaly Detection" (CVPR 2024,
    arXiv 2403.05897). A frozen backbone's features pass anomaly-aware feature selection (AFS); one U-Net per feature
    map reconstructs the features of the normal image; residual selection (RRS) and a discriminator turn the residuals
    into an anomaly map. RealNet learns from labelled batches (``image``, ``source``, ``gt_mask``, ``gt_label``), which
    :class:`~anomalib_synth.callbacks.SynthesisCallback` or :class:`~anomalib_synth.data.SyntheticDataModule` provide.

    The defaults are sized for two CPU cores. The authors' settings are ``backbone: wide_resnet50_2``, ``layers:
    [layer1, layer2, layer3, layer4]``, ``feature_dims: [256, 512, 512, 256]``, ``reconstruction_blocks: 2``,
    ``residual_dims: [256, 256]``, ``discriminator_width: 128``, ``discriminator_blocks: 2``, ``learning_rate: 0.0001``,
    ``segmentation_loss: cross_entropy``.

    We differ from the paper and the authors' code: features are first averaged over 3 x 3 positions, as in PatchCore
    (arXiv 2106.08265); the segmentation loss gives a defect as much weight as the rest of its image (theirs weights
    every pixel alike, and a defect has few); the selected features are standardised by the statistics of normal images;
    each feature block has one layer; AFS sees at most one epoch of the run's own batches (the authors: 64 batches of
    defects only); the image score averages over windows of a sixteenth of the side (the authors: 16 pixels at 256);
    batch statistics have torch's default momentum. Further differences are listed in
    :mod:`~anomalib_synth.detectors.realnet.selection`, :mod:`~anomalib_synth.detectors.realnet.reconstruction` and
    :mod:`~anomalib_synth.detectors.realnet.discriminator`. Images with *real* defects, whose normal image is unknown,
    train the segmentation only.

    The selection is fitted once, at the start of the first training, and then kept: further training of the same model
    starts from it. For another product, make a new model.

    Args:
        backbone: Name of a convolutional timm network. Its weights are read when training starts.
        layers: Layers whose features are used, from fine to coarse.
        feature_dims: Number of channels AFS keeps of each layer; by default about a third of the default backbone's.
        backbone_weights: File with the backbone's weights, in place of timm's own.
        pre_trained: Whether to read pretrained weights; otherwise the backbone stays random.
        reconstruction_width: Width of each reconstruction network, as a share of its feature channels.
        reconstruction_blocks: Residual blocks per level of each reconstruction network.
        residual_dims: Number of residual channels kept by largest value, and number kept by mean.
        discriminator_width: Channels of the discriminator's first layer.
        discriminator_blocks: Residual blocks in the discriminator.
        selection_batches: Number of training batches that AFS is fitted on, at most one epoch.
        learning_rate: Initial learning rate of Adam, > 0; it falls only with
            :class:`~anomalib_synth.callbacks.LearningRateDecayCallback`.
        segmentation_loss: ``balanced``, ``focal``, or the paper's ``cross_entropy``; see
            :func:`~anomalib_synth.detectors.realnet.loss.segmentation_loss`.
        pre_processor: Pre-processor, or whether to use the default; see
            :class:`anomalib.models.components.AnomalibModule`.
        post_processor: Post-processor, or whether to use the default.
        evaluator: Evaluator, or whether to use the default.
        visualizer: Visualizer, or whether to use the default.

    Raises:
        ValueError: If an argument is out of its range; in training, if the batches hold no synthetic defects, defects
            come without sources or masks, the precision is not 32-true, bf16-mixed or 16-mixed, or the loss is not
            finite.
        OSError: At the start of training, if the backbone's weights cannot be read.

    Example:
        >>> model = RealNet(feature_dims=[4, 8, 16], residual_dims=(12, 12))
        >>> model.model.selector.is_fitted
        False
    """

    learns_from_labels = True

    def __init__(
        self,
        *,
        backbone: str = "efficientnet_lite0_bundled",
        layers: Sequence[str] = ("blocks.1", "blocks.2", "blocks.4"),
        feature_dims: Sequence[int] = (8, 16, 32),
        backbone_weights: Path | None = None,
        pre_trained: bool = True,
        reconstruction_width: float = 0.5,
        reconstruction_blocks: int = 1,
        residual_dims: tuple[int, int] = (24, 24),
        discriminator_width: int = 32,
        discriminator_blocks: int = 1,
        selection_batches: int = 64,
        learning_rate: float = 0.003,
        segmentation_loss: SegmentationLoss = "balanced",
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        for name, value in (
            ("reconstruction_width", reconstruction_width),
            ("reconstruction_blocks", reconstruction_blocks),
            ("discriminator_width", discriminator_width),
            ("discriminator_blocks", discriminator_blocks),
            ("selection_batches", selection_batches),
            ("learning_rate", learning_rate),
        ):
            if not value > 0:
                msg = f"`{name}` must be > 0, got {value}."
                raise ValueError(msg)
        if segmentation_loss not in (kinds := get_args(SegmentationLoss)):
            msg = f"`segmentation_loss` must be one of {', '.join(kinds)}, got {segmentation_loss!r}."
            raise ValueError(msg)
        super().__init__(
            pre_processor=pre_processor, post_processor=post_processor, evaluator=evaluator, visualizer=visualizer
        )
        self.pre_trained = pre_trained
        self.selection_batches = selection_batches
        self.learning_rate = learning_rate
        self.segmentation_loss = segmentation_loss
        self.model = RealNetModel.build(
            FrozenBackbone(backbone, layers, weights=backbone_weights),
            feature_dims=list(feature_dims),
            reconstruction_width=reconstruction_width,
            reconstruction_blocks=reconstruction_blocks,
            residual_dims=(residual_dims[0], residual_dims[1]),
            discriminator_width=discriminator_width,
            discriminator_blocks=discriminator_blocks,
        )
        self.sample_reduction = MeanOverSamples()

    def setup(self, stage: str) -> None:
        """Refuse precisions that RealNet cannot compute in.

        Raises:
            ValueError: If the trainer's precision is not 32-true, bf16-mixed or 16-mixed.
        """
        super().setup(stage)
        check_precision(
            self, ("32-true", "bf16-mixed", "16-mixed"), reason="keeps its backbone and statistics in 32 bits"
        )

    def on_train_start(self) -> None:
        """Read the backbone's weights and fit AFS, unless a checkpoint or earlier training supplied both."""
        super().on_train_start()
        if self.model.selector.is_fitted:
            logger.info("RealNet keeps the features it selected before; use a new model for another product.")
            return
        if self.pre_trained:
            self.model.backbone.load_weights()
        total = int(min(self.selection_batches, self.trainer.num_training_batches))
        batches = labelled_batches(self.trainer, self, total)
        fit_selection(self.model, batches, total=total, trainer=self.trainer)

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Return the mean over samples of reconstruction and segmentation loss."""
        del args, kwargs
        reconstruction, segmentation = self.sample_losses(batch)
        samples = reconstruction + segmentation
        loss = self.sample_reduction(samples)
        check_loss(loss, samples, self, batch)
        count = len(reconstruction)
        self.log("train_loss", loss.detach(), on_epoch=True, prog_bar=True, batch_size=count)
        self.log("train_reconstruction_loss", reconstruction.detach().mean(), on_epoch=True, batch_size=count)
        self.log("train_segmentation_loss", segmentation.detach().mean(), on_epoch=True, batch_size=count)
        return {"loss": loss}

    def sample_losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the reconstruction and the segmentation loss of each sample, (B,) each.

        Raises:
            ValueError: If the batch has defects but no source images or no masks.
        """
        images, source = batch.image.as_subclass(torch.Tensor), source_of(batch)
        drawn = drawn_rows(batch)
        features = self.model.selector(self.model.extract(images))
        target = [feature.clone() for feature in features]
        if bool(drawn.any()):
            normal = self.model.selector(self.model.extract(source[drawn]))
            for feature, replacement in zip(target, normal, strict=True):
                feature[drawn] = replacement
        reconstructed = self.model.reconstruct(features)
        logits = self.model.discriminate(features, reconstructed, images.shape[-2:])
        reconstruction = reconstruction_loss(reconstructed, target)
        defective = drawn if batch.gt_label is None else batch.gt_label.bool()
        reconstruction = torch.where(defective & ~drawn, torch.zeros_like(reconstruction), reconstruction)
        return reconstruction, segmentation_loss(logits, mask_of(batch, "RealNet"), kind=self.segmentation_loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to save weights that are not finite."""
        super().on_save_checkpoint(checkpoint)
        check_state(self, checkpoint["state_dict"])

    def validation_step(self, batch: Batch, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Add the predictions to the batch."""
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam over the trainable parts."""
        return torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], lr=self.learning_rate)

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No validation before training, because the feature selection is not fitted yet."""
        return {"num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """One-class: the model is trained on normal images, and the defects are drawn."""
        return LearningType.ONE_CLASS

    @classmethod
    def configure_pre_processor(cls, image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Return the default pre-processor: 256 x 256, and the normalisation of the default backbone (0.5, 0.5).

        Most other timm networks need the ImageNet statistics: give the model a pre-processor that uses them.
        """
        size = image_size or (256, 256)
        return PreProcessor(Compose([Resize(size, antialias=True), Normalize([0.5] * 3, [0.5] * 3)]))

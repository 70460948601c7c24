"""Train a model of your own on synthetic defects, weighted by their quality.

python examples/own_model.py
"""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

import torch
from anomalib import LearningType
from anomalib.data import InferenceBatch
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from torch import nn

from anomalib_synth.callbacks import QualityWeightingCallback, SynthesisCallback
from anomalib_synth.data import DemoParts
from anomalib_synth.losses import MeanOverSamples


class PixelClassifier(AnomalibModule):
    """Calls a pixel defective by its colour."""

    learns_from_labels, learning_type = True, LearningType.ONE_CLASS  # the first: it is given defects with masks
    trainer_arguments: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__(evaluator=False, visualizer=False)
        self.model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 1))
        self.sample_reduction = MeanOverSamples()  # QualityWeightingCallback weighs what comes here, (B,)

    def training_step(self, batch, *args, **kwargs):
        """Return the loss of a batch."""
        loss = nn.functional.binary_cross_entropy_with_logits
        losses = loss(self.model(batch.image)[:, 0], batch.gt_mask.float(), reduction="none").mean((1, 2))
        return {"loss": self.sample_reduction(losses)}

    def validation_step(self, batch, *args, **kwargs):
        """Return the batch with scores and maps."""
        maps = self.model(batch.image)
        return batch.update(**InferenceBatch(pred_score=maps.amax((1, 2, 3)), anomaly_map=maps)._asdict())

    def configure_optimizers(self):
        """Return the optimiser."""
        return torch.optim.Adam(self.parameters())


def main() -> None:
    """Train it for one epoch on rendered parts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default="datasets/DemoParts", help="where the parts are rendered")
    parser.add_argument("--num_train", type=int, default=64)
    args = parser.parse_args()
    data = DemoParts(root=args.root, num_train=args.num_train)
    callbacks = [SynthesisCallback(), QualityWeightingCallback()]
    Engine(max_epochs=1, callbacks=callbacks, logger=False).fit(PixelClassifier(), datamodule=data)


if __name__ == "__main__":
    main()

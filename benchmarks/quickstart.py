"""The quickstart's model with our synthesis and with anomalib's, on one kind of demo parts.

    python benchmarks/quickstart.py --category woven_fabric --seeds 0 1 2

RealNet as in configs/train/quickstart.yaml, with its decaying learning rate: once with SynthesisCallback(
RuleBasedGenerator()), once with anomalib's PerlinAnomalyGenerator, at the same number of steps; the last checkpoint.
RealNet learns from defects only, so there is no arm without any: the nearest-neighbour yardstick of the same images,
printed by benchmarks/demo_yardstick.py, is what needs none.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd
import torch
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from anomalib.engine import Engine
from lightning.pytorch import Callback, seed_everything
from real_images import evaluate
from torchvision.tv_tensors import Image, Mask

from anomalib_synth.callbacks import LearningRateDecayCallback, SynthesisCallback
from anomalib_synth.data import DemoParts
from anomalib_synth.data.normals import model_transform
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import RealNet


class PerlinLabels(Callback):
    """Anomalib's own samples in RealNet's batches, on half of the images."""

    writes_labels = True

    def __init__(self) -> None:
        self.augmenter = PerlinAnomalyGenerator(probability=0.5)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Draw onto the batch."""
        del trainer, batch_idx
        image, mask = self.augmenter(batch.image.as_subclass(torch.Tensor))
        batch.source = model_transform(pl_module)(Image(batch.image))
        batch.image, batch.gt_mask = Image(image.clamp(0, 1)), Mask(mask[:, 0] > 0)
        batch.gt_label = batch.gt_mask.flatten(1).any(1)


def run(arm: str, category: str, seed: int, *, root: Path, epochs: int) -> dict:
    """Train and test one arm."""
    seed_everything(seed)
    model = RealNet(post_processor=False, evaluator=False, visualizer=False)
    ours = SynthesisCallback(RuleBasedGenerator(), seed=seed, grid_every_n_epochs=0)
    datamodule = DemoParts(root=root, category=category, train_batch_size=8, seed=0)
    with tempfile.TemporaryDirectory() as results:
        engine = Engine(
            callbacks=[ours if arm == "ours" else PerlinLabels(), LearningRateDecayCallback()],
            default_root_dir=results,
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            limit_val_batches=0,
            max_epochs=epochs,
        )
        engine.fit(model, datamodule=datamodule)
    return {"category": category, "arm": arm, "seed": seed, **evaluate(model, datamodule)}


def main() -> None:
    """Run both arms on each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--category", default="woven_fabric")
    parser.add_argument("--arms", nargs="+", default=["ours", "built-in"], choices=["ours", "built-in"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=120, help="of 8 steps each, as many steps as the quickstart has")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--root", type=Path, default=Path("datasets/DemoParts"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for seed in args.seeds:
        for arm in args.arms:
            rows.append(run(arm, args.category, seed, root=args.root, epochs=args.epochs))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).drop(columns="seed").groupby(["category", "arm"]).agg(["mean", "min"])
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()

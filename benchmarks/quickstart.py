"""The quickstart's model with our synthesis, with anomalib's and with none, on one kind of demo parts.

    python benchmarks/quickstart.py --category woven_fabric --seeds 0 1 2

DiscriminativePadim as in configs/train/quickstart.yaml, on all 64 normals: with SynthesisCallback(
RuleBasedGenerator()), with anomalib's PerlinAnomalyGenerator, at the same number of steps, and its normality alone; the
last checkpoint. The nearest-neighbour yardstick of the same images is printed by benchmarks/demo_yardstick.py.
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

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.data import DemoParts
from anomalib_synth.data.normals import model_transform
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import DiscriminativePadim


class PerlinLabels(Callback):
    """Anomalib's own samples in the batches, on half of the images."""

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


def run(arm: str, category: str, seed: int, *, root: Path, steps: int) -> dict:
    """Train and test one arm."""
    seed_everything(seed)
    model = DiscriminativePadim(post_processor=False, evaluator=False, visualizer=False)
    callbacks = {
        "ours": [SynthesisCallback(RuleBasedGenerator(), seed=seed, grid_every_n_epochs=0)],
        "built-in": [PerlinLabels()],
        "none": [],
    }[arm]
    datamodule = DemoParts(root=root, category=category, train_batch_size=8, seed=0)
    with tempfile.TemporaryDirectory() as results:
        engine = Engine(
            callbacks=callbacks,
            default_root_dir=results,
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            limit_val_batches=0,
            max_epochs=-1,
            max_steps=steps,
        )
        engine.fit(model, datamodule=datamodule)
    return {"category": category, "arm": arm, "seed": seed, **evaluate(model, datamodule)}


def main() -> None:
    """Run the arms on each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--category", default="woven_fabric")
    parser.add_argument("--arms", nargs="+", default=["ours", "built-in", "none"], choices=["ours", "built-in", "none"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=400, help="as many as the quickstart has")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--root", type=Path, default=Path("datasets/DemoParts"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for seed in args.seeds:
        for arm in args.arms:
            rows.append(run(arm, args.category, seed, root=args.root, steps=args.steps))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).drop(columns="seed").groupby(["category", "arm"]).agg(["mean", "min"])
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()

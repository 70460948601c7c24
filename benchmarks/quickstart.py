"""The quickstart's model with and without our synthesis, on one kind of demo parts.

    python benchmarks/quickstart.py --category woven_fabric --seeds 0 1 2

GLASS as in configs/train/quickstart.yaml, with its decaying learning rate: once with
SynthesisCallback(RuleBasedGenerator()), once with its built-in Perlin anomalies, at the same number of steps; the last
checkpoint. The nearest-neighbour yardstick of the same
images is printed by benchmarks/demo_yardstick.py.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd
import torch
from anomalib.engine import Engine
from anomalib.models import Glass
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import seed_everything
from real_images import evaluate
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth import BACKBONE_NAME
from anomalib_synth.callbacks import LearningRateDecayCallback, SynthesisCallback
from anomalib_synth.data import DemoParts
from anomalib_synth.generators import RuleBasedGenerator


def run(arm: str, category: str, seed: int, *, root: Path, steps: int) -> dict:
    """Train and test one arm."""
    seed_everything(seed)
    model = Glass(
        input_shape=(256, 256),
        backbone=BACKBONE_NAME,
        layers=["blocks.2", "blocks.4"],
        pretrain_embed_dim=192,
        target_embed_dim=192,
        discriminator_hidden=192,
        learning_rate=1e-3,
        mining=False,
        pre_processor=PreProcessor(Compose([Resize((256, 256), antialias=True), Normalize([0.5] * 3, [0.5] * 3)])),
        post_processor=False,
        evaluator=False,
        visualizer=False,
    )
    callbacks = [LearningRateDecayCallback()]
    if arm == "ours":
        callbacks.append(SynthesisCallback(RuleBasedGenerator(), probability=1.0, seed=seed, grid_every_n_epochs=0))
    datamodule = DemoParts(root=root, category=category, train_batch_size=8, seed=0)
    with tempfile.TemporaryDirectory() as results:
        engine = Engine(
            callbacks=callbacks,
            default_root_dir=results,
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            limit_val_batches=0,
            max_steps=-1,
            max_epochs=max(1, steps // 7),
        )
        engine.fit(model, datamodule=datamodule)
    return {"category": category, "arm": arm, "seed": seed, **evaluate(model, datamodule)}


def main() -> None:
    """Run both arms on each seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--category", default="woven_fabric")
    parser.add_argument("--arms", nargs="+", default=["ours", "built-in"], choices=["ours", "built-in"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=280)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--root", type=Path, default=Path("datasets/DemoParts"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for seed in args.seeds:
        for arm in args.arms:
            rows.append(run(arm, args.category, seed, root=args.root, steps=args.steps))
            print(rows[-1], flush=True)
    print(
        pd.DataFrame(rows).drop(columns="seed").groupby(["category", "arm"]).agg(["mean", "min"]).round(3).to_string()
    )


if __name__ == "__main__":
    main()

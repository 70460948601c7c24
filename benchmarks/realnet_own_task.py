"""Does RealNet learn the task it is given: its own synthetic defects, on normals that trained nothing?

RealNet is trained as in configs/train/realnet.yaml, at 160 px, on nine tenths of train/good. Then one defect of
RuleBasedGenerator(), prepared on the training images, is drawn onto each image of test/good and of the tenth held
back. Every defect that was accepted is a positive, the same images undrawn are the negatives; no image with a real
defect is read. A detector that fails here cannot be expected to find real defects.

    python benchmarks/realnet_own_task.py --data DATA --categories woven_fabric magnetic_tile --seeds 0
    python benchmarks/realnet_own_task.py --data DATA --segmentation-loss cross_entropy
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pandas as pd
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback, seed_everything
from rich.console import Console
from rich.progress import Progress
from select_model import score
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth.callbacks import LearningRateDecayCallback, SynthesisCallback
from anomalib_synth.detectors.realnet.loss import SegmentationLoss
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.seeding import derive_seeds
from anomalib_synth.models import RealNet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anomalib.data.datasets.base.image import AnomalibDataset

CATEGORIES = ["woven_fabric", "magnetic_tile"]


class StepProgress(Callback):
    """A line on stderr that follows the steps of a run."""

    def __init__(self, name: str, steps: int) -> None:
        self.progress = Progress(console=Console(stderr=True), transient=True)
        self.task = self.progress.add_task(name, total=steps)

    def on_train_start(self, trainer, pl_module) -> None:
        """Show it."""
        self.progress.start()

    def on_train_batch_end(self, *args) -> None:
        """Move it."""
        self.progress.advance(self.task)

    def on_train_end(self, trainer, pl_module) -> None:
        """Take it away."""
        self.progress.stop()


def make_datamodule(data: Path, category: str, *, batch_size: int) -> Folder:
    """Return the good images of a category: those of train, a tenth of them held back, and those of test."""
    return Folder(
        name=category,
        root=data / category,
        normal_dir="train/good",
        normal_test_dir="test/good",
        train_batch_size=batch_size,
        num_workers=0,
        val_split_mode="from_train",
        val_split_ratio=0.1,
        seed=0,
    )


def read_images(parts: Iterable[AnomalibDataset], size: int) -> torch.Tensor:
    """Return the images (N, 3, size, size) of datasets, in [0, 1]."""
    resize = Resize((size, size), antialias=True)
    images = [
        resize(batch.image.as_subclass(torch.Tensor))
        for part in parts
        for batch in DataLoader(part, batch_size=16, collate_fn=part.collate_fn)
    ]
    return torch.cat(images).clamp(0, 1)  # resizing overshoots


def test_on_own_defects(model: RealNet, datamodule: Folder, size: int, seed: int) -> dict[str, float]:
    """Return image AUROC and pixel AP on held-out good images, undrawn and with one synthetic defect each."""
    held_out = read_images([datamodule.test_data, datamodule.val_data], size)
    generator = RuleBasedGenerator().prepare(read_images([datamodule.train_data], size))
    sample = generator(held_out, seeds=derive_seeds(seed, 1_000_000, [str(i) for i in range(len(held_out))]))
    images = torch.cat([held_out, sample.image[sample.accepted]])
    masks = torch.cat([torch.zeros_like(sample.mask), sample.mask[sample.accepted]])
    model.eval()
    auroc, ap = score(model, images, masks)
    return {"normals": len(held_out), "defects": int(sample.accepted.sum()), "image_auroc": auroc, "pixel_ap": ap}


def run_cell(category: str, seed: int, args: argparse.Namespace) -> dict:
    """Train RealNet on a category, test it on its own task, and return the row."""
    seed_everything(seed, verbose=False)
    transform = Compose([Resize((args.size, args.size), antialias=True), Normalize([0.5] * 3, [0.5] * 3)])
    parts = {"evaluator": False, "visualizer": False, "post_processor": False}
    model = RealNet(segmentation_loss=args.segmentation_loss, pre_processor=PreProcessor(transform), **parts)
    datamodule = make_datamodule(args.data, category, batch_size=args.batch_size)
    callbacks = [
        SynthesisCallback(RuleBasedGenerator(), probability=0.5, seed=seed, grid_every_n_epochs=0),
        LearningRateDecayCallback(),
        StepProgress(f"{category}, seed {seed}", args.steps),
    ]
    with tempfile.TemporaryDirectory() as results:
        engine = Engine(
            callbacks=callbacks, default_root_dir=results, logger=False, accelerator="cpu", enable_progress_bar=False,
            max_epochs=-1, max_steps=args.steps, limit_val_batches=0, num_sanity_val_steps=0,
            enable_model_summary=False,
        )  # fmt: skip
        start = time.perf_counter()
        engine.fit(model, datamodule=datamodule)
        minutes = (time.perf_counter() - start) / 60
    found = test_on_own_defects(model, datamodule, args.size, seed)
    return {"category": category, "seed": seed, **found, "fit_minutes": minutes}


def main() -> None:
    """Run the cells, and print a row for each as it comes and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per category")
    parser.add_argument("--categories", nargs="+", default=CATEGORIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--segmentation-loss", choices=get_args(SegmentationLoss), default="balanced")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if not args.data.is_dir():
        parser.error(f"--data must be a folder with one folder per category, got {args.data}")
    torch.set_num_threads(args.threads)
    rows = []
    for seed in args.seeds:
        for category in args.categories:
            rows.append(run_cell(category, seed, args))
            print(rows[-1], flush=True)
    print(f"\n{args.size} px, {args.steps} steps of {args.batch_size}, {args.segmentation_loss}")
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()

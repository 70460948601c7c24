"""What cannot be seen without a GPU: the tests marked ``gpu``, and whether CPU and GPU give the same scores.

    python scripts/check_gpu.py

Runs those tests, trains DiscriminativePadim and RealNet on rendered parts on the CPU and on the GPU, from the same
seed, and prints image AUROC and the largest difference of the scores side by side. Status 1 if a test fails, or an
AUROC differs by more than 0.02. Under ten minutes on one GPU; with none it says so, status 2.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

MOST_APART = 0.02


def train(
    name: str, accelerator: str, folder: Path, *, steps: int, images: int, size: int
) -> tuple[list[float], float, float]:
    """Train on one device; return the scores of the test images, their AUROC, and the seconds it took."""
    import lightning.pytorch as pl
    from anomalib.engine import Engine
    from anomalib.pre_processing import PreProcessor
    from sklearn.metrics import roc_auc_score
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    from anomalib_synth import BACKBONE_NAME, models
    from anomalib_synth.callbacks import SynthesisCallback
    from anomalib_synth.data import DemoParts
    from anomalib_synth.generators import RuleBasedGenerator

    pl.seed_everything(0, workers=True, verbose=False)
    data = DemoParts(root=folder / "parts", image_size=size, num_train=images, num_test_good=12, num_test_defect=16)
    steps_of = PreProcessor(Compose([Resize((size, size), antialias=True), Normalize([0.5] * 3, [0.5] * 3)]))
    model = getattr(models, name)(backbone=BACKBONE_NAME, pre_processor=steps_of, evaluator=False, visualizer=False)
    callbacks = [SynthesisCallback(RuleBasedGenerator())]
    limits = {"max_steps": steps, "max_epochs": -1, "limit_val_batches": 0, "enable_progress_bar": False}
    where = folder / accelerator / name
    engine = Engine(
        accelerator=accelerator, devices=1, callbacks=callbacks, logger=False, default_root_dir=where, **limits
    )
    started = time.perf_counter()
    engine.fit(model, datamodule=data)
    seconds = time.perf_counter() - started
    batches = engine.predict(model, dataloaders=data.test_dataloader(), return_predictions=True)
    scores = [float(score) for batch in batches for score in batch.pred_score.flatten()]
    labels = [bool(label) for batch in batches for label in batch.gt_label.flatten()]
    return scores, float(roc_auc_score(labels, scores)), seconds


def compare(folder: Path, devices: list[str], *, steps: int, images: int, size: int) -> bool:
    """Print a row for each model; return whether the devices agree."""
    table, agree = Table("model", "device", "image AUROC", "largest difference of a score", "seconds"), True
    for name in ("DiscriminativePadim", "RealNet"):
        found = {device: train(name, device, folder, steps=steps, images=images, size=size) for device in devices}
        first = found[devices[0]]
        for device, (scores, auroc, seconds) in found.items():
            apart = max(abs(one - other) for one, other in zip(scores, first[0], strict=True))
            table.add_row(name, device, f"{auroc:.4f}", f"{apart:.2g}", f"{seconds:.1f}")
            agree &= abs(auroc - first[1]) <= MOST_APART
    Console(width=100).print(table)
    return agree


def main() -> None:
    """Run the tests, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="training steps of each model")
    parser.add_argument("--images", type=int, default=48, help="good images it trains on")
    parser.add_argument("--size", type=int, default=160, help="side of the images")
    parser.add_argument("--cpu_twice", action="store_true", help="without a GPU: compare the CPU with itself, no tests")
    args = parser.parse_args()
    if not args.cpu_twice and not torch.cuda.is_available():
        print("No CUDA device: nothing was checked. `--cpu_twice` tries the script itself.")
        sys.exit(2)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    status = 0
    if not args.cpu_twice:
        status = subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu"], check=False).returncode
    with tempfile.TemporaryDirectory() as folder:
        devices = ["cpu"] if args.cpu_twice else ["cpu", "gpu"]
        agree = compare(Path(folder), devices, steps=args.steps, images=args.images, size=args.size)
    sys.exit(0 if agree and status == 0 else 1)


if __name__ == "__main__":
    main()

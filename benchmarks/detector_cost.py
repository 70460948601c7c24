"""What DiscriminativePadim costs: seconds and memory to draw, train and score, by the number of good images.

Each number of images in a process of its own: rendered parts of 256 x 256, half of the images of a batch of 8 with a
drawn defect, 800 steps at two scales, then the test set of 50 images. Memory is the process's largest resident set,
imports (torch, anomalib) included; it is printed for them alone too.

    python benchmarks/detector_cost.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(images: int, steps: int, threads: int, root: Path) -> dict[str, float]:
    """Train and score once; return seconds and mebibytes."""
    import logging
    import warnings

    import torch
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything

    from anomalib_synth.callbacks import SynthesisCallback
    from anomalib_synth.data import DemoParts
    from anomalib_synth.generators import RuleBasedGenerator
    from anomalib_synth.models import DiscriminativePadim

    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "anomalib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    seed_everything(0, verbose=False)
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    data = DemoParts(
        root=root / str(images), category="brushed_metal", num_train=images, num_test_good=25, num_test_defect=25,
        train_batch_size=8, eval_batch_size=8, num_workers=1, seed=0,
    )  # fmt: skip
    data.prepare_data()
    model = DiscriminativePadim(visualizer=False, post_processor=False, evaluator=False)
    with tempfile.TemporaryDirectory() as results:
        engine = Engine(
            callbacks=[SynthesisCallback(RuleBasedGenerator(), grid_every_n_epochs=0)], default_root_dir=results,
            logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
            limit_val_batches=0, max_epochs=-1, max_steps=steps,
        )  # fmt: skip
        start = time.perf_counter()
        engine.fit(model, datamodule=data)
        fitted = time.perf_counter()
        engine.test(model, datamodule=data, verbose=False)
    done = time.perf_counter()
    return {
        "images": images,
        "fit_seconds": round(fitted - start, 1),
        "test_seconds": round(done - fitted, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "imports_mib": round(imported),
    }


def main() -> None:
    """Measure each number of images in a process of its own and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", type=int, default=[300, 600])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(measure(args.images[0], args.steps, args.threads, args.one)))
        return
    with tempfile.TemporaryDirectory() as root:
        rows = []
        for images in args.images:
            command = [sys.executable, __file__, "--images", str(images), "--steps", str(args.steps)]
            command += ["--threads", str(args.threads), "--one", root]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(run.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    if len(rows) > 1:
        ratio = rows[-1]["fit_seconds"] / rows[0]["fit_seconds"]
        print(f"{rows[-1]['images'] / rows[0]['images']:g} times the images take {ratio:.2f} times as long to train")


if __name__ == "__main__":
    main()

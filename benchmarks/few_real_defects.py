"""What a few real defects add: RealNet with RealDefectGenerator on 0, 1, 5 and 10 of them, and RuleBasedGenerator.

The real defects are test images with their masks, ten for each category and seed, drawn evenly from the classes; the
ten are taken out of the test set of every arm, so that all arms are tested on the same images. ``realnet_real_N`` has
the first N of the ten: every other synthetic defect is one of them, pasted; the others are drawn by rules, as all are
with N = 0. Setting, data and results are those of real_images.py.

    python benchmarks/few_real_defects.py --data DATA --seeds 0 1 2
    python benchmarks/few_real_defects.py --table
"""

from __future__ import annotations

import argparse
import random
import tempfile
from itertools import chain, zip_longest
from pathlib import Path

import pandas as pd
import torch
from real_images import KEY, run_cell

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.generators import MixtureGenerator, RealDefectGenerator, RuleBasedGenerator
from anomalib_synth.generators.base import AnomalyGenerator

COUNTS = [0, 1, 5, 10]
RESULTS = Path(__file__).parent / "results" / "few_real_defects.csv"


def draw_donors(category: Path, seed: int, count: int = 10) -> list[Path]:
    """Return images with defects in an order in which the classes take turns."""
    rng = random.Random(seed)
    classes = [sorted(path.iterdir()) for path in sorted((category / "test").iterdir()) if path.name != "good"]
    rng.shuffle(classes)
    for images in classes:
        rng.shuffle(images)
    return [image for image in chain.from_iterable(zip_longest(*classes)) if image is not None][:count]


def make_generator(donors: list[Path], folder: Path) -> AnomalyGenerator:
    """Return rule-based defects and, where there are donors, as many pasted real ones."""
    if not donors:
        return RuleBasedGenerator()
    for donor in donors:
        defect_class = donor.parent.name
        mask = donor.parents[2] / "ground_truth" / defect_class / f"{donor.stem}_mask.png"
        for part, file in (("test", donor), ("ground_truth", mask)):
            (folder / part / defect_class).mkdir(parents=True, exist_ok=True)
            (folder / part / defect_class / file.name).symlink_to(file.resolve())
    return MixtureGenerator([RealDefectGenerator(folder / "test"), RuleBasedGenerator()])


def run(count: int, data: Path, category: str, seed: int, *, size: int, steps: int, batch_size: int) -> dict:
    """Train and test one arm; return its row."""
    donors = draw_donors(data / category, seed)
    with tempfile.TemporaryDirectory() as folder:
        synthesis = SynthesisCallback(make_generator(donors[:count], Path(folder)), seed=seed, grid_every_n_epochs=0)
        return run_cell(
            f"realnet_real_{count}", data, category, seed, size=size, steps=steps, batch_size=batch_size,
            synthesis=synthesis, untested=donors,
        )  # fmt: skip


def main() -> None:
    """Run the cells that are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per category, with masks")
    parser.add_argument("--categories", nargs="+", default=["magnetic_tile", "pavement_crack"])
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    args = parser.parse_args()
    if args.table:
        rows = pd.read_csv(args.results)
        for metric in ("image_auroc", "pixel_auroc", "pixel_ap"):
            table = rows.pivot_table(index="arm", columns="category", values=metric, aggfunc=["mean", "std", "count"])
            print(f"\n{metric}\n{table.round(3).to_string()}")
        return
    if args.data is None or not args.data.is_dir():
        parser.error(f"--data must be a folder with one folder per category, got {args.data}")
    torch.set_num_threads(args.threads)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for category in args.categories:
            for count in args.counts:
                done = pd.read_csv(args.results) if args.results.exists() else pd.DataFrame(columns=["arm"])
                setting = (f"realnet_real_{count}", category, seed, args.size, args.steps, args.batch_size)
                if len(done) and (done[KEY] == setting).all(1).any():
                    continue
                row = run(
                    count, args.data, category, seed, size=args.size, steps=args.steps, batch_size=args.batch_size
                )
                print(row, flush=True)
                pd.DataFrame([row]).to_csv(args.results, mode="a", header=not args.results.exists(), index=False)


if __name__ == "__main__":
    main()

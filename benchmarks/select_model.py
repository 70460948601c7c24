"""Which model to take when there is no real defect: the one that finds the most synthetic ones?

Eight candidates, anomalib's PatchCore (coreset 1 %) and PaDiM (100 features) on four choices of layers of the bundled
EfficientNet-Lite0, are trained as in real_images.py, which holds a tenth of the good training images back. Those, as
they are and with eight defects of RuleBasedGenerator() each, are a test without a real defect. Per category and seed
the candidate with the highest image AUROC there is taken, and all are tested on the real defects. No candidate learns
from defects, so none has seen the generator.

    python benchmarks/select_model.py --data DATA --categories magnetic_tile pavement_crack solar_mono
    python benchmarks/select_model.py --table
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd
import torch
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import seed_everything
from real_images import evaluate, make_datamodule
from rich.console import Console
from rich.progress import track
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth.comparison.multiple_comparisons import estimate_gains
from anomalib_synth.comparison.paired import describe_interval, estimate_mean
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.seeding import derive_seeds

LAYERS = {
    "2+4": ["blocks.2", "blocks.4"],  # what real_images.py has
    "2+6": ["blocks.2", "blocks.6"],
    "2+4+6": ["blocks.2", "blocks.4", "blocks.6"],
    "4+6": ["blocks.4", "blocks.6"],
}
CANDIDATES = [f"{model} {layers}" for model in ("patchcore", "padim") for layers in LAYERS]
BUILT_IN = ["patchcore 2+4", "padim 2+4"]
KEY = ["arm", "data", "seed"]
METRICS = ["synthetic_auroc", "image_auroc", "pixel_ap"]
DEFECTS_PER_IMAGE = 8
RESULTS = Path(__file__).parent / "results" / "select_model.csv"


def make_candidate(name: str, size: int) -> AnomalibModule:
    """Return the untrained model of a name like ``padim 2+4``."""
    family, layers = name.split()
    transform = Compose([Resize((size, size), antialias=True), Normalize([0.5] * 3, [0.5] * 3)])
    parts = {"evaluator": False, "visualizer": False, "post_processor": False, "pre_processor": PreProcessor(transform)}
    backbone = {"backbone": "efficientnet_lite0_bundled", "layers": LAYERS[layers]}
    if family == "padim":
        return Padim(**backbone, n_features=100, **parts)
    return Patchcore(**backbone, coreset_sampling_ratio=0.01, **parts)


def test_on_synthetic(model: AnomalibModule, datamodule) -> dict[str, float]:
    """Return image AUROC and pixel AP on the held-out good images, as they are and with synthetic defects."""
    train, held_out = (
        torch.cat([batch.image.as_subclass(torch.Tensor) for batch in loader]).clamp(0, 1)  # resizing overshoots
        for loader in (
            DataLoader(part, batch_size=16, collate_fn=part.collate_fn)
            for part in (datamodule.train_data, datamodule.val_data)
        )
    )
    generator = RuleBasedGenerator().prepare(train)
    images, masks = [held_out], [torch.zeros(len(held_out), 1, *held_out.shape[2:])]
    for k in range(DEFECTS_PER_IMAGE):
        sample = generator(held_out, seeds=derive_seeds(0, k, [str(i) for i in range(len(held_out))]))
        images.append(sample.image[sample.accepted])
        masks.append(sample.mask[sample.accepted])
    auroc, ap = score(model, torch.cat(images), torch.cat(masks))
    return {"synthetic_auroc": auroc, "synthetic_ap": ap}


def score(model: AnomalibModule, images: torch.Tensor, masks: torch.Tensor) -> tuple[float, float]:
    """Return image AUROC and pixel AP of a model on images (N, 3, H, W) in [0, 1] and their masks."""
    with torch.inference_mode():
        predictions = [model.model(model.pre_processor.transform(part)) for part in images.split(16)]
    scores = torch.cat([prediction.pred_score.flatten() for prediction in predictions])
    maps = torch.cat([prediction.anomaly_map.flatten() for prediction in predictions])
    return (
        roc_auc_score(masks.flatten(1).any(1), scores),
        average_precision_score(masks.flatten() > 0, maps),
    )


def run_cell(name: str, data: Path, category: str, seed: int, size: int) -> dict:
    """Train one candidate, test it on synthetic and on real defects, and return its row."""
    seed_everything(seed, verbose=False)
    model, datamodule = make_candidate(name, size), make_datamodule(data, category, batch_size=4)
    with tempfile.TemporaryDirectory() as results:
        engine = Engine(
            default_root_dir=results, logger=False, accelerator="cpu", enable_progress_bar=False, max_epochs=1,
            limit_val_batches=0, num_sanity_val_steps=0,
        )  # fmt: skip
        engine.fit(model, datamodule=datamodule)
    model.eval()
    synthetic = test_on_synthetic(model, datamodule)
    return {"arm": name, "data": category, "seed": seed, **synthetic, **evaluate(model, datamodule)}


def print_table(path: Path) -> None:
    """Print what was taken, how it does on real defects, and what the candidates and the best of them would do."""
    rows = pd.read_csv(path)
    cells = rows.groupby(["data", "seed"])
    taken = rows.loc[cells["synthetic_auroc"].idxmax()]
    best = rows.loc[cells["image_auroc"].idxmax()]
    every = [rows, taken.assign(arm="taken by synthetic defects"), best.assign(arm="the best of each cell (oracle)")]
    table = pd.concat(every)[[*KEY, *METRICS]]
    print(table.pivot_table(index="arm", columns="data", values=METRICS).round(3).to_string())
    print("\nTaken:\n", taken.pivot(index="data", columns="seed", values="arm").to_string())
    ranks = cells.apply(lambda cell: cell["synthetic_auroc"].corr(cell["image_auroc"], method="spearman"))
    print("\nRank correlation of synthetic and real image AUROC over the candidates, mean over seeds:")
    print(ranks.groupby("data").mean().round(2).to_string(), "\n")
    for metric in ("image_auroc", "pixel_ap"):
        points = [
            {**row, metric: None if pd.isna(row[metric]) else 100 * row[metric]} for row in table.to_dict("records")
        ]
        for arm in ("taken by synthetic defects", *BUILT_IN):
            print(f"{metric}, {arm}: mean {estimate_mean(points, arm, metric).value:.1f}")
        pairs = [("taken by synthetic defects", arm) for arm in BUILT_IN]
        for (_, arm), gain in estimate_gains(points, pairs, metric).items():
            print(f"{metric}, taken - {arm}: {gain.value:+.1f} points, {describe_interval(gain)}")


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per category")
    parser.add_argument("--categories", nargs="+", default=["magnetic_tile", "pavement_crack", "solar_mono"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    args = parser.parse_args()
    if not args.table:
        if args.data is None or not args.data.is_dir():
            parser.error(f"--data must be a folder with one folder per category, got {args.data}")
        torch.set_num_threads(args.threads)
        args.results.parent.mkdir(parents=True, exist_ok=True)
        done = pd.read_csv(args.results) if args.results.exists() else pd.DataFrame(columns=KEY)
        seen = set(done[KEY].itertuples(index=False, name=None))
        cells = [(name, category, seed) for seed in args.seeds for category in args.categories for name in CANDIDATES]
        for name, category, seed in track([c for c in cells if c not in seen], "Cells", console=Console(stderr=True)):
            row = run_cell(name, args.data, category, seed, args.size)
            pd.DataFrame([row]).to_csv(args.results, mode="a", header=not args.results.exists(), index=False)
    print_table(args.results)


if __name__ == "__main__":
    main()

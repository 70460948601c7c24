r"""Does a detector trained on synthetic defects find more real ones? DiscriminativePadim against the built-in models.

Named before the run. Every model has the bundled EfficientNet-Lite0, trains on nine tenths of the good training images,
keeps the last step, and meets the test images once:

* ``patchcore_1``, ``patchcore_10``: PatchCore, ``blocks.2, blocks.4``, coreset 1 % and 10 %; ``padim``: PaDiM, the same
  layers, 100 features. Each at 160 and at 256 px, except PatchCore 10 %, at 160 px only (at 256 px its coreset takes
  an hour a cell on two cores)
* ``discriminative_padim``: 160 and 256 px, 800 steps of batch 8, SynthesisCallback(RuleBasedGenerator(), probability
  0.5, 800 distinct samples)
* ``without_heads``: the same network's normality alone, the control without synthesis; ``heads_alone``: its heads
* ``realnet``: RealNet as configs/train/realnet.yaml has it (160 px, as many steps as there)

Image AUROC; pixel AUROC, pixel AP and AUPRO@0.3 where there are masks; recall, and false alarms on the good test
images, at the threshold that a tenth of the good training images set for a false-alarm rate of 10 % (conformal; left
out where that is fewer than 9 images).

Rows are appended to a CSV as they come; a row that is there is not run again. ``detectors_first.csv``
has the rows of ours with the rule-based families before they were clipped to the part, tinted, and drawn in log-uniform
sizes.

    python benchmarks/detectors.py --data DATA --arms discriminative_padim --seeds 0 1 2 3 4
    python benchmarks/detectors.py --data DATA --arms patchcore_1 padim --sizes 160 256
    python benchmarks/detectors.py --data DATA --arms patchcore_10 realnet --sizes 160
    python benchmarks/detectors.py --table
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback, seed_everything
from real_images import BACKBONE, make_datamodule
from rich.console import Console
from rich.progress import track
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_synth.calibration.statistics import conformal_threshold, least_count
from anomalib_synth.callbacks import LearningRateDecayCallback, SynthesisCallback
from anomalib_synth.comparison.multiple_comparisons import estimate_gains
from anomalib_synth.comparison.paired import describe_interval
from anomalib_synth.comparison.trial_metrics import ModelOutputs
from anomalib_synth.comparison.trial_metrics import measure as measure_outputs
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import DiscriminativePadim, RealNet

if TYPE_CHECKING:
    from collections.abc import Iterator


CATEGORIES = ["magnetic_tile", "pavement_crack", "bottle_cap", "alien_toy", "ball_screw", "woven_fabric", "solar_mono"]
ARMS = ["patchcore_1", "patchcore_10", "padim", "discriminative_padim", "realnet"]
KEY = ["arm", "category", "seed", "size"]
METRICS = ["image_auroc", "pixel_ap", "aupro", "recall", "false_alarms"]
RESULTS = Path(__file__).parent / "results" / "detectors.csv"
STEPS, RATE = 800, 0.1
REALNET_STEPS, REALNET_BATCH = 2500, 8
for name in ("anomalib", "lightning", "lightning.pytorch", "anomalib_synth"):
    logging.getLogger(name).setLevel(logging.WARNING)
warnings.filterwarnings("ignore")


def make_arm(arm: str, size: int, seed: int) -> tuple[AnomalibModule, list[Callback], dict[str, Any]]:
    """Return the model, its callbacks, and the limits of its training."""
    pre_processor = PreProcessor(Compose([Resize((size, size), antialias=True), Normalize([0.5] * 3, [0.5] * 3)]))
    parts = {"pre_processor": pre_processor, "evaluator": False, "visualizer": False, "post_processor": False}
    if arm == "padim":
        return Padim(**BACKBONE, n_features=100, **parts), [], {"max_epochs": 1}
    if arm.startswith("patchcore"):
        ratio = int(arm.rpartition("_")[2]) / 100
        return Patchcore(**BACKBONE, coreset_sampling_ratio=ratio, **parts), [], {"max_epochs": 1}
    if arm == "realnet":
        synthesis = SynthesisCallback(RuleBasedGenerator(), seed=seed, grid_every_n_epochs=0)
        limits = {"max_epochs": -1, "max_steps": REALNET_STEPS}
        return RealNet(**parts), [synthesis, LearningRateDecayCallback()], limits
    synthesis = SynthesisCallback(RuleBasedGenerator(), seed=seed, grid_every_n_epochs=0)
    return DiscriminativePadim(**parts), [synthesis], {"max_epochs": -1, "max_steps": STEPS}


def run_cell(arm: str, data: Path, category: str, seed: int, size: int) -> Iterator[dict[str, Any]]:
    """Train one model, test it, and yield its rows: one for each way to read it."""
    seed_everything(seed, verbose=False)
    model, callbacks, limits = make_arm(arm, size, seed)
    datamodule = make_datamodule(data, category, batch_size=REALNET_BATCH if arm == "realnet" else 8)
    with tempfile.TemporaryDirectory() as results:
        engine = Engine(
            callbacks=callbacks, default_root_dir=results, logger=False, accelerator="cpu", enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0, **limits,
        )  # fmt: skip
        start = time.perf_counter()
        engine.fit(model, datamodule=datamodule)
        seconds = round(time.perf_counter() - start, 1)
    model.eval()
    chosen, tested = (
        list(score(model, loader)) for loader in (datamodule.val_dataloader(), datamodule.test_dataloader())
    )
    for reading in tested[0][0]:
        key = dict(zip(KEY, (reading, category, seed, size), strict=True))
        yield {**key, **measure(reading, chosen, tested), "fit_seconds": seconds}


def score(model: AnomalibModule, loader: Any) -> Iterator[tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], Any]]:
    """Yield scores (B,) and maps (B, H, W) of each batch, for each way to read the model, and the batch."""
    for batch in loader:
        with torch.inference_mode():
            images = model.pre_processor.transform(batch.image)
            if isinstance(model, DiscriminativePadim):
                groups = model.model.group_maps(model.model.see(images))
                n, h = (model.model.standardise_maximum(maps, place) for place, maps in enumerate(groups))
                found = {
                    "discriminative_padim": (n + h, groups[0] + model.model.trust * groups[1]),
                    "without_heads": (n, groups[0]),
                    "heads_alone": (h, groups[1]),
                }
            else:
                prediction = model.model(images)
                found = {_name(model): (prediction.pred_score.flatten(), prediction.anomaly_map)}
        yield {key: (scores, maps.flatten(0, -3)) for key, (scores, maps) in found.items()}, batch


def _name(model: AnomalibModule) -> str:
    if isinstance(model, Patchcore):
        return f"patchcore_{round(100 * model.coreset_sampling_ratio)}"
    return type(model).__name__.lower()


def measure(reading: str, chosen: list[Any], tested: list[Any]) -> dict[str, float | None]:
    """Return the metrics of one way to read a model."""
    normals = torch.cat([found[reading][0] for found, _ in chosen])
    scores = torch.cat([found[reading][0] for found, _ in tested])
    labels = torch.cat([batch.gt_label for _, batch in tested]).bool()
    maps, masks = None, None
    if tested[0][1].gt_mask is not None:
        maps = torch.cat([found[reading][1] for found, _ in tested])
        masks = torch.cat([batch.gt_mask.as_subclass(torch.Tensor) for _, batch in tested])
    outputs = ModelOutputs(scores=scores.tolist(), labels=labels.tolist(), maps=maps, masks=masks)
    row: dict[str, float | None] = measure_outputs(outputs)
    if len(normals) >= least_count(RATE):
        above = scores > conformal_threshold(normals.tolist(), RATE)
        row |= {"recall": float(above[labels].float().mean()), "false_alarms": float(above[~labels].float().mean())}
    names = ["image_auroc", "pixel_auroc", "pixel_ap", "aupro", "recall", "false_alarms"]
    return {name: row.get(name) for name in names}


def print_table(path: Path) -> None:
    """Print means over seeds by arm and category, then paired gains over the best built-in model and the control."""
    rows = pd.read_csv(path)
    rows["arm"] = rows["arm"] + [
        f"@{size}" if arm not in OURS else "" for arm, size in zip(rows["arm"], rows["size"], strict=True)
    ]
    for metric in METRICS:
        known = rows.dropna(subset=metric)
        table = known.pivot_table(index="arm", columns="category", values=metric)
        table["mean"] = table.mean(axis=1, skipna=False)
        table["seeds"] = known.groupby("arm")["seed"].nunique()
        print(f"\n{metric}\n{table.round(3).to_string()}")
    arms = [arm for arm in rows["arm"].unique() if arm != "discriminative_padim"]
    for metric in METRICS[:3]:
        points = [
            {**row, "data": row["category"], metric: None if pd.isna(row[metric]) else 100 * row[metric]}
            for row in rows.to_dict("records")
        ]
        gains = estimate_gains(points, [("discriminative_padim", arm) for arm in arms], metric)
        for (_, arm), gain in gains.items():
            print(f"{metric}: ours - {arm} = {gain.value:+.1f} points, {describe_interval(gain)}")


OURS = ("discriminative_padim", "without_heads", "heads_alone")


def main() -> None:
    """Run the cells that are not in the results yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per category")
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--categories", nargs="+", default=CATEGORIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256], help="of the built-in models, in pixels")
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
        cells = [
            (arm, category, seed, size)
            for seed in args.seeds
            for arm in args.arms
            for category in args.categories
            for size in ([256] if arm == "discriminative_padim" else args.sizes)
        ]
        for arm, category, seed, size in track(
            [c for c in cells if c not in seen], "Cells", console=Console(stderr=True)
        ):
            rows = list(run_cell(arm, args.data, category, seed, size))
            pd.DataFrame(rows).to_csv(args.results, mode="a", header=not args.results.exists(), index=False)
    print_table(args.results)


if __name__ == "__main__":
    main()

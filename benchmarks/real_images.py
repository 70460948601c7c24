r"""Does synthesis help on real defects? Our arms against anomalib's built-in models, on the same images.

All arms have the bundled EfficientNet-Lite0 backbone, the same optimiser steps, the last checkpoint, and see no
test image before the test:

* ``ssn_synth``, ``ssn_perlin``, ``ssn_unsup``: SuperSimpleNet supervised by RuleBasedGenerator() (every family, its
  defaults), by anomalib's PerlinAnomalyGenerator, and as it comes (unsupervised)
* ``patchcore``: PatchCore, coreset 1 %;  ``padim``: PaDiM, 100 features
* ``draem``: DRAEM with RuleBasedGenerator() (97 million parameters: slow)
* ``realnet``: RealNet with RuleBasedGenerator()
* ``realnet_softmax``, ``realnet_shuffled``: the same, each sample weighted by its quality, or by another sample's
* ``realnet_rule_only``, ``realnet_two_stage``, ``realnet_reverse``, ``realnet_mixed``: the orders of
  TwoStageTrainingCallback. The second generator is the physical families, held to the checks of
  configs/synthesis/two_stage_physical.yaml. The learning rate drops at the switch in each of the four.
* ``realnet_ar``, ``realnet_ar_softmax``: RealNet in two stages, rule-based -> AutoregressiveGenerator() with the models
  that come with the package; the second with both stages' samples weighted by their image-text score
* ``realnet_diffusion``, ``realnet_diffusion_random``, ``realnet_diffusion_all``: RealNet in two stages, rule-based -> a
  store of diffusion edits: those that the retrieval filter keeps, as many at random, all. They need ``--stores``
* ``realnet_diffusion_reverse``, ``realnet_diffusion_mixed``, ``realnet_diffusion_fine_only``: the first of them in the
  other orders
* ``realnet_decay``, ``ssn_synth_decay``, ``ssn_perlin_decay``: as above, with LearningRateDecayCallback; without it the
  rate is constant

Data: a folder of categories in MVTec layout (train/good, test/<class>, and, where there are pixel labels,
ground_truth/<class>). Rows are appended to a CSV as they come; a row that is there is not run again.

    python benchmarks/real_images.py --data DATA --categories magnetic_tile pavement_crack solar_mono --seeds 0 1 2
    python benchmarks/real_images.py --data DATA --arms realnet --size 192
    python benchmarks/real_images.py --data DATA --arms ssn_unsup patchcore padim realnet_rule_only realnet_ar \
        --categories magnetic_tile pavement_crack solar_mono bottle_cap alien_toy
    python benchmarks/real_images.py --table
    python benchmarks/real_images.py --results benchmarks/results/diffusion.csv --against realnet_rule_only

The stores of the diffusion arms, STORES/<category>/{filtered,random,all}, by category:

    anomalib-synth fit --diffusion --normals DATA/<category>/train/good --image_size 128 --out PIPELINE
    anomalib-synth generate --normals DATA/<category>/train/good --image_size 128 --num_samples 160 \
        --generator DiffusionGenerator --generator.pipeline PIPELINE --out STORES/<category>/all
    cp -r STORES/<category>/all STORES/<category>/filtered; cp -r STORES/<category>/all STORES/<category>/random
    anomalib-synth filter --normals DATA/<category>/train/good --store STORES/<category>/filtered
    anomalib-synth filter --normals DATA/<category>/train/good --store STORES/<category>/random --mode random_keep
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
import yaml
from anomalib.data import Folder
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Draem, Padim, Patchcore, Supersimplenet
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback, seed_everything
from sklearn.metrics import average_precision_score, roc_auc_score
from torchvision.transforms.v2 import Compose, Normalize, Resize
from torchvision.tv_tensors import Image, Mask

import anomalib_synth  # noqa: F401  (registers the backbone)
from anomalib_synth.callbacks import (
    LearningRateDecayCallback,
    QualityWeightingCallback,
    SynthesisCallback,
    TwoStageTrainingCallback,
)
from anomalib_synth.comparison.multiple_comparisons import estimate_gains
from anomalib_synth.comparison.paired import describe_interval
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator, ScoredGenerator, StoredGenerator
from anomalib_synth.generators.from_config import build_generator
from anomalib_synth.models import RealNet

if TYPE_CHECKING:
    from collections.abc import Sequence

SWITCH = 0.7  # of the steps, in all rows that were measured
ORDERS = ["rule_only", "two_stage", "reverse", "mixed"]
WEIGHTS = ["softmax", "shuffled"]
# the store of the second stage, and the order
DIFFUSION = {
    "diffusion": ("filtered", "two_stage"),
    "diffusion_random": ("random", "two_stage"),
    "diffusion_all": ("all", "two_stage"),
    "diffusion_reverse": ("filtered", "reverse"),
    "diffusion_mixed": ("filtered", "mixed"),
    "diffusion_fine_only": ("filtered", "fine_only"),
}
ARMS = [
    "ssn_synth", "ssn_perlin", "ssn_unsup", "patchcore", "padim", "draem", "realnet",
    *(f"realnet_{name}" for name in WEIGHTS + ORDERS), "realnet_decay", "ssn_synth_decay", "ssn_perlin_decay",
    "realnet_ar", "realnet_ar_softmax", *(f"realnet_{name}" for name in DIFFUSION),
]  # fmt: skip
MAIN = ["magnetic_tile", "pavement_crack", "solar_mono"]
CONFIGS = Path(__file__).parents[1] / "configs"
KEY = ["arm", "category", "seed", "size", "steps", "batch_size"]
BACKBONE = {"backbone": "efficientnet_lite0_bundled", "layers": ["blocks.2", "blocks.4"]}
RESULTS = Path(__file__).parent / "results" / "real_images.csv"
logging.getLogger("anomalib").setLevel(logging.WARNING)
logging.getLogger("lightning").setLevel(logging.WARNING)
warnings.filterwarnings("ignore")


class PerlinSamples(Callback):
    """Anomalib's own samples in the batches of a supervised model, half of the images."""

    def __init__(self) -> None:
        self.augmenter = PerlinAnomalyGenerator(probability=0.5)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        """Draw onto the batch."""
        del trainer, pl_module, batch_idx
        image, mask = self.augmenter(batch.image.as_subclass(torch.Tensor))
        batch.image, batch.gt_mask = Image(image.clamp(0, 1)), Mask(mask[:, 0] > 0)
        batch.gt_label = batch.gt_mask.flatten(1).any(1)


def make_datamodule(data: Path, category: str, *, batch_size: int) -> Folder:
    """Return the category: train/good for training, a tenth of it for validation, all of test for the test."""
    root = data / category
    classes = sorted(path.name for path in (root / "test").iterdir() if path.is_dir() and path.name != "good")
    has_masks = (root / "ground_truth").is_dir()
    return Folder(
        name=category,
        root=root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{name}" for name in classes],
        mask_dir=[f"ground_truth/{name}" for name in classes] if has_masks else None,
        train_batch_size=batch_size,
        eval_batch_size=16,
        num_workers=0,
        val_split_mode="from_train",
        val_split_ratio=0.1,
        seed=0,
    )


def make_arm(
    arm: str,
    seed: int,
    pre_processor: PreProcessor,
    synthesis: SynthesisCallback | None = None,
    stores: Path | None = None,
) -> tuple[AnomalibModule, list[Callback]]:
    """Return an arm's model and callbacks; ``synthesis`` in place of the arm's own, the ``stores`` of one category."""
    parts = {"pre_processor": pre_processor, "evaluator": False, "visualizer": False, "post_processor": False}
    if synthesis is None:
        rules = RuleBasedGenerator()
        first = ScoredGenerator(rules) if arm == "realnet_ar_softmax" else rules
        synthesis = SynthesisCallback(first, seed=seed, grid_every_n_epochs=0)
    decay = [LearningRateDecayCallback()] if arm.endswith("_decay") else []
    family, _, variant = arm.removesuffix("_decay").partition("_")
    if arm == "patchcore":
        return Patchcore(**BACKBONE, coreset_sampling_ratio=0.01, **parts), []
    if arm == "padim":
        return Padim(**BACKBONE, n_features=100, **parts), []
    if arm == "draem":
        parts["pre_processor"] = PreProcessor(Compose([pre_processor.transform.transforms[0]]))
        return Draem(dtd_dir=".", **parts), [synthesis]
    if family == "ssn":
        model = Supersimplenet(**BACKBONE, supervised=variant != "unsup", **parts)
        model.configure_optimizers = lambda: constant_schedule(model)
        return model, {"synth": [synthesis], "perlin": [PerlinSamples()], "unsup": []}[variant] + decay
    callbacks = [synthesis, *decay]
    if variant in WEIGHTS:
        callbacks.append(QualityWeightingCallback(mode=variant, seed=seed))
    elif variant == "ar":
        callbacks.append(TwoStageTrainingCallback(AutoregressiveGenerator(), switch=SWITCH))
    elif variant == "ar_softmax":
        callbacks.append(TwoStageTrainingCallback(ScoredGenerator(AutoregressiveGenerator()), switch=SWITCH))
        callbacks.append(QualityWeightingCallback(mode="softmax", seed=seed))
    elif variant in DIFFUSION:
        if stores is None:
            msg = f"Arm {arm} needs --stores, a folder with one folder of stores per category."
            raise ValueError(msg)
        name, order = DIFFUSION[variant]
        callbacks.append(TwoStageTrainingCallback(StoredGenerator(stores / name), order=order, switch=SWITCH))
    elif variant in ORDERS:
        callbacks.append(TwoStageTrainingCallback(fine_generator(), order=variant, switch=SWITCH))
    return RealNet(**parts), callbacks


def fine_generator() -> RuleBasedGenerator:
    """Return the stage-2 generator of configs/synthesis/two_stage_physical.yaml."""
    config = yaml.safe_load((CONFIGS / "synthesis" / "two_stage_physical.yaml").read_text(encoding="utf-8"))
    return build_generator(config["trainer"]["callbacks+"][0]["init_args"]["fine_generator"])


def run_cell(
    arm: str,
    data: Path,
    category: str,
    seed: int,
    *,
    size: int,
    steps: int,
    batch_size: int,
    synthesis: SynthesisCallback | None = None,
    untested: Sequence[Path] = (),
    stores: Path | None = None,
) -> dict:
    """Train and test one arm; return its row.

    ``synthesis`` takes the place of the arm's own; the images ``untested`` are left out of the test; ``stores`` has a
    folder of stores per category.
    """
    seed_everything(seed)
    pre_processor = PreProcessor(Compose([Resize((size, size), antialias=True), Normalize([0.5] * 3, [0.5] * 3)]))
    model, callbacks = make_arm(arm, seed, pre_processor, synthesis, stores / category if stores else None)
    datamodule = make_datamodule(data, category, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as results:
        limits = {"max_epochs": 1} if arm in ("patchcore", "padim") else {"max_steps": steps, "max_epochs": -1}
        engine = Engine(
            callbacks=callbacks, default_root_dir=results, logger=False, accelerator="cpu", enable_progress_bar=False,
            limit_val_batches=0, num_sanity_val_steps=0, **limits,
        )  # fmt: skip
        start = time.perf_counter()
        engine.fit(model, datamodule=datamodule)
        seconds = time.perf_counter() - start
    setting = dict(zip(KEY, (arm, category, seed, size, steps, batch_size), strict=True))
    return {**setting, **evaluate(model, datamodule, untested), "fit_seconds": round(seconds, 1)}


def evaluate(model: AnomalibModule, datamodule: Folder, untested: Sequence[Path] = ()) -> dict[str, float | None]:
    """Return image AUROC, and pixel AUROC and AP where there are masks, of the raw scores on the test set."""
    samples = datamodule.test_data.samples
    is_left_out = samples.image_path.map(lambda path: Path(path).resolve()).isin([path.resolve() for path in untested])
    if is_left_out.sum() != len(untested):
        msg = f"{len(untested)} images are to be left out of the test, which holds {is_left_out.sum()} of them."
        raise ValueError(msg)
    datamodule.test_data.samples = samples[~is_left_out].reset_index(drop=True)
    model.eval()
    scores, labels, maps, masks = [], [], [], []
    with torch.inference_mode():
        for batch in datamodule.test_dataloader():
            prediction = model.model(model.pre_processor.transform(batch.image))
            scores.append(prediction.pred_score.flatten())
            labels.append(batch.gt_label)
            if batch.gt_mask is not None:
                maps.append(prediction.anomaly_map.flatten())
                masks.append(batch.gt_mask.flatten())
    result = {"image_auroc": roc_auc_score(torch.cat(labels), torch.cat(scores)), "pixel_auroc": None, "pixel_ap": None}
    if maps:
        truth, score = torch.cat(masks).numpy(), torch.cat(maps).numpy()
        result |= {"pixel_auroc": roc_auc_score(truth, score), "pixel_ap": average_precision_score(truth, score)}
    return result


def constant_schedule(model: Supersimplenet) -> torch.optim.Optimizer:
    """Return SuperSimpleNet's optimiser without its schedule, which is in epochs and undefined for a step budget."""
    return torch.optim.AdamW(
        [
            {"params": model.model.adaptor.parameters(), "lr": 0.0001},
            {"params": model.model.segdec.parameters(), "lr": 0.0002, "weight_decay": 0.00001},
        ]
    )


def print_table(path: Path) -> None:
    """Print mean and spread over seeds by arm and category, and the mean over the three main categories and all."""
    for (size, steps, batch_size), rows in pd.read_csv(path).groupby(["size", "steps", "batch_size"]):
        for metric in ("image_auroc", "pixel_auroc", "pixel_ap"):
            table = rows.pivot_table(
                index="arm", columns="category", values=metric, aggfunc=["mean", "std", "min", "count"]
            )
            table["mean of", "the three"] = table["mean"][MAIN].mean(axis=1, skipna=metric != "image_auroc")
            table["mean of", "all"] = table["mean"].mean(axis=1, skipna=metric != "image_auroc")
            print(f"\n{metric}, {size} px, {steps} steps of {batch_size}\n{table.round(3).to_string()}")


def print_gains(path: Path, baseline: str) -> None:
    """Print each arm's gain over another, in points, with its interval over seeds, corrected for the number of arms."""
    rows = pd.read_csv(path)
    for metric in ("image_auroc", "pixel_ap"):
        points = [
            {**row, "data": row["category"], metric: None if pd.isna(row[metric]) else 100 * row[metric]}
            for row in rows.to_dict("records")
        ]
        pairs = [(arm, baseline) for arm in rows["arm"].unique() if arm != baseline]
        for (arm, _), gain in estimate_gains(points, pairs, metric).items():
            print(f"{metric}: {arm} - {baseline} = {gain.value:+.1f} points, {describe_interval(gain)}")


def main() -> None:
    """Run the cells that are not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per category")
    parser.add_argument("--categories", nargs="+", default=MAIN)
    parser.add_argument("--arms", nargs="+", default=ARMS[:4], choices=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--stores", type=Path, help="of the diffusion arms: see above")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    parser.add_argument("--against", metavar="ARM", help="only print the gains over this arm, from the results so far")
    args = parser.parse_args()
    if args.table or args.against:
        print_gains(args.results, args.against) if args.against else print_table(args.results)
        return
    if args.data is None or not args.data.is_dir():
        parser.error(f"--data must be a folder with one folder per category, got {args.data}")
    torch.set_num_threads(args.threads)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for category in args.categories:
            for arm in args.arms:
                done = pd.read_csv(args.results) if args.results.exists() else pd.DataFrame(columns=["arm"])
                setting = (arm, category, seed, args.size, args.steps, args.batch_size)
                if len(done) and (done[KEY] == setting).all(1).any():
                    continue
                row = run_cell(
                    arm, args.data, category, seed, size=args.size, steps=args.steps, batch_size=args.batch_size,
                    stores=args.stores,
                )  # fmt: skip
                print(row, flush=True)
                pd.DataFrame([row]).to_csv(args.results, mode="a", header=not args.results.exists(), index=False)


if __name__ == "__main__":
    main()

r"""Does `anomalib-synth build` choose well, and keep what its report promises?

Per category and seed a detector is built from ``train/good`` alone, with the command's defaults; then its candidates
and its choice meet the test images once. Printed: the model that was taken, image AUROC of it and of each candidate of
the same build, the stated 95 % interval of false alarms among as many new images as the good test images, with the
share of those that alarmed (and whether the one covers the other), recall on the test's defects, the share of the
strongest drawn defects that the report states, and the exported OpenVINO model's recall where it was exported. A
category is built once: its folder under ``--work`` is gone on with. A category with ``_16bit`` behind its name is
written first as 16-bit grey images whose white is 3000, as cameras of 12 bits leave them.

    python benchmarks/build.py --data DATA --work FOLDER --categories bottle_cap woven_fabric_16bit --seeds 0
    python benchmarks/build.py --table
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomalib_synth.building.candidates import MODELS
from anomalib_synth.building.training import checkpoint_of
from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint
from anomalib_synth.calibration.scoring import Item, Row, score_items
from anomalib_synth.calibration.statistics import Proportion, prediction_interval
from anomalib_synth.calibration.training_run import read_inference
from anomalib_synth.images import ImageReader, find_white_point, list_images, read_bytes, to_tensor

_DEEP, _WHITE = "_16bit", 3000
CATEGORIES = ["magnetic_tile", "pavement_crack", "bottle_cap", "alien_toy", "ball_screw", "woven_fabric", "solar_mono"]
KEY = ["category", "seed", "minutes"]
RESULTS = Path(__file__).parent / "results" / "build.csv"
logging.getLogger("anomalib").setLevel(logging.WARNING)
warnings.filterwarnings("ignore")


def find_category(data: Path, work: Path, category: str) -> Path:
    """Return the category's folder; a deep one is written beside the builds when it is first asked for."""
    if not category.endswith(_DEEP):
        return data / category
    source, target = data / category.removesuffix(_DEEP), work / "data" / category
    for path in [path for part in ("train", "test") for path in list_images(source / part).paths]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        grey = np.asarray(Image.open(path).convert("L"), dtype=np.float64) / 255
        Image.fromarray((grey * _WHITE).round().astype(np.uint16)).save(copy)
    return target


def run_build(data: Path, work: Path, *, seed: int, minutes: float) -> tuple[int, float]:
    """Run the command; return its status and the seconds it took."""
    command = [sys.executable, "-m", "anomalib_synth.cli", "build", "--normals", str(data / "train" / "good")]
    command += ["--out", str(work), "--seed", str(seed), "--minutes", str(minutes)]
    started = time.perf_counter()
    status = subprocess.run(command, check=False).returncode
    return status, time.perf_counter() - started


def score_test(checkpoint: Path, data: Path) -> tuple[list[float], list[int]]:
    """Return raw scores and labels of the test images; deep ones by the white of the training images."""
    network, config = load_model(None, checkpoint, read_checkpoint(checkpoint))
    reader = ImageReader(None, find_white_point(list_images(data / "train" / "good").paths))
    rows: list[Row] = []

    def items():
        for path in list_images(data / "test").paths:
            rows.append(Row(role="measure", path=str(path)))
            yield Item(row=rows[-1], image=to_tensor(reader.decode(read_bytes(path))))

    score_items(network, checkpoint, items(), inference=read_inference(config), batch_size=16, accelerator="auto")
    labels = [int(Path(row.path).relative_to(data / "test").parts[0] != "good") for row in rows]
    return [row.score for row in rows], labels


def openvino_labels(detector: Path, data: Path) -> list[bool] | None:
    """Return what the exported model says of each test image, None where it was not exported."""
    model = detector / "openvino" / "model.xml"
    if not model.is_file():
        return None
    import openvino
    from torchvision.transforms.v2.functional import resize

    compiled = openvino.Core().compile_model(str(model), "CPU")
    size = [dimension.get_length() for dimension in list(compiled.inputs[0].partial_shape)[-2:]]
    reader = ImageReader(None, find_white_point(list_images(data / "train" / "good").paths))
    labels = []
    for path in list_images(data / "test").paths:
        image = resize(to_tensor(reader.decode(read_bytes(path)))[None], size, antialias=True)
        labels.append(bool(compiled(image.clamp(0, 1).numpy())["pred_label"].flatten()[0]))
    return labels


def run_category(data: Path, work: Path, category: str, *, seed: int, minutes: float) -> dict[str, Any] | None:
    """Build, test, and return the row."""
    out, folder = work / f"{category}_{seed}", find_category(data, work, category)
    status, seconds = run_build(folder, out, seed=seed, minutes=minutes)
    if status not in {0, 3}:
        print(f"{category}, seed {seed}: the build ended with status {status}")
        return None
    detector = out / "detector"
    stated = json.loads((detector / "calibration.json").read_text(encoding="utf-8"))
    row: dict[str, Any] = {"category": category, "seed": seed, "minutes": minutes, "status": status}
    for name in MODELS:
        checkpoint = checkpoint_of(out / "candidates" / name)
        if checkpoint.is_file():
            scores, labels = score_test(checkpoint, folder)
            row[name] = roc_auc_score(labels, scores)
    scores, labels = score_test(detector / "calibrated.ckpt", folder)
    above = [score > stated["image_threshold"] for score in scores]
    found = [each for each, label in zip(above, labels, strict=True) if label]
    alarms = [each for each, label in zip(above, labels, strict=True) if not label]
    counted = stated["false_alarms"]
    share = Proportion(counted["count"], counted["of"], counted.get("design", 1.0))
    low, high = (end / len(alarms) for end in prediction_interval(share, len(alarms)))
    exported = openvino_labels(detector, folder)
    row |= {
        "taken": stated["settings"]["model"], "image_auroc": roc_auc_score(labels, scores),
        "asked": stated["target_false_alarm_rate"], "low": low, "high": high,
        "false_alarms": sum(alarms) / len(alarms), "covered": low <= sum(alarms) / len(alarms) <= high,
        "recall": sum(found) / len(found), "stated_recall": stated["recall_at_strongest"]["value"],
        "openvino_recall": None if exported is None else sum(
            each for each, label in zip(exported, labels, strict=True) if label) / len(found),
        "seconds": round(seconds, 1),
    }  # fmt: skip
    return row


def print_table(path: Path) -> None:
    """Print every row, and the means."""
    rows = pd.read_csv(path)
    print(rows.round(3).to_string(index=False))
    named = [name for name in MODELS if rows[name].notna().any()]
    means = rows.groupby("category")[["image_auroc", *named, "recall", "false_alarms"]].mean()
    print(f"\nMeans over categories:\n{means.mean().round(3).to_string()}")
    errors = 1 - means.mean()
    built_in = [name for name in named if name != "discriminative_padim"]
    if built_in:
        best = min(built_in, key=errors.get)
        print(f"Error of the choice over that of {best}: {errors['image_auroc'] / errors[best]:.2f}")
    print(f"The stated interval covers the rate on good test images in {rows['covered'].sum()} of {len(rows)} builds.")


def main() -> None:
    """Run what is not in the results yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per category")
    parser.add_argument("--work", type=Path, help="folder for the builds")
    parser.add_argument("--categories", nargs="+", default=CATEGORIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    args = parser.parse_args()
    if not args.table:
        if args.data is None or not args.data.is_dir() or args.work is None:
            parser.error(f"--data must be a folder with one folder per category, and --work be given, got {args.data}")
        args.results.parent.mkdir(parents=True, exist_ok=True)
        for seed in args.seeds:
            for category in args.categories:
                done = pd.read_csv(args.results) if args.results.exists() else pd.DataFrame(columns=KEY)
                if len(done) and (done[KEY] == (category, seed, args.minutes)).all(axis=1).any():
                    continue
                row = run_category(args.data, args.work, category, seed=seed, minutes=args.minutes)
                if row is not None:
                    row = {**dict.fromkeys([*KEY, *MODELS]), **row}
                    pd.DataFrame([row]).to_csv(args.results, mode="a", header=not args.results.exists(), index=False)
                    print(row, flush=True)
    print_table(args.results)


if __name__ == "__main__":
    main()

r"""Does an interval of false alarms, stated from held-out training images, hold the share on new good images?

For many seeds by a detector that is quick: a Gaussian at each place of the bundled backbone's features (PaDiM, 48
channels, 160 pixels), its highest distance the score. It is fitted, its threshold set for 5 % and measured as
`anomalib-synth build` does. New images are the good test images ("new parts": in four of seven categories none is of a
part that trained), or a fifth of the training folder kept aside ("same folder").

Splits: ``random``; ``look-alikes``, whole clusters held out (Ward, one for four images); ``parts``, by the groups that
the data's manifest names, where it names any (what ``--group_by`` does).
Intervals: ``long run``, Wilson's, against ``next``, a prediction interval for as many images as are tested. Each with
the images counted in full, or divided by a design effect 1 + (m - 1) r: r is the correlation of scores within clusters
of look-alikes (one for 4 or 10 images) or named parts, m their size among the images that measured (``held``), or among
all (``all``).

    python benchmarks/false_alarm_interval.py --data DATA --work FOLDER --seeds 20
    python benchmarks/false_alarm_interval.py --table
    python benchmarks/false_alarm_interval.py --simulate
    python benchmarks/false_alarm_interval.py --builds FOLDER --data DATA      # builds of benchmarks/build.py, kept
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import AgglomerativeClustering
from torchvision.transforms.v2 import functional as transforms

from anomalib_synth.building.likeness import describe_images, group_look_alikes
from anomalib_synth.building.splitting import count_held_out, reachable_rate
from anomalib_synth.calibration.statistics import (
    Proportion,
    conformal_threshold,
    correlation_within,
    design_effect,
    prediction_interval,
)
from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.detectors.discriminative_padim.features import GridFeatures
from anomalib_synth.images import ImageReader, WhitePoint, list_images, read_bytes, read_tensor

CATEGORIES = ["magnetic_tile", "pavement_crack", "solar_mono", "bottle_cap", "alien_toy", "ball_screw", "woven_fabric"]
RESULTS = Path(__file__).parent / "results" / "false_alarm_interval.csv"
_RATE, _CHANNELS, _SIDE = 0.05, 48, 160
_NAMES_PARTS = {"magnetic_tile": "", "pavement_crack": "@", "ball_screw": "#"}  # what follows the part in its group


def read_category(data: Path, work: Path, category: str) -> dict[str, np.ndarray]:
    """Return local features and descriptors of the images, and the parts that the manifest names."""
    kept = work / f"{category}.npz"
    if not kept.exists():
        features = GridFeatures(FrozenBackbone("efficientnet_lite0_bundled", ["blocks.1", "blocks.2", "blocks.4"]),
                                channels=200)  # fmt: skip
        features.backbone.load_weights()
        features.eval()
        found: dict[str, np.ndarray] = {}
        folders = {"train": "train/good", "good": "test/good", "defects": "test"}
        for role, folder in folders.items():
            paths = list_images(data / category / folder).paths
            paths = [path for path in paths if role != "defects" or path.parent.name != "good"]
            maps = []
            for path in paths:
                image = transforms.resize(read_tensor(path, "data"), [_SIDE, _SIDE], antialias=True).clamp(0, 1)
                with torch.no_grad():
                    maps.append(features(image[None] * 2 - 1).half().numpy())
            found[role] = np.concatenate(maps)
            found[f"{role}_names"] = np.array([str(path.relative_to(data / category)) for path in paths])
            if role == "train":
                reader = ImageReader(None, WhitePoint())
                found["looks"] = describe_images((reader.decode(read_bytes(path)) for path in paths), len(paths))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **found)
    with np.load(kept) as content:
        return dict(content)


def read_parts(data: Path, category: str, names: np.ndarray) -> list[str]:
    """Return the part each image is of by the manifest, none where it names none."""
    if category not in _NAMES_PARTS:
        return []
    with (data / category / "manifest.csv").open(newline="") as file:
        groups = {row["image"]: row["group"] for row in csv.DictReader(file)}
    mark = _NAMES_PARTS[category]
    return [groups[name].split(mark)[0] if mark else groups[name] for name in names]


def score(train: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the highest distance from a Gaussian at each place, of each image."""

    def by_place(maps: np.ndarray) -> np.ndarray:
        return maps.reshape(*maps.shape[:2], -1).transpose(2, 0, 1).astype(np.float32)

    normal = by_place(train)
    mean = normal.mean(1, keepdims=True)
    away = normal - mean
    covariance = away.transpose(0, 2, 1) @ away / (len(train) - 1) + 0.01 * np.eye(train.shape[1], dtype=np.float32)
    factor = np.linalg.cholesky(np.linalg.inv(covariance))
    return np.sqrt((((by_place(images) - mean) @ factor) ** 2).sum(2)).max(0)


def hold_out(groups: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Return whole groups, in random order, until there are as many images, none with far too many."""
    held: list[int] = []
    for group in random.permutation(np.unique(groups)):
        members = np.flatnonzero(groups == group)
        if len(held) < count and len(held) + len(members) <= 1.4 * count:
            held.extend(members.tolist())
    return np.array(held)


def halve(groups: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whole groups in two halves, the larger first."""
    halves: tuple[list[int], list[int]] = ([], [])
    for group in sorted(np.unique(groups[held]), key=lambda each: -(groups[held] == each).sum()):
        min(halves, key=len).extend(held[groups[held] == group].tolist())
    first, second = sorted(halves, key=len, reverse=True)
    return np.array(first), np.array(second)


def measure(
    found: dict[str, np.ndarray], parts: list[str], aside: np.ndarray | None, seed: int
) -> list[dict[str, Any]]:
    """Return what each split states and what the new images say; some training images may be kept aside as new."""
    random = np.random.default_rng([seed, 0 if aside is None else 1])
    channels = random.permutation(found["train"].shape[1])[:_CHANNELS]
    kept = np.setdiff1d(np.arange(len(found["train"])), [] if aside is None else aside)
    train, looks = found["train"][kept][:, channels], found["looks"][kept]
    new = (found["good"] if aside is None else found["train"][aside])[:, channels]
    defects = found["defects"][:, channels]
    count = len(train)
    calibration, validation = count_held_out(count, _RATE)
    rate = reachable_rate(calibration, _RATE)
    scaled = (looks - looks.mean(0)) / np.maximum(looks.std(0), 1e-6)
    clusters = {
        "4": AgglomerativeClustering(max(2, count // 4)).fit_predict(scaled),
        "10": np.array(group_look_alikes(looks)),
    }
    if parts:
        clusters["parts"] = np.unique(np.array(parts)[kept], return_inverse=True)[1]
    order = random.permutation(count)
    splits = {
        "random": (order[: calibration // 2], order[calibration // 2 : calibration], order[: calibration + validation])
    }
    for name, key in (("look-alikes", "4"), ("parts", "parts")):
        if key in clusters:
            held = hold_out(clusters[key], calibration + validation, random)
            compared = hold_out(np.where(np.isin(np.arange(count), held), clusters[key], -1)[held], validation, random)
            left = np.delete(held, compared)
            splits[name] = (*halve(clusters[key], left), held)
    rows = []
    for name, (choose, measured, held) in splits.items():
        if len(choose) < 1 / rate - 1 or len(measured) < 5:
            continue
        fit = np.delete(train, held, 0)
        first, second = score(fit, train[choose]), score(fit, train[measured])
        threshold = conformal_threshold(first.tolist(), rate)
        row: dict[str, Any] = {
            "split": name, "asked": rate, "count": int((second > threshold).sum()), "of": len(measured),
            "alarms": int((score(fit, new) > threshold).sum()), "tested": len(new),
            "recall": float((score(fit, defects) > threshold).mean()),
        }  # fmt: skip
        for key, labels in clusters.items():
            both = np.concatenate([choose, measured])
            correlation = correlation_within([*first, *second], labels[both].tolist())
            row[f"design_{key}_held"] = design_effect(correlation, labels[measured].tolist())
            row[f"design_{key}_all"] = min(design_effect(correlation, labels.tolist()), len(measured) / 2)
        rows.append(row)
    return rows


def print_table(path: Path) -> None:
    """Print coverage and width by split, interval and design effect; means over categories."""
    rows = pd.read_csv(path)
    designs = ["none", *[name.removeprefix("design_") for name in rows if name.startswith("design_")]]
    said = []
    for _, row in rows.iterrows():
        for name in designs:
            design = 1.0 if name == "none" else row[f"design_{name}"]
            if math.isnan(design):
                continue
            share = Proportion(int(row["count"]), int(row["of"]), design)
            ends = prediction_interval(share, int(row["tested"]))
            new = row["alarms"] / row["tested"]
            for kind, (low, high) in {"long run": (share.low, share.high),
                                      "next": (ends[0] / row["tested"], ends[1] / row["tested"])}.items():  # fmt: skip
                said.append({**row[["new", "category", "split", "recall"]], "design": name, "interval": kind,
                             "covered": low <= new <= high, "width": high - low, "alarms": new})  # fmt: skip
    means = pd.DataFrame(said).astype({"covered": float}).groupby(["new", "split", "interval", "design", "category"])[
        ["covered", "width", "alarms", "recall"]].mean()  # fmt: skip
    print(means.groupby(["new", "split", "interval", "design"]).agg(["mean"]).round(3).to_string())
    print("\nCovered, by category:\n")
    print(means["covered"].unstack("category").round(2).to_string())


def simulate(rounds: int = 4000) -> None:
    """Print coverage and width for scores that are independent and of one kind."""
    random = np.random.default_rng(0)
    for count, rate in ((30, 0.05), (19, 0.05), (10, 0.1), (7, 0.125), (100, 0.05), (100, 0.01)):
        kinds: dict[str, list[tuple[bool, float]]] = {"next 50": [], "long run, of 50": [], "long run, rate": []}
        for _ in range(rounds):
            threshold = conformal_threshold(random.random(count).tolist(), rate)
            share = Proportion(int((random.random(count) > threshold).sum()), count)
            low, high = prediction_interval(share, 50)
            new = random.binomial(50, 1 - threshold)
            width = share.high - share.low
            kinds["next 50"].append((low <= new <= high, (high - low) / 50))
            kinds["long run, of 50"].append((share.low <= new / 50 <= share.high, width))
            kinds["long run, rate"].append((share.low <= 1 - threshold <= share.high, width))
        means = {name: np.mean(each, axis=0).round(3).tolist() for name, each in kinds.items()}
        print(
            f"{count} normals, {rate:g}: "
            + "; ".join(f"{name} {each[0]:.3f}, width {each[1]:.3f}" for name, each in means.items())
        )


def restate(builds: Path, data: Path) -> None:
    """Print what kept builds state by the present rule, beside the share on the test images in build.csv."""
    tested = {"ball_screw": 65, "bottle_cap": 40, "alien_toy": 18}
    held = 0
    rows = pd.read_csv(RESULTS.with_name("build.csv"))
    for _, row in rows.iterrows():
        category = row["category"].removesuffix("_16bit")
        detector = builds / f"{row['category']}_{row['seed']}" / "detector"
        threshold = json.loads((detector / "calibration.json").read_text(encoding="utf-8"))["image_threshold"]
        paths = list_images(data / category / "train" / "good").paths
        reader = ImageReader(None, WhitePoint())
        looks = describe_images((reader.decode(read_bytes(path)) for path in paths), len(paths))
        kinds = {path.stem: str(n) for path, n in zip(paths, group_look_alikes(looks), strict=True)}
        scores = pd.read_csv(detector / "scores.csv")
        both = scores[scores["role"].isin(["choose", "measure"])]
        groups = [kinds[Path(path).stem] for path in both["path"]]
        measured = [
            (value, group)
            for value, group, role in zip(both["score"], groups, both["role"], strict=True)
            if role == "measure"
        ]
        design = design_effect(correlation_within(both["score"].tolist(), groups), [group for _, group in measured])
        share = Proportion(sum(value > threshold for value, _ in measured), len(measured), design)
        count = tested.get(category, 60)
        low, high = prediction_interval(share, count)
        alarms = round(row["false_alarms"] * count)
        held += low <= alarms <= high
        print(f"{row['category']} {row['seed']}: {share.count} of {share.of}, design {design:.2f}; of {count} expect "
              f"{low} to {high} ({low / count:.1%} to {high / count:.1%}), alarmed {alarms} ({alarms / count:.1%})"
              f"{'' if low <= alarms <= high else ' NO'}", flush=True)  # fmt: skip
    print(f"The interval holds what alarmed in {held} of {len(rows)} builds.")


def main() -> None:
    """Run what is not in the results yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per category")
    parser.add_argument("--work", type=Path, help="folder for features")
    parser.add_argument("--categories", nargs="+", default=CATEGORIES)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first_seed", type=int, default=200)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    parser.add_argument("--simulate", action="store_true", help="independent scores")
    parser.add_argument("--builds", type=Path, help="only print what kept builds state by the present rule")
    args = parser.parse_args()
    if args.simulate:
        simulate()
        return
    if args.builds is not None:
        restate(args.builds, args.data)
        return
    if not args.table:
        for category in args.categories:
            found = read_category(args.data, args.work, category)
            parts = read_parts(args.data, category, found["train_names"])
            done = pd.read_csv(args.results) if args.results.exists() else pd.DataFrame(columns=["category", "seed"])
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                if ((done["category"] == category) & (done["seed"] == seed)).any():
                    continue
                count = len(found["train"])
                aside = np.random.default_rng(seed).permutation(count)[: count // 5]
                worlds = {"new parts": None} | ({"same folder": aside} if count - len(aside) > 40 else {})
                rows = [{"new": new, "category": category, "seed": seed, **row}
                        for new, left in worlds.items() for row in measure(found, parts, left, seed)]  # fmt: skip
                empty = {f"design_{key}_{where}": None for key in ("4", "10", "parts") for where in ("held", "all")}
                table = pd.DataFrame([{**dict.fromkeys(row | empty), **row} for row in rows])
                columns = [*[name for name in table if not name.startswith("design_")], *empty]
                table[columns].to_csv(args.results, mode="a", header=not args.results.exists(), index=False)
            print(category, flush=True)
    print_table(args.results)


if __name__ == "__main__":
    main()

"""Does the quality of a sample say how much a detector learns from it? Rank correlation with the gain.

Named before the run. In each category DiscriminativePadim at one scale (160 px) is fitted to the good images, and 400
samples of ``RuleBasedGenerator()`` are drawn on them once; their features are kept, so that a group costs seconds. For
each score the samples are ordered by it and cut into ``--groups`` groups of equal number. The heads are trained anew on
each group alone (``--steps`` steps of batch 8, half of them good images, last step), and the gain of a group is the
image AUROC on the real test defects, the heads' and the normality's maps added as always, less that of the detector
without heads; where there are masks, the mean of that and the gain in pixel AP.

Spearman's rho is that of a group's rank by the score and its gain, within each category and seed; its interval is at
95 % by a t distribution over categories, the mean over seeds being one number each. Scores:

* ``quality``: that of the package, agreement of mask and change, times v / (v + 1), v the visibility: it rises with v
* ``hump``: agreement, times the share of the mask on the part, times (4 v b / (v + b)^2)^2, best at b = 3

The hump's place was chosen on two kinds of DemoParts (brushed_metal and printed_cap, one seed, eight groups by
visibility), before these arms ran on any real category. Gains there, mean of image AUROC and pixel AP in points, from
the faintest eighth to the most visible: 17, 8, 9, 9, 9, 8, 6, 8 and 10, 10, 11, 11, 16, 13, 13, 8.

    python benchmarks/quality.py --data DATA --work FOLDER --seeds 0 1 2
    python benchmarks/quality.py --table
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from feature_bench import FeatureBench
from scipy import stats

from anomalib_synth.defects import DEFECT
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.seeding import derive_seeds, image_key
from anomalib_synth.learning.example_memory import ExampleMemory
from anomalib_synth.learning.training import HeadTrainingSettings, train_heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.learning.examples import Example

SIZE, SAMPLES = 160, 400
KEY = ["category", "seed", "score", "group"]
RESULTS = Path(__file__).parent / "results" / "quality.csv"


def rate_quality(measured: dict[str, float]) -> float:
    """Return the quality that the checks give."""
    return min(measured["agreement"], 1) * measured["visibility"] / (measured["visibility"] + 1)


def rate_hump(measured: dict[str, float]) -> float:
    """Return a score that is highest for what can be seen, but not at a glance."""
    ratio = measured["visibility"] / 3
    return min(measured["agreement"], 1) * measured["foreground"] * (4 * ratio / (1 + ratio) ** 2) ** 2


SCORES: dict[str, Callable[[dict[str, float]], float]] = {
    "quality": rate_quality,
    "hump": rate_hump,
    "visibility": lambda measured: measured["visibility"],  # to look at the shape with, no candidate
}


class Group:
    """The memory of a detector with some of its drawn samples alone."""

    def __init__(self, memory: ExampleMemory, drawn: list[Example]) -> None:
        self._memory, self._drawn = memory, drawn
        self.features, self.grids, self.normals = memory.features, memory.grids, memory.normals

    def of(self, *roles: str) -> list[Example]:
        """Return the examples of some roles."""
        return [each for role in roles for each in (self._drawn if role == "drawn" else self._memory.of(role))]


class Bench(FeatureBench):
    """A category, and the features of samples drawn on it, with what their checks measured."""

    def __init__(self, data: Path, category: str, work: Path, *, most_normals: int) -> None:
        super().__init__(data, category, work, size=SIZE, scales=[SIZE], most_normals=most_normals)
        self.measured = self._draw(work / f"{category}.json")

    def _draw(self, file: Path) -> dict[bytes, dict[str, float]]:
        """Draw the samples; return what their checks measured, by the digest of each."""
        if file.exists() and len(self.memory.of("drawn")) == SAMPLES:
            return {bytes.fromhex(key): row for key, row in json.loads(file.read_text()).items()}
        generator = RuleBasedGenerator()
        generator.prepare(self.read(path) for path in self.normals)
        measured: dict[bytes, dict[str, float]] = {}
        repeat = 0
        while len(measured) < SAMPLES:
            path = self.normals[repeat % len(self.normals)]
            sample = generator(self.read(path)[None], seeds=derive_seeds(0, 0, [image_key(path)], repeat))
            repeat += 1
            if bool(sample.accepted[0]):
                marks = (sample.mask[0, 0] > 0).to(torch.uint8) * DEFECT
                example = self.memory.add("drawn", "", sample.image[0], marks=marks, source=sample.source[0])
                measured[example.key] = sample.provenance[0].measured
        file.write_text(json.dumps({key.hex(): row for key, row in measured.items()}))
        return measured

    def groups(self, score: str, count: int) -> list[list[Example]]:
        """Return the samples in groups of equal number, by rising score."""
        rates = {example.key: SCORES[score](self.measured[example.key]) for example in self.memory.of("drawn")}
        ordered = sorted(self.memory.of("drawn"), key=lambda example: (rates[example.key], example.key))
        return [part.tolist() for part in np.array_split(np.array(ordered, dtype=object), count)]

    def run(self, drawn: list[Example] | None, seed: int, steps: int) -> dict[str, Any]:
        """Train the heads on some samples, or none, and return the metrics."""
        self.reset(seed)
        if drawn is None:
            self.reference.set_score(with_heads=False)
        else:
            lesson = HeadTrainingSettings(steps=steps, seed=seed)
            train_heads(self.module.model, Group(self.memory, drawn), self.reference, lesson)
        row = self.measure()
        return {name: row.get(name) for name in ("image_auroc", "pixel_ap")}


def print_table(path: Path) -> None:
    """Print each score's gains by group, and Spearman's rho with its interval."""
    rows = pd.read_csv(path)
    base = rows[rows["score"] == "none"].set_index(["category", "seed"])
    for metric in ("image_auroc", "pixel_ap"):
        rows[f"gain_{metric}"] = [
            100 * (row[metric] - base.loc[(row["category"], row["seed"]), metric]) for _, row in rows.iterrows()
        ]
    rows["gain"] = rows[["gain_image_auroc", "gain_pixel_ap"]].mean(axis=1)
    for score in [name for name in rows["score"].unique() if name != "none"]:
        mine = rows[rows["score"] == score]
        cells = mine.groupby(["category", "seed"])
        rho = cells.apply(lambda cell: stats.spearmanr(cell["group"], cell["gain"]).statistic)
        rho = rho.groupby("category").mean()
        print(f"\n{score}: gain in points by group, rising score\n{describe_gains(mine)}")
        print(f"Spearman's rho by category: {rho.round(2).to_dict()}; {describe_mean(rho.to_numpy())}")


def describe_gains(rows: pd.DataFrame) -> str:
    """Return mean gains by category and group as a table."""
    return rows.pivot_table(index="category", columns="group", values="gain").round(1).to_string()


def describe_mean(values: np.ndarray) -> str:
    """Return a mean and its interval over categories."""
    if len(values) < 2:
        return f"mean {values.mean():+.2f}, one category"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"mean {values.mean():+.2f} ({values.mean() - half:+.2f} to {values.mean() + half:+.2f})"


def main() -> None:
    """Run the benchmark, going on where it was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--scores", nargs="+", choices=list(SCORES), default=["quality", "hump"])
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--normals", type=int, default=120)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print_table(args.results)
        return
    if args.data is None or args.work is None:
        parser.error("name the images with --data, and a folder for features with --work")
    torch.set_num_threads(1)
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.work.mkdir(parents=True, exist_ok=True)
    found = sorted(each.name for each in args.data.iterdir() if (each / "train/good").is_dir())
    for category in args.categories or found:
        bench = None
        for seed in args.seeds:
            for score in ["none", *args.scores]:
                for group in range(1 if score == "none" else args.groups):
                    cell = (category, seed, score, group)
                    done = pd.read_csv(args.results) if args.results.exists() else pd.DataFrame(columns=KEY)
                    if len(done) and (done[KEY] == cell).all(1).any():
                        continue
                    bench = bench or Bench(args.data, category, args.work, most_normals=args.normals)
                    begin = time.process_time()
                    drawn = None if score == "none" else bench.groups(score, args.groups)[group]
                    row: dict[str, Any] = dict(zip(KEY, cell, strict=True))
                    row |= bench.run(drawn, seed, args.steps)
                    if drawn is not None:
                        seen = [bench.measured[example.key] for example in drawn]
                        row["quality"] = round(float(np.mean([SCORES[score](each) for each in seen])), 4)
                        row["visibility"] = round(float(np.median([each["visibility"] for each in seen])), 2)
                    row["seconds"] = round(time.process_time() - begin, 1)
                    columns = [*KEY, "image_auroc", "pixel_ap", "quality", "visibility", "seconds"]
                    frame = pd.DataFrame([row]).reindex(columns=columns)
                    frame.to_csv(args.results, mode="a", header=not args.results.exists(), index=False)
                    print(row, flush=True)


if __name__ == "__main__":
    main()

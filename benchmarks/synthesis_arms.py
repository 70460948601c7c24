r"""Which synthetic defects make a detector better? DiscriminativePadim on real defects, at equal steps.

Named before the run. Each category: the detector at one scale (160 px, images of 256 px), its normality fitted once to
nine tenths of the good training images; the heads are trained from scratch for 400 steps of batch 8, half of it good
images, on 400 samples of an arm, last step; the real test defects once. A seed changes the samples, the heads'
initialisation and the order. Features are computed once and kept, so that arms share them.

* ``none``: the detector without heads, the control without synthesis
* ``perlin``: anomalib's PerlinAnomalyGenerator
* ``literature``: noise and the literature's families (configs/synthesis/literature.yaml); ``physical``: the physical
  families, held to the checks of configs/synthesis/two_stage_physical.yaml; ``all``: RuleBasedGenerator()
* ``words``: AutoregressiveGenerator(), the bundle that comes with the package; ``words_fitted``: a bundle fitted to the
  product, BUNDLES/<category> (`anomalib-synth fit`)
* ``diffusion``: DiffusionGenerator, a pipeline fitted to the product, PIPELINES/<category> (`anomalib-synth fit
  --diffusion`)
* ``*_filtered``: FilteredGenerator around the same generator; ``*_random``: as many draws kept at random
* ``weighted``, ``shuffled``: the samples of ``all``, each weighted by its quality as QualityWeightingCallback does,
  or by the quality of another
* ``two_stage``: ``literature`` for half of the steps, then ``physical`` with fresh optimisers at a tenth of the rate,
  as TwoStageTrainingCallback does; ``reverse``, ``mixed`` (half of the samples of each in both stages),
  ``coarse_only`` and ``fine_only`` drop the rate at the same step; ``two_stage_words``: ``words_filtered`` as the
  second stage
* ``all_and_words``: half of the samples of ``all``, half of ``words``: the combination

Image AUROC, pixel AP, recall and false alarms at a threshold that the held-out tenth of the good images sets for 10 %;
seconds of the processor a sample that was accepted. Rows are appended to a CSV as they come; a row that is there is not
run again. Verdicts after Holm, over the arms.

    python benchmarks/synthesis_arms.py --data DATA --work FOLDER --seeds 0 1 2 3 4
    python benchmarks/synthesis_arms.py --data DATA --work FOLDER --arms words_fitted --bundles BUNDLES
    python benchmarks/synthesis_arms.py --table
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from feature_bench import FeatureBench
from rich.console import Console
from rich.progress import track

from anomalib_synth.comparison.multiple_comparisons import estimate_gains
from anomalib_synth.comparison.paired import describe_interval
from anomalib_synth.defects import DEFECT
from anomalib_synth.detectors.discriminative_padim.losses import head_losses
from anomalib_synth.detectors.discriminative_padim.schedule import OneCycle
from anomalib_synth.detectors.discriminative_padim.training import mirrored_axes
from anomalib_synth.generators import (
    AutoregressiveGenerator,
    DiffusionGenerator,
    FilteredGenerator,
    RuleBasedGenerator,
    SampleChecks,
)
from anomalib_synth.generators.families import PHYSICAL
from anomalib_synth.generators.seeding import derive_seeds, image_key
from anomalib_synth.learning.example_memory import ExampleMemory
from anomalib_synth.learning.examples import stack_targets
from anomalib_synth.losses import QualityWeights, WeightMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib_synth.generators.base import AnomalyGenerator
    from anomalib_synth.learning.examples import Example

CATEGORIES = ["magnetic_tile", "pavement_crack", "bottle_cap", "alien_toy", "ball_screw", "woven_fabric", "solar_mono"]
SIZE, SCALE, SAMPLES, STEPS, BATCH = 256, 160, 400, 400, 8
SWITCH, SECOND_RATE, RATE = 0.5, 0.1, 0.002
LITERATURE = [
    "noise", "cutpaste", "cutpaste_scar", "cutout", "fpi", "nsa", "perlin_texture", "fractal", "destseg", "memseg",
    "realnet",
]  # fmt: skip
KEY = ["category", "seed", "arm"]
METRICS = ["image_auroc", "pixel_ap", "recall", "false_alarms"]
RESULTS = Path(__file__).parent / "results" / "synthesis_arms.csv"


def make_generators(category: str, bundles: Path | None, pipelines: Path | None) -> dict[str, Callable[[], Any]]:
    """Return what makes the generator of each set of samples, by name."""
    checks = SampleChecks(min_visibility=2.0, min_agreement=0.6)
    made: dict[str, Callable[[], Any]] = {
        "literature": lambda: RuleBasedGenerator(LITERATURE, strength=(1.0, 1.0)),
        "physical": lambda: RuleBasedGenerator(PHYSICAL, checks=checks, max_attempts=8),
        "all": RuleBasedGenerator,
        "words": AutoregressiveGenerator,
    }
    if bundles is not None:
        made["words_fitted"] = lambda: AutoregressiveGenerator(bundle=bundles / category)
    if pipelines is not None:
        made["diffusion"] = lambda: DiffusionGenerator(pipeline=str(pipelines / category))
    for name, make in list(made.items()):
        if name not in ("literature", "physical"):
            made[f"{name}_filtered"] = lambda make=make: FilteredGenerator(make())
            made[f"{name}_random"] = lambda make=make: FilteredGenerator(make(), mode="random_keep")
    return made


@dataclass(frozen=True)
class Samples:
    """The samples of an arm.

    Args:
        examples: Their features and targets.
        quality: Quality of each, (n,) in [0, 1].
        seconds: Seconds of the processor a sample.
    """

    examples: list[Example]
    quality: torch.Tensor
    seconds: float


class SampleBench:
    """Sets of samples on one category, by name, drawn with one seed; features that sets share are computed once."""

    def __init__(self, bench: FeatureBench, folder: Path, seed: int, generators: dict[str, Callable[[], Any]]) -> None:
        self.bench, self._seed, self._generators = bench, seed, generators
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(bench.folder, folder)  # with the features of the normals
        self._folder = folder
        self.memory = ExampleMemory(folder, bench.module)
        self._sets: dict[str, Samples] = {}

    def __getitem__(self, name: str) -> Samples:
        """Return a set, drawn when it is asked for first."""
        if name not in self._sets:
            begin = time.process_time()
            drawn = list(self._perlin() if name == "perlin" else self._draw(self._generators[name]()))
            seconds = (time.process_time() - begin) / max(1, len(drawn))
            examples = [
                self.memory.add("drawn", "", image, marks=mask * DEFECT, source=source, keep=False)
                for image, source, mask, _ in drawn
            ]
            self._sets[name] = Samples(examples, torch.tensor([quality for *_, quality in drawn]), seconds)
        return self._sets[name]

    def _draw(self, generator: AnomalyGenerator) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]]:
        """Yield image, source, mask (H, W) and quality of accepted samples, drawn on the normals in turn."""
        normals = self.bench.normals
        generator.prepare(self.bench.read(path) for path in normals)
        accepted = 0
        for number in range(3 * SAMPLES):
            path = normals[number % len(normals)]
            seeds = derive_seeds(self._seed, 0, [image_key(path)], number)
            sample = generator(self.bench.read(path)[None], seeds=seeds)
            if bool(sample.accepted[0]):
                mask = (sample.mask[0, 0] > 0).to(torch.uint8)
                yield sample.image[0], sample.source[0], mask, float(sample.quality[0])
                accepted += 1
            if accepted == SAMPLES:
                return

    def _perlin(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]]:
        """Yield the samples of anomalib's own generator; none has a quality."""
        augment = PerlinAnomalyGenerator(probability=1.0)
        normals = self.bench.normals
        torch.manual_seed(self._seed)
        for number in range(SAMPLES):
            source = self.bench.read(normals[number % len(normals)])
            image, mask = augment(source)
            if bool(mask.any()):
                yield image.reshape(source.shape), source, (mask.reshape(source.shape[-2:]) > 0).to(torch.uint8), 1.0

    @cached_property
    def good(self) -> list[Example]:
        """The normals that train the heads."""
        return [each for each in self.memory.of("normal") if each.key not in self.held_out]

    @cached_property
    def held_out(self) -> set[bytes]:
        """Digests of the normals that measure the score, on which no head is trained."""
        held_out = self.bench.reference.held_out.tolist()
        return {key for key, held in zip(self.bench.memory.normals(), held_out, strict=True) if held}

    def close(self) -> None:
        """Delete the features of the samples."""
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class Lesson:
    """What an arm trains the heads with.

    Args:
        first: Sets of samples of the first stage, each as often as the others.
        second: Those of the second; none for one stage.
        weights: Weights of samples by their quality.
    """

    first: tuple[str, ...]
    second: tuple[str, ...] = ()
    weights: WeightMode = "none"


LESSONS = {
    "weighted": Lesson(("all",), weights="softmax"),
    "shuffled": Lesson(("all",), weights="shuffled"),
    "two_stage": Lesson(("literature",), ("physical",)),
    "reverse": Lesson(("physical",), ("literature",)),
    "mixed": Lesson(("literature", "physical"), ("literature", "physical")),
    "coarse_only": Lesson(("literature",), ("literature",)),
    "fine_only": Lesson(("physical",), ("physical",)),
    "two_stage_words": Lesson(("literature",), ("words_filtered",)),
    "all_and_words": Lesson(("all", "words")),
}
ARMS = [
    "none", "perlin", "literature", "physical", "all", "words", "all_filtered", "all_random", "words_filtered",
    "words_random", *LESSONS,
]  # fmt: skip
FITTED = [f"{name}{how}" for name in ("words_fitted", "diffusion") for how in ("", "_filtered", "_random")]


def train(samples: SampleBench, lesson: Lesson, seed: int) -> None:
    """Train the heads from scratch, and put the score on its scale."""
    model, memory = samples.bench.module.model, samples.memory
    samples.bench.reset(seed)
    rng = torch.Generator().manual_seed(seed)
    weigh = QualityWeights(mode=lesson.weights, seed=seed)
    stages = [(lesson.first, STEPS, RATE)]
    if lesson.second:
        first = int(SWITCH * STEPS)
        # the first cycle is that of the whole run, cut at the switch, as in the trainer
        stages = [(lesson.first, first, RATE), (lesson.second, STEPS - first, RATE * SECOND_RATE)]
    model.branches.train()
    step = 0
    for names, steps, rate in stages:
        heads = [p for branch in model.branches for p in branch.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(heads, lr=rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, OneCycle(STEPS - step))
        for _ in range(steps):
            rows, quality = draw_batch(samples, names, rng)
            views = memory.features.views([row.to_request() for row in rows], count=len(memory.normals()))
            targets = stack_targets(rows, memory.grids)
            axes = mirrored_axes(int(torch.randint(2**31, (1,), generator=rng)))
            losses = head_losses(model.branches, views, targets, axes=axes)
            synthetic = torch.arange(len(rows)) >= BATCH // 2
            loss = (losses * weigh(quality, synthetic, step=step)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    model.branches.eval()
    samples.bench.reference.set_score(with_heads=True)


def draw_batch(
    samples: SampleBench, names: tuple[str, ...], rng: torch.Generator
) -> tuple[list[Example], torch.Tensor]:
    """Return good images and samples of some sets, half each, and the quality of each row."""
    half = BATCH // 2
    rows = [samples.good[place] for place in torch.randint(len(samples.good), (half,), generator=rng).tolist()]
    quality = [1.0] * half
    while len(rows) < BATCH:
        chosen = samples[names[int(torch.randint(len(names), (1,), generator=rng))]]
        place = int(torch.randint(len(chosen.examples), (1,), generator=rng))
        if chosen.examples[place].behind in samples.held_out:
            continue  # drawn on a normal that measures the score
        rows.append(chosen.examples[place])
        quality.append(float(chosen.quality[place]))
    return rows, torch.tensor(quality)


def run(samples: SampleBench, arm: str, seed: int) -> dict[str, Any]:
    """Return the row of an arm."""
    begin = time.process_time()
    row: dict[str, Any] = {}
    if arm == "none":
        samples.bench.reset(seed)
        samples.bench.reference.set_score(with_heads=False)
    else:
        lesson = LESSONS.get(arm) or Lesson((arm,))
        sets = [samples[name] for name in dict.fromkeys([*lesson.first, *lesson.second])]
        begin = time.process_time()
        train(samples, lesson, seed)
        row = {
            "samples": sum(len(each.examples) for each in sets),
            "sample_seconds": round(sum(each.seconds for each in sets) / len(sets), 4),
        }
    measured = samples.bench.measure()
    row |= {name: measured.get(name) for name in METRICS}
    return {**row, "seconds": round(time.process_time() - begin, 1)}


def print_table(path: Path, baseline: str) -> None:
    """Print means over seeds by arm and category, and gains over a baseline after Holm."""
    rows = pd.read_csv(path)
    arms = [arm for arm in [*ARMS, *FITTED] if arm in set(rows["arm"])]
    for metric in METRICS:
        known = rows.dropna(subset=metric)
        table = known.pivot_table(index="arm", columns="category", values=metric).reindex(arms)
        table["mean"] = table.mean(axis=1, skipna=False)
        table["cells"] = known.groupby("arm").size()
        print(f"\n{metric}\n{table.round(3).to_string()}")
    print(f"\nseconds a sample\n{rows.groupby('arm')['sample_seconds'].mean().reindex(arms).round(4).to_string()}")
    pairs = [(arm, baseline) for arm in arms if arm not in (baseline, "none")]
    pairs += [(one, other) for one, other in CONTROLS if {one, other} <= set(arms)]
    for metric in METRICS[:2]:
        points = [
            {**row, "data": row["category"], "size": SCALE, metric: None if pd.isna(row[metric]) else 100 * row[metric]}
            for row in rows.to_dict("records")
        ]
        for (one, other), gain in estimate_gains(points, pairs, metric).items():
            print(f"{metric}: {one} - {other} = {gain.value:+.1f} points, {describe_interval(gain)}")


CONTROLS = [
    ("all", "none"), ("all_filtered", "all_random"), ("words_filtered", "words_random"), ("weighted", "shuffled"),
    ("two_stage", "reverse"), ("two_stage", "mixed"), ("two_stage", "coarse_only"), ("two_stage", "fine_only"),
    ("words_fitted_filtered", "words_fitted_random"), ("diffusion_filtered", "diffusion_random"),
]  # fmt: skip


def main() -> None:
    """Run the cells that are not in the results yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per category")
    parser.add_argument("--work", type=Path, help="folder for features")
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *FITTED], default=ARMS)
    parser.add_argument("--categories", nargs="+", default=CATEGORIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--bundles", type=Path, help="folder with a fitted bundle per category")
    parser.add_argument("--pipelines", type=Path, help="folder with a fitted diffusion pipeline per category")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--baseline", default="all", help="arm that gains are over")
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    args = parser.parse_args()
    if not args.table:
        if args.data is None or args.work is None:
            parser.error("name the images with --data, and a folder for features with --work")
        torch.set_num_threads(1)
        args.results.parent.mkdir(parents=True, exist_ok=True)
        run_all(args)
    print_table(args.results, args.baseline)


def run_all(args: argparse.Namespace) -> None:
    """Run the cells that are missing, one category after the other."""
    done = pd.read_csv(args.results) if args.results.exists() else pd.DataFrame(columns=KEY)
    seen = set(done[KEY].itertuples(index=False, name=None))
    cells = [
        (seed, category, missing)
        for seed in args.seeds
        for category in args.categories
        if (missing := [arm for arm in args.arms if (category, seed, arm) not in seen])
    ]
    for seed, category, missing in track(cells, "Categories", console=Console(stderr=True)):
        bench = FeatureBench(args.data, category, args.work, size=SIZE, scales=[SCALE])
        generators = make_generators(category, args.bundles, args.pipelines)
        samples = SampleBench(bench, args.work / f"{category}_{seed}", seed, generators)
        for arm in missing:
            row = {**dict(zip(KEY, (category, seed, arm), strict=True)), **run(samples, arm, seed)}
            columns = [*KEY, *METRICS, "samples", "sample_seconds", "seconds"]
            frame = pd.DataFrame([row]).reindex(columns=columns)
            frame.to_csv(args.results, mode="a", header=not args.results.exists(), index=False)
        samples.close()


if __name__ == "__main__":
    main()

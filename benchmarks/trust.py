r"""How far can DiscriminativePadim's heads be trusted? Rules that decide from good images alone, under shift or not.

Named before the run. Each task trains on good images and drawn defects only, and is tested once on real defects:

* plain: the seven categories as they are
* shift: test images unlike the training images. ``woven_fabric/<weave>``: trained on the other weaves, tested on this
  one (its good training images join the test). ``magnetic_tile/bright`` and ``/dark``: trained on exposures 1 to 3 and
  tested on 4 to 6, and the other way round. ``pavement_crack/first`` and ``/last``: trained on the tiles of the first,
  or the last, quarter of the photographs, tested on the test set and the tiles of the other photographs' end

Rules (N: distance from normal, H: mean of the four heads, both at 160 and 256 px; a random fifth of the normals trains
no head, and N and H are standardised over it; the score of an image is the largest value of the map unless said
otherwise):

* ``normality``: N alone
* ``sum``: N + H
* ``maxima``: the score of an image is the sum of the largest values of N and of H, each standardised over the largest
  values in the images held out; the map is that of ``sum``
* ``agree``: as ``maxima``, with the lesser of the feature heads' mean and the residual heads' mean for H
* ``shift``: as ``maxima``, and H times t = min(1, a / b): of heads trained for half the steps without a fifth of the
  normals at random and without whole clusters of them (k-means, 8, of pooled features; a fifth), a and b are the 90 %
  quantiles of the largest value in the images held out at random and in those of the clusters
* ``nuisance_sum``, ``nuisance_maxima``, ``nuisance_agree``, ``nuisance_shift``: the same with half of the good images
  in training changed in brightness, contrast, gamma, focus, noise, light and scale

Few normals (``--few``; tasks such as ``magnetic_tile:20`` train on 20 normals, evenly spread): ``normality``, ``sum``,
``maxima`` and, named before that run,

* ``bound``: as ``maxima``, each deviation replaced by its upper 95 % confidence limit, s sqrt((m - 1) / q) with q the
  5 % quantile of chi squared with m - 1 degrees of freedom over m normals; N is standardised over all normals
* ``bound90``: the upper 90 % limit;  ``half``: H counts half

The choice: the rule with the largest mean gain over N of image AUROC (all tasks) and pixel AP (those with masks) among
those that lose at most .01 of image AUROC in every task; without any, the one whose worst loss is smallest.

A first set of rules (results/trust_first.csv) put the score on the scale of whole clusters that train no head. It was
stopped after two tasks: heads that miss a cluster lost 22 points on a weave that they had never seen.

    python benchmarks/trust.py --data DATA --work WORK            # features to WORK, rows to the results
    python benchmarks/trust.py --data DATA --work WORK --few --steps 800 --results benchmarks/results/trust_few.csv \
        --tasks magnetic_tile:20 woven_fabric:20 ball_screw:20 pavement_crack:20 alien_toy:20 alien_toy:40 \
        magnetic_tile:40 woven_fabric:40 ball_screw:40 pavement_crack:40
    python benchmarks/trust.py --table
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import re
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy.stats import chi2
from sklearn.cluster import KMeans
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

import anomalib_synth  # noqa: F401  (registers the backbone)
from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.detectors.discriminative_padim.cross_fitting import leave_out
from anomalib_synth.detectors.discriminative_padim.features import GridFeatures
from anomalib_synth.detectors.discriminative_padim.heads import Head
from anomalib_synth.detectors.discriminative_padim.normality import PositionGaussian, PositionMoments, distance
from anomalib_synth.detectors.discriminative_padim.scales import make_resize, make_upsampling
from anomalib_synth.detectors.discriminative_padim.targets import Targets, cover_cells, focal_losses
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.prepared import evenly_spread

RESULTS = Path(__file__).parent / "results" / "trust.csv"
TASKS = [
    "woven_fabric/00", "woven_fabric/03", "woven_fabric/04", "woven_fabric/06", "magnetic_tile/bright",
    "magnetic_tile/dark", "pavement_crack/first", "pavement_crack/last", "magnetic_tile", "pavement_crack",
    "bottle_cap", "alien_toy", "ball_screw", "woven_fabric", "solar_mono",
]  # fmt: skip
SIZE, SCALES, SAMPLES, BATCH = 256, (160, 256), 800, 4
SHRINKAGE = 0.5


def read(path: Path) -> torch.Tensor:
    """Return an image (3, 256, 256) in [0, 1]."""
    image = TF.to_dtype(TF.pil_to_tensor(Image.open(path).convert("RGB")), torch.float32, scale=True)
    return TF.resize(image, [SIZE, SIZE], antialias=True).clamp(0, 1)


def change_harmlessly(image: torch.Tensor, seed: int) -> torch.Tensor:
    """Return an image with other brightness, contrast and gamma, and perhaps blur or noise, uneven light, scale."""
    rng = random.Random(seed)
    out = TF.adjust_contrast(TF.adjust_brightness(image, rng.uniform(0.75, 1.3)), rng.uniform(0.75, 1.3))
    out = TF.adjust_gamma(out.clamp(1e-4, 1), rng.uniform(0.8, 1.25))
    kind = rng.random()
    if kind < 0.3:
        out = TF.gaussian_blur(out, [5, 5], [rng.uniform(0.3, 1.2)] * 2)
    elif kind < 0.6:
        noise = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
        out = out + noise * rng.uniform(0.01, 0.04)
    if rng.random() < 0.5:
        ramp, angle = torch.linspace(-1, 1, SIZE), rng.uniform(0, 2 * math.pi)
        light = math.cos(angle) * ramp[None] + math.sin(angle) * ramp[:, None]
        out = out * (1 + 0.15 * rng.uniform(0.3, 1) * light)
    if rng.random() < 0.5:
        side = int(SIZE * rng.uniform(1.02, 1.12))
        top, left = rng.randint(0, side - SIZE), rng.randint(0, side - SIZE)
        out = TF.resize(out, [side, side], antialias=True)[:, top : top + SIZE, left : left + SIZE]
    return out.clamp(0, 1)


def extract(data: Path, category: str, work: Path) -> dict:
    """Return raw features of train, test, drawn and changed images of a category, kept in the work folder."""
    kept = work / f"{category}.pt"
    if kept.exists():
        return torch.load(kept, weights_only=True)
    root = data / category
    backbone = FrozenBackbone("efficientnet_lite0_bundled", ["blocks.1", "blocks.2", "blocks.4"])
    backbone.load_weights()
    network = GridFeatures(backbone, channels=200).eval()
    resizes = [make_resize((SIZE, SIZE), (side, side)) for side in SCALES]

    @torch.no_grad()
    def features(images: torch.Tensor) -> list[torch.Tensor]:
        parts = [[network(resize(2 * chunk - 1)).half() for resize in resizes] for chunk in images.split(8)]
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    train = sorted((root / "train/good").glob("*.png"))
    test = sorted((root / "test").glob("*/*.png"))
    normals = torch.stack([read(path) for path in train])
    sources, images, masks = draw(normals)
    has_masks = (root / "ground_truth").is_dir()
    with (root / "manifest.csv").open(encoding="utf-8") as file:
        origin = {row["image"]: f"{row['source']} {row['group']}" for row in csv.DictReader(file)}
    found = {
        "train": features(normals),
        "test": features(torch.stack([read(path) for path in test])),
        "synth": features(images),
        "changed": features(torch.stack([change_harmlessly(image, seed) for seed, image in enumerate(normals)])),
        "source": torch.tensor(sources),
        "cover": [cover_cells(masks, (side // 8, side // 8)).half() for side in SCALES],
        "label": torch.tensor([path.parent.name != "good" for path in test]),
        "mask": torch.stack([read_mask(root, path) for path in test]) if has_masks else None,
        "train_origin": [origin[f"train/good/{path.name}"] for path in train],
        "test_origin": [origin[path.relative_to(root).as_posix()] for path in test],
    }
    work.mkdir(parents=True, exist_ok=True)
    torch.save(found, kept)
    return found


def read_mask(root: Path, path: Path) -> torch.Tensor:
    """Return the mask (256, 256) bool of a test image."""
    if path.parent.name == "good":
        return torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask = TF.pil_to_tensor(Image.open(root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png").convert("L"))
    return F.interpolate(mask[None].float(), (SIZE, SIZE), mode="nearest")[0, 0] > 127


def draw(normals: torch.Tensor) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """Return the source, image and mask of the accepted samples."""
    generator = RuleBasedGenerator()
    generator.prepare(iter(normals))
    sources, images, masks = [], [], []
    for start in range(0, 4 * SAMPLES, 16):
        rows = [(start + place) * 37 % len(normals) for place in range(16)]
        seeds = torch.tensor([1000003 * (start + place) + 7 for place in range(16)])
        sample = generator(normals[rows], seeds=seeds)
        for place in sample.accepted.nonzero().flatten().tolist():
            sources.append(rows[place])
            images.append(sample.image[place])
            masks.append(sample.mask[place, 0])
        if len(sources) >= SAMPLES:
            break
    return sources[:SAMPLES], torch.stack(images[:SAMPLES]), torch.stack(masks[:SAMPLES])


def split(name: str, found: dict) -> tuple[list[int], list[int], list[int]]:
    """Return which training images train, which test images test, and which training images join the test."""
    category, _, part = name.partition("/")
    train, test = found["train_origin"], found["test_origin"]
    everything = list(range(len(train))), list(range(len(test))), []
    if ":" in name:
        return evenly_spread(range(len(train)), int(name.rpartition(":")[2])), everything[1], []
    if not part:
        return everything
    if category == "woven_fabric":
        inside = [f"fabric{part}@" in each for each in train]
        tested = [row for row, each in enumerate(test) if f"fabric{part}@" in each]
    elif category == "magnetic_tile":

        def late(each: str) -> bool:
            return int(re.search(r"exp(\d)", each).group(1)) >= 4

        inside = [late(each) == (part == "bright") for each in train]
        tested = [row for row, each in enumerate(test) if late(each) == (part == "bright")]
    else:
        photos = sorted({each.split()[0] for each in train})
        quarter = len(photos) // 4
        own = set(photos[:quarter] if part == "first" else photos[-quarter:])
        joins = set(photos[-quarter:] if part == "first" else photos[:quarter])
        trained = [row for row, each in enumerate(train) if each.split()[0] in own]
        return trained, everything[1], [row for row, each in enumerate(train) if each.split()[0] in joins]
    trained = [row for row, other in enumerate(inside) if not other]
    return trained, tested, [row for row, other in enumerate(inside) if other]


class Task:
    """Features and residuals of one task at both scales, and its truth."""

    def __init__(self, name: str, found: dict) -> None:
        train, test, joining = (torch.tensor(rows, dtype=torch.long) for rows in split(name, found))
        self.count = len(train)
        place = {int(row): position for position, row in enumerate(train)}
        drawn = [row for row, source in enumerate(found["source"].tolist()) if source in place]
        self.source = torch.tensor([place[int(found["source"][row])] for row in drawn])
        self.label = torch.cat([found["label"][test], torch.zeros(len(joining), dtype=torch.bool)])
        self.mask = None
        if found["mask"] is not None:
            self.mask = torch.cat([found["mask"][test], torch.zeros(len(joining), SIZE, SIZE, dtype=torch.bool)])
        self.x, self.cover, pooled = [], [], []
        for level in range(len(SCALES)):
            raw = found["train"][level][train].float()
            mean, deviation = raw.mean((0, 2, 3), keepdim=True), raw.std((0, 2, 3), keepdim=True)
            parts = {
                "good": raw,
                "drawn": found["synth"][level][drawn],
                "changed": found["changed"][level][train],
                "test": torch.cat([found["test"][level][test], found["train"][level][joining]]),
            }
            x = {key: (value.float() - mean) / deviation for key, value in parts.items()}
            self.x.append(x)
            self.cover.append(found["cover"][level][drawn].float())
            pooled.append(torch.cat([x["good"].mean((2, 3)), x["good"].std((2, 3))], 1))
        self.pooled = torch.cat(pooled, 1)
        self.w = [self._residuals(level) for level in range(len(SCALES))]

    @torch.no_grad()
    def _residuals(self, level: int) -> dict[str, torch.Tensor]:
        x = self.x[level]
        gaussian = fit_gaussian(x["good"])
        whitened = {key: in_chunks(gaussian, value) for key, value in x.items()}
        own = whitened["good"]
        behind = {"good": own, "changed": own, "drawn": own[self.source]}
        residuals = {"test": whitened["test"]}
        for key, normals in behind.items():
            pairs = zip(whitened[key].split(32), normals.split(32), strict=True)
            left = [leave_out(a, b, count=self.count, shrinkage=SHRINKAGE) for a, b in pairs]
            residuals[key] = torch.cat(left)
        return residuals

    def random_fifth(self) -> torch.Tensor:
        """Return (n,) bool: a random fifth of the normals."""
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(0))
        held = torch.zeros(self.count, dtype=torch.bool)
        held[order[: max(self.count // 5, 2)]] = True
        return held

    def clusters_fifth(self) -> torch.Tensor:
        """Return (n,) bool: whole clusters of normals, the smallest number of them that makes a fifth."""
        scaled = (self.pooled - self.pooled.mean(0)) / self.pooled.std(0).clamp_min(1e-6)
        cluster = torch.from_numpy(
            KMeans(min(8, self.count // 4), n_init=4, random_state=0).fit_predict(scaled.numpy())
        )
        held = torch.zeros(self.count, dtype=torch.bool)
        for each in torch.randperm(int(cluster.max()) + 1, generator=torch.Generator().manual_seed(0)).tolist():
            if held.sum() < self.count / 5 and (held | (cluster == each)).sum() <= 0.6 * self.count:
                held |= cluster == each
        return held


def fit_gaussian(x: torch.Tensor) -> PositionGaussian:
    """Return the Gaussians of features (n, C, h, w)."""
    moments = PositionMoments()
    for chunk in x.split(16):
        moments.update(chunk)
    channels = x.shape[1]
    gaussian = PositionGaussian(x.shape[2] * x.shape[3], channels, shrinkage=SHRINKAGE)
    gaussian.fit(*moments.standardised(torch.zeros(channels), torch.ones(channels)))
    return gaussian


@torch.no_grad()
def in_chunks(function: torch.nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Apply a module sixteen images at a time."""
    return torch.cat([function(chunk) for chunk in values.split(16)])


def train_heads(task: Task, held: torch.Tensor, *, steps: int, seed: int = 0, changed: float = 0.0) -> list[dict]:
    """Return the heads of each scale, trained on the normals that are not held out and on defects drawn onto them."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    good, drawn = (~held).nonzero().flatten(), (~held[task.source]).nonzero().flatten()
    heads = [{key: Head(x["good"].shape[1]) for key in "xw"} for x in task.x]
    parameters = [each for level in heads for head in level.values() for each in head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        normal = good[torch.randint(len(good), (BATCH,), generator=rng)]
        defect = drawn[torch.randint(len(drawn), (BATCH,), generator=rng)]
        flips = [axis + 2 for axis in range(2) if torch.rand(1, generator=rng) < 0.5]
        is_changed = (torch.rand(BATCH, generator=rng) < changed)[:, None, None, None]
        loss = torch.zeros(())
        for level, pair in enumerate(heads):
            cover = task.cover[level][defect]
            cover = torch.cat([torch.zeros_like(cover), cover]).flip(flips)
            positive, negative = Targets(cover, torch.zeros_like(cover, dtype=torch.uint8)).split()
            for key, head in pair.items():
                values = getattr(task, key)[level]
                rows = torch.where(is_changed, values["changed"][normal], values["good"][normal])
                logits = head(torch.cat([rows, values["drawn"][defect]]).flip(flips))
                loss = loss + focal_losses(logits, positive, positive | negative).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return [{key: head.eval() for key, head in pair.items()} for pair in heads]


UPSAMPLE = [make_upsampling((side // 8, side // 8), (SIZE, SIZE), 0.016) for side in SCALES]


@torch.no_grad()
def distance_maps(residuals: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return (B, H, W) a scale."""
    return [up(distance(w))[:, 0] for up, w in zip(UPSAMPLE, residuals, strict=True)]


@torch.no_grad()
def head_maps(task: Task, heads: list[dict], part: str, rows: torch.Tensor | slice = slice(None)) -> list[torch.Tensor]:
    """Return (B, H, W) a head."""
    return [
        up(in_chunks(pair[key], getattr(task, key)[level][part][rows]))[:, 0]
        for level, (up, pair) in enumerate(zip(UPSAMPLE, heads, strict=True))
        for key in "xw"
    ]


def standard(maps: list[torch.Tensor], reference: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of standardised maps, standardised again, and the same of the reference."""
    pairs = list(zip(maps, reference, strict=True))
    mean = sum((each - other.mean()) / other.std() for each, other in pairs) / len(maps)
    own = sum((other - other.mean()) / other.std() for other in reference) / len(maps)
    return (mean - own.mean()) / own.std(), (own - own.mean()) / own.std()


def score_few(task: Task, steps: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the map and the image scores of the rules that are compared with few normals."""
    held = task.random_fifth()
    n, all_n = standard(distance_maps([w["test"] for w in task.w]), distance_maps([w["good"] for w in task.w]))
    heads = train_heads(task, held, steps=steps)
    h, held_h = standard(head_maps(task, heads, "test"), head_maps(task, heads, "good", held))
    normal, head = standard_maxima(n, all_n), standard_maxima(h, held_h)
    scores = {"normality": normal, "sum": (n + h).amax((1, 2)), "maxima": normal + head, "half": normal + head / 2}
    for name, level in (("bound", 0.05), ("bound90", 0.1)):
        scores[name] = normal / deviation_bound(len(all_n), level) + head / deviation_bound(len(held_h), level)
    return {name: (n if name == "normality" else n + h, score) for name, score in scores.items()}


def deviation_bound(count: int, level: float) -> float:
    """Return the factor from a deviation over some normals to its upper confidence limit."""
    return math.sqrt((count - 1) / chi2.ppf(level, count - 1))


def score_rules(task: Task, steps: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return each rule's map and image scores on the test images."""
    held, clusters = task.random_fifth(), task.clusters_fifth()
    honest = [each[held] for each in distance_maps([w["good"] for w in task.w])]
    n, held_n = standard(distance_maps([w["test"] for w in task.w]), honest)
    scores = {"normality": (n, n.amax((1, 2)))}
    probe = train_heads(task, held | clusters, steps=steps // 2)
    reference = head_maps(task, probe, "good", held & ~clusters)
    unlike, like = standard(head_maps(task, probe, "good", clusters), reference)
    trust = min(1.0, float(like.amax((1, 2)).quantile(0.9) / unlike.amax((1, 2)).quantile(0.9)))
    for prefix, changed in (("", 0.0), ("nuisance_", 0.5)):
        heads = train_heads(task, held, steps=steps, changed=changed)
        tested, reference = head_maps(task, heads, "test"), head_maps(task, heads, "good", held)
        h, held_h = standard(tested, reference)
        pairs = [standard(tested[kind::2], reference[kind::2]) for kind in range(2)]
        lesser, held_lesser = (torch.minimum(*each) for each in zip(*pairs, strict=True))
        scores[f"{prefix}sum"] = (n + h, (n + h).amax((1, 2)))
        normal, head = standard_maxima(n, held_n), standard_maxima(h, held_h)
        scores[f"{prefix}maxima"] = (n + h, normal + head)
        scores[f"{prefix}agree"] = (n + lesser, normal + standard_maxima(lesser, held_lesser))
        scores[f"{prefix}shift"] = (n + trust * h, normal + trust * head)
    return scores


def standard_maxima(maps: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return the largest value of each map, standardised over those of the reference."""
    largest = reference.amax((1, 2))
    return (maps.amax((1, 2)) - largest.mean()) / largest.std()


def run_task(name: str, found: dict, steps: int, *, few: bool) -> list[dict]:
    """Return a row for each rule."""
    task = Task(name, found)
    rows = []
    for rule, (score, image_score) in (score_few if few else score_rules)(task, steps).items():
        precision = None
        if task.mask is not None:
            precision = average_precision_score(task.mask[:, ::2, ::2].flatten(), score[:, ::2, ::2].flatten())
        auroc = roc_auc_score(task.label, image_score)
        rows.append({"task": name, "rule": rule, "steps": steps, "image_auroc": auroc, "pixel_ap": precision})
    return rows


def print_table(path: Path) -> None:
    """Print each rule's gain over N by task, its mean, its worst, and the choice."""
    rows = pd.read_csv(path)
    for metric in ("image_auroc", "pixel_ap"):
        table = rows.dropna(subset=metric).pivot_table(index="task", columns="rule", values=metric, sort=False)
        if table.empty:
            continue
        gain = table.sub(table["normality"], axis=0)
        gain["normality"] = table["normality"]
        plain = ~gain.index.str.contains("/")
        summary = {"mean plain": gain[plain].mean(), "mean shift": gain[~plain].mean(), "worst": gain.min()}
        full = pd.concat([gain, pd.DataFrame(summary).T]).round(3)
        print(f"\n{metric}: normality, and gains over it\n{full.to_string()}")


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per category")
    parser.add_argument("--work", type=Path, help="folder for features")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="a category, or a category and a part of it")
    parser.add_argument("--few", action="store_true", help="compare the rules for few normals")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    args = parser.parse_args()
    if not args.table:
        if args.data is None or args.work is None:
            parser.error("--data and --work must name folders")
        torch.set_num_threads(args.threads)
        seen = set(pd.read_csv(args.results)["task"]) if args.results.exists() else set()
        for name in track([t for t in args.tasks if t not in seen], "Tasks", console=Console(stderr=True)):
            rows = run_task(name, extract(args.data, re.split("[/:]", name)[0], args.work), args.steps, few=args.few)
            pd.DataFrame(rows).to_csv(args.results, mode="a", header=not args.results.exists(), index=False)
    print_table(args.results)


if __name__ == "__main__":
    main()

"""Does the retrieval filter refuse bad edits and keep mild defects, and what does a search cost?

For each category and embedder the bounds are set on some of the good training images and frozen; then the others, which
the index does not hold, get:

* ``wrong_object``: a window of another category's good image
* ``recolour``: the window with its channels scaled by .55, 1 and 1.3, in random order
* ``geometry``: the window turned by 30 to 90 degrees and twirled
* ``noise``: uniform noise
* ``no_op``: an edit that shows nothing: noise of 1.5 grey levels, a slight blur by resampling, or JPEG at quality 75
* ``good``: defects of the physical families, strength 0.2 to 0.6, the generator's default sizes

A bad edit fills a square on the part, of a share of the image's side that ``--sides`` names; by default a tenth, .15 to
.25, and .3 to .5. ROC AUC is that of the loss of similarity against ``good``, for ``no_op`` that of the smoothed
visibility. ``area`` is what the mask's area alone would reach: large bad edits are larger than mild defects, here as in
life; a filter has to earn more than that.

    python benchmarks/retrieval.py --data DATA
    python benchmarks/retrieval.py --data DATA --sides 0.1-0.1 --window_share 0.5     # windows of one size
    python benchmarks/retrieval.py --data DATA --embedders open_clip:ViT-B-32:/path/to/weights
    python benchmarks/retrieval.py --data DATA --search     # cost at 100,000 windows, faiss against brute force
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from anomalib_synth.encoders.embedders import DEFAULT_EMBEDDER, embed_rows
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.families import PHYSICAL
from anomalib_synth.generators.prepared import PreparedNormals, evenly_spread
from anomalib_synth.retrieval import FilterSettings, RetrievalFilter, WindowIndex

BAD = ("wrong_object", "recolour", "geometry", "noise", "no_op")
RESULTS = Path(__file__).parent / "results" / "retrieval.csv"


def read(folder: Path, *, limit: int, size: int) -> torch.Tensor:
    """Return good images (N, 3, size, size) of a category, evenly spread."""
    paths = evenly_spread(sorted((folder / "train" / "good").glob("*.png")), limit)
    pixels = [
        np.array(Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)) for path in paths
    ]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def plant(
    kind: str, images: torch.Tensor, others: torch.Tensor, part: torch.Tensor | None, *, sides: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images with a bad edit each, and the masks of the edits."""
    out, mask = images.clone(), torch.zeros(len(images), 1, *images.shape[-2:])
    size = images.shape[-1]
    for row in range(len(images)):
        rng = np.random.default_rng([row, BAD.index(kind), 7])
        side = round(size * rng.uniform(*sides))
        top, left = choose_place(rng, side, size, None if part is None else part[row, 0])
        window = images[row, :, top : top + side, left : left + side]
        out[row, :, top : top + side, left : left + side] = edit(kind, window, others, rng)
        mask[row, :, top : top + side, left : left + side] = 1
    return out, mask


def choose_place(rng: np.random.Generator, side: int, size: int, part: torch.Tensor | None) -> tuple[int, int]:
    """Return the corner of a window whose middle lies on the part."""
    if part is None:
        return int(rng.integers(size - side + 1)), int(rng.integers(size - side + 1))
    cells = part.nonzero().numpy() * size // part.shape[-1]
    y, x = cells[rng.integers(len(cells))]
    return tuple(int(np.clip(centre - side // 2, 0, size - side)) for centre in (y, x))


def edit(kind: str, window: torch.Tensor, others: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return a window (3, s, s) after a bad edit."""
    side = window.shape[-1]
    if kind == "wrong_object":
        other = others[rng.integers(len(others))]
        top, left = rng.integers(other.shape[-1] - side + 1, size=2)
        return other[:, top : top + side, left : left + side]
    if kind == "recolour":
        gain = torch.from_numpy(rng.permutation([0.55, 1.0, 1.3])).float().view(3, 1, 1)
        return (window * gain).clamp(0, 1)
    if kind == "geometry":
        line = torch.linspace(-1, 1, side)
        y, x = torch.meshgrid(line, line, indexing="ij")
        turn = math.radians(rng.choice([-1, 1]) * rng.uniform(30, 90))
        angle = turn + 2 * rng.uniform(0.5, 1) * (1 - (x * x + y * y).sqrt()).clamp(min=0)
        place = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], -1)
        return F.grid_sample(window[None], place[None], align_corners=True, padding_mode="reflection")[0]
    if kind == "noise":
        return torch.from_numpy(rng.random((3, side, side))).float()
    return [add_noise, resample, compress][rng.integers(3)](window, rng)


def add_noise(window: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return a window with noise of 1.5 grey levels."""
    return (window + torch.from_numpy(rng.normal(0, 1.5 / 255, window.shape)).float()).clamp(0, 1)


def resample(window: torch.Tensor, _: np.random.Generator) -> torch.Tensor:
    """Return a window that went through three quarters of its size."""
    small = F.interpolate(window[None], scale_factor=0.75, mode="bilinear", antialias=True)
    return F.interpolate(small, window.shape[-2:], mode="bicubic").clamp(0, 1)[0]


def compress(window: torch.Tensor, _: np.random.Generator) -> torch.Tensor:
    """Return a window that went through JPEG."""
    buffer = io.BytesIO()
    pixels = (window * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255


def measure(category: Path, embedders: list[str], args: argparse.Namespace) -> list[dict]:
    """Return a row for each embedder."""
    images = read(category, limit=args.normals + args.held_out, size=args.size)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed))
    count = min(args.normals, round(0.7 * len(images)))
    normals, held_out = images[order[:count]], images[order[count:]][: args.held_out]
    frozen = {}
    for name in embedders:
        settings = FilterSettings(embedder=name, window_share=args.window_share, context=args.context)
        frozen[name] = RetrievalFilter(replace(settings, reference=args.reference or None)).fit(normals)
    prepared = PreparedNormals.from_images(normals)
    part = prepared.foreground.segment(held_out)
    neighbours = [each for each in args.data.iterdir() if (each / "train" / "good").is_dir() and each != category]
    others = torch.cat([read(each, limit=8, size=args.size) for each in sorted(neighbours)])
    generator = RuleBasedGenerator(PHYSICAL, strength=(0.2, 0.6))
    generator.use_prepared(prepared)
    good = generator(held_out, seeds=[1000 + row for row in range(len(held_out))])
    ok = good.accepted
    sets: dict[str, dict] = {"good": {"good": (good.source[ok], good.image[ok], good.mask[ok])}}
    for sides in args.sides:
        low, high = map(float, sides.split("-"))
        sets[sides] = {kind: (held_out, *plant(kind, held_out, others, part, sides=(low, high))) for kind in BAD}
    rows = []
    for name, keeper in frozen.items():
        kept = keeper.judge(*sets["good"]["good"])
        for sides in args.sides:
            row = {"category": category.name, "embedder": name, "side": sides, "window_share": args.window_share}
            row |= {"context": args.context, "reference": args.reference, "normals": count, "held_out": len(held_out)}
            bad = {kind: keeper.judge(*sample) for kind, sample in sets[sides].items()}
            rows.append(row | rate(kept, bad, sets["good"]["good"][2], [each[2] for each in sets[sides].values()]))
        bounds = [f"{side} px: {each.lower:.4f}, loss <= {each.most_lost:.2f}" for side, each in keeper.sizes.items()]
        print(f"{category.name}, {name}, from {count} normals, similarity >= {'; '.join(bounds)}", flush=True)
    return rows


def rate(good: list, bad: dict[str, list], good_mask: torch.Tensor, bad_masks: list[torch.Tensor]) -> dict:
    """Return ROC AUC of each kind, and the shares that are refused and kept."""
    row = {}
    for kind, judgements in bad.items():
        by = "visibility" if kind == "no_op" else "drop"
        sign = 1 if kind == "no_op" else -1
        values = [[sign * getattr(judgement, by) for judgement in which] for which in (good, judgements)]
        row[f"auc_{kind}"] = round(auc(*values), 3)
    areas = [-mask.flatten(1).mean(1).numpy() for mask in (good_mask, torch.cat(bad_masks))]
    row["auc_area"] = round(auc(*areas), 3)
    for kind, judgements in bad.items():
        row[f"refused_{kind}"] = round(float(np.mean([not judgement.kept for judgement in judgements])), 3)
    row["refused_bad"] = round(float(np.mean([row[f"refused_{kind}"] for kind in bad])), 3)
    row["kept_good"] = round(float(np.mean([judgement.kept for judgement in good])), 3)
    return row


def auc(good: list[float], bad: list[float]) -> float:
    """Return the ROC AUC of a score that is to be larger for the good."""
    return float(roc_auc_score([1] * len(good) + [0] * len(bad), [*good, *bad]))


def measure_search(args: argparse.Namespace, *, windows: int = 100_000, queries: int = 200) -> None:
    """Print what embedding and searching cost with an index of 100,000 windows, and how faiss and brute force agree.

    Vectors are mixtures of the real ones of two windows of all categories, with a little noise.
    """
    normals = torch.cat([read(each, limit=20, size=args.size) for each in sorted(args.data.iterdir()) if each.is_dir()])
    keeper = RetrievalFilter(FilterSettings(window_share=0.5)).fit(normals)
    started = time.process_time()
    embed_rows(keeper.embedder, list(torch.rand(40, 3, keeper.embedder.image_size, keeper.embedder.image_size)))
    embedding = (time.process_time() - started) / 40
    rng, real = np.random.default_rng(0), keeper.size(args.size // 2).index.vectors

    def mix(count: int) -> np.ndarray:
        first, second = real[rng.integers(len(real), size=count)], real[rng.integers(len(real), size=count)]
        share = rng.random((count, 1))
        mixed = share * first + (1 - share) * second + rng.normal(0, 0.1 / real.shape[1] ** 0.5, first.shape)
        return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)

    many, asked = mix(windows), mix(queries)
    brute = -np.sort(-(asked.astype(np.float64) @ many.T.astype(np.float64)), axis=1)[:, :5]
    print(f"embedding: {embedding * 1e3:.2f} ms a window ({keeper.settings.embedder}, one thread)")
    for name, exact_up_to in (("default", 2**14), ("exact", windows)):
        started = time.process_time()
        index = WindowIndex(many, np.arange(windows) // 9, exact_up_to=exact_up_to)
        built = time.process_time() - started
        started = time.process_time()
        single = np.concatenate([index.search(query[None], k=5)[0] for query in asked])
        one = (time.process_time() - started) / queries
        started = time.process_time()
        index.search(asked, k=5)
        batch = (time.process_time() - started) / queries
        gap = np.abs(single.mean(1) - brute.mean(1))
        kind = "exact" if index.is_exact else "approximate"
        print(f"{name} index of {windows:,} windows x {real.shape[1]}: {kind}, built in {built:.1f} s")
        print(f"  building: {built / (windows * embedding):.2%} of embedding the windows")
        print(f"  search, one at a time: {one * 1e3:.3f} ms, {one / embedding:.2%} of embedding")
        print(f"  search, {queries} at once: {batch * 1e3:.3f} ms, {batch / embedding:.2%} of embedding")
        print(f"  score against brute force: differs by {gap.max():.1e} at most, {gap.mean():.1e} on average")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--embedders", nargs="+", default=[DEFAULT_EMBEDDER, "bundle"])
    parser.add_argument("--sides", nargs="+", default=["0.1-0.1", "0.15-0.25", "0.3-0.5"], metavar="LOW-HIGH")
    parser.add_argument("--window_share", type=float)
    parser.add_argument("--context", type=float, default=FilterSettings().context)
    parser.add_argument("--reference", type=float, default=FilterSettings().reference, help="0 for no bound")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--normals", type=int, default=100)
    parser.add_argument("--held_out", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--search", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.search:
        measure_search(args)
        return
    categories = args.categories or sorted(each.name for each in args.data.iterdir() if (each / "train/good").is_dir())
    for category in categories:
        rows = measure(args.data / category, args.embedders, args)
        for row in rows:
            print("  " + ", ".join(f"{name} {value}" for name, value in row.items()))
        is_new = not args.out.exists()
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with args.out.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            if is_new:
                writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()

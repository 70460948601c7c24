r"""How real do synthetic defects look? A classifier tells them from real ones. Sheets: docs/draw_sheets.py.

Named before the run. Windows are squares around the middle of a defect, 1.5 times its longer side and at least 32 px,
of images of 256 px, resized to 96 px. A defect is a region of the mask; regions closer than 2 % of the side are one,
and the largest of an image counts. Real ones are from the test images, synthetic ones from samples on training normals
(1000; 300 of the slow ones). Each window is described by channels of the bundled EfficientNet-Lite0 at ``blocks.1,
blocks.2, blocks.4``: how far their mean and their largest value over the middle two thirds exceed those over the border
around, so that it counts how a defect differs from its surroundings, and less where it lies. A logistic regression
(C = 0.01, standardised, classes weighted alike) tells the two apart, over ten folds of images. The AUROC of its
predictions is the figure: .5 is fooled, 1 sees every difference. As windows of different images differ in any case, the
same is done with windows that have no defect, from good test images and from training normals, at the places and of the
sizes of the synthetic ones. That sizes differ from real ones is no part of that, and shows: small windows are blurred.

A first description, by the mean and the largest value over all cells, was dropped after it had been seen: it knew where
on the part defects lie, and told all sets of ball_screw apart, each above .99.

Sets: ``rules``: RuleBasedGenerator(); ``physical``: its physical families; each family; ``words``:
AutoregressiveGenerator(); ``perlin``: anomalib's PerlinAnomalyGenerator. A set of fewer than 30 windows is left out.

    python benchmarks/realism.py --data DATA                                        # the classifier
    python benchmarks/realism.py --data DATA --label before --results OUT.csv       # with another version on PYTHONPATH
    python benchmarks/realism.py --table
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from anomalib_synth.generators.families import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

MASKED = ["magnetic_tile", "pavement_crack", "ball_screw"]
SIZE, WINDOW, SMALLEST, FEWEST = 256, 96, 32, 30
SAMPLES = {"perlin": 1000, "rules": 1000, "words": 300}
RESULTS = Path(__file__).parent / "results" / "realism.csv"


class Window(NamedTuple):
    """A square around a defect: (3, 96, 96) pixels in [0, 1], the image it is from, and (top, left, side)."""

    pixels: torch.Tensor
    image: str
    place: tuple[int, int, int]


def read(path: Path) -> torch.Tensor:
    """Return an image (3, SIZE, SIZE) in [0, 1]."""
    with Image.open(path) as file:
        image = file.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def read_mask(path: Path) -> np.ndarray:
    """Return a mask (SIZE, SIZE) bool; a pixel that a defect touches counts."""
    with Image.open(path) as file:
        mask = Image.fromarray(np.where(np.array(file.convert("L")) > 0, 255.0, 0.0).astype(np.float32))
    return np.array(mask.resize((SIZE, SIZE), Image.Resampling.BOX)) > 0


def find_place(mask: np.ndarray) -> tuple[int, int, int] | None:
    """Return (top, left, side) of the window around the largest region of a mask (SIZE, SIZE); None without one."""
    near = ndimage.maximum_filter(mask, size=1 + 2 * max(1, SIZE // 100))
    regions, count = ndimage.label(near)
    if not count:
        return None
    largest = 1 + int(np.argmax(ndimage.sum_labels(mask, regions, range(1, count + 1))))
    rows, columns = ndimage.find_objects(((regions == largest) & mask).astype(np.uint8))[0]
    side = min(SIZE, max(SMALLEST, round(1.5 * max(rows.stop - rows.start, columns.stop - columns.start))))
    top, left = ((each.start + each.stop - side) // 2 for each in (rows, columns))
    return min(max(top, 0), SIZE - side), min(max(left, 0), SIZE - side), side


def cut(image: torch.Tensor, place: tuple[int, int, int], name: str) -> Window:
    """Return the window at a place of an image."""
    top, left, side = place
    pixels = image[None, :, top : top + side, left : left + side]
    pixels = F.interpolate(pixels, size=(WINDOW, WINDOW), mode="bilinear", antialias=True, align_corners=False)[0]
    return Window(pixels, name, place)


def real_windows(root: Path) -> Iterator[Window]:
    """Yield the windows of the test images that have a mask."""
    for file in sorted(root.glob("ground_truth/*/*_mask.png")):
        path = root / "test" / file.parent.name / f"{file.stem.removesuffix('_mask')}.png"
        place = find_place(read_mask(file))
        if place is not None:
            yield cut(read(path), place, str(path))


def draw(name: str, normals: dict[str, torch.Tensor]) -> Iterator[tuple[Window, str]]:
    """Yield a window of each accepted sample, and its family."""
    names = list(normals)
    if name == "perlin":
        torch.manual_seed(0)
        augment = PerlinAnomalyGenerator(probability=1.0)
        for number in range(SAMPLES[name]):
            file = names[number % len(names)]
            image, mask = augment(normals[file])
            place = find_place(mask.reshape(SIZE, SIZE).numpy() > 0)
            if place is not None:
                yield cut(image.reshape(3, SIZE, SIZE), place, file), name
        return
    generator = RuleBasedGenerator() if name == "rules" else AutoregressiveGenerator()
    generator.prepare(normals.values())
    for number in range(SAMPLES[name]):
        file = names[number % len(names)]
        sample = generator(normals[file][None], seeds=[number])
        place = find_place(sample.mask[0, 0].numpy() > 0) if bool(sample.accepted[0]) else None
        if place is not None:
            yield cut(sample.image[0], place, file), sample.provenance[0].family


class Describer:
    """Describes windows by pooled features of the bundled backbone."""

    def __init__(self) -> None:
        self._backbone = FrozenBackbone("efficientnet_lite0_bundled", ["blocks.1", "blocks.2", "blocks.4"])
        self._backbone.load_weights()

    @torch.inference_mode()
    def __call__(self, windows: list[Window]) -> np.ndarray:
        """Return the features (n, D) of n windows."""
        rows = []
        for start in range(0, len(windows), 16):
            batch = torch.stack([window.pixels for window in windows[start : start + 16]])
            rows.append(torch.cat([self._contrast(maps) for maps in self._backbone(2 * batch - 1)], 1))
        return torch.cat(rows).numpy()

    @staticmethod
    def _contrast(maps: torch.Tensor) -> torch.Tensor:
        """Return mean and largest value in the middle of maps (n, C, h, h), less those of the border, (n, 2 C)."""
        side = maps.shape[-1]
        edge = max(1, round(side / 6))
        middle = torch.zeros(side, side, dtype=torch.bool)
        middle[edge : side - edge, edge : side - edge] = True
        inner, outer = maps[:, :, middle], maps[:, :, ~middle]
        return torch.cat([inner.mean(2) - outer.mean(2), inner.amax(2) - outer.amax(2)], 1)


def tell_apart(first: np.ndarray, second: np.ndarray, images: list[str]) -> float:
    """Return the AUROC with which a logistic regression tells two sets of windows apart, over folds of images."""
    features, labels = np.concatenate([first, second]), np.repeat([0, 1], [len(first), len(second)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
    scores = cross_val_predict(model, features, labels, groups=images, cv=GroupKFold(10), method="decision_function")
    return float(roc_auc_score(labels, scores))


def measure(root: Path, label: str) -> Iterator[dict[str, object]]:
    """Yield a row for each set of samples of a category."""
    describe = Describer()
    normals = {str(path): read(path) for path in sorted((root / "train" / "good").iterdir())}
    good = [read(path) for path in sorted((root / "test" / "good").iterdir())]
    real = list(real_windows(root))
    truth = describe(real)

    def row(name: str, windows: list[Window], features: np.ndarray) -> dict[str, object]:
        images = [window.image for window in (*real, *windows)]
        auroc = round(tell_apart(truth, features, images), 4)
        return {"label": label, "category": root.name, "set": name, "windows": len(windows), "auroc": auroc}

    for name in ("perlin", "rules", "words"):
        drawn = list(draw(name, normals))
        windows, families = [window for window, _ in drawn], np.array([family for _, family in drawn])
        features = describe(windows)
        groups = {name: np.ones(len(windows), dtype=bool)}
        if name == "rules":
            groups["physical"] = np.array([REGISTRY[family].physical for family in families])
            groups |= {str(family): families == family for family in np.unique(families)}
            places = [window.place for window in windows]
            empty = [cut(normals[window.image], window.place, window.image) for window in windows]
            tested = [cut(good[n % len(good)], place, f"good {n % len(good)}") for n, place in enumerate(places[:300])]
            auroc = tell_apart(describe(tested), describe(empty), [each.image for each in (*tested, *empty)])
            yield {
                "label": label, "category": root.name, "set": "no defect", "windows": len(tested) + len(empty),
                "auroc": round(auroc, 4),
            }  # fmt: skip
        for group, chosen in groups.items():
            if chosen.sum() >= FEWEST:
                yield row(group, [each for each, keep in zip(windows, chosen, strict=True) if keep], features[chosen])


def print_table(path: Path) -> None:
    """Print the AUROC of each set by category."""
    if not path.exists():
        print(f"There are no results in {path} yet; measure some with --data.")
        return
    rows = pd.read_csv(path)
    table = rows.pivot_table(index=["label", "set"], columns="category", values="auroc")
    table["mean"] = table.mean(axis=1)
    table["windows"] = rows.groupby(["label", "set"])["windows"].sum()
    print(table.sort_values(["label", "mean"]).round(3).to_string())


def main() -> None:
    """Measure the categories that are not in the results yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one folder per category")
    parser.add_argument("--categories", nargs="+", default=MASKED, help="each with masks of its test images")
    parser.add_argument("--label", default="now", help="name of this version in the results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print the table of the results so far")
    args = parser.parse_args()
    if not args.table:
        if args.data is None:
            parser.error("name the images with --data")
        torch.set_num_threads(1)
        done = pd.read_csv(args.results) if args.results.exists() else pd.DataFrame(columns=["label", "category"])
        for category in track(args.categories, "Categories", console=Console(stderr=True)):
            if not ((done["label"] == args.label) & (done["category"] == category)).any():
                rows = pd.DataFrame(list(measure(args.data / category, args.label)))
                rows.to_csv(args.results, mode="a", header=not args.results.exists(), index=False)
    print_table(args.results)


if __name__ == "__main__":
    main()

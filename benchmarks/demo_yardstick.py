"""How hard are the demo parts? A plain nearest-neighbour detector, and cues that must not give the answer away.

    python benchmarks/demo_yardstick.py --root datasets/DemoParts

Each row: image and pixel AUROC of a memory bank of frozen EfficientNet-Lite0 patches (``blocks.2`` and ``blocks.4``,
image score = largest distance of a patch to its nearest neighbour among all training patches), and how well mean,
standard deviation and PNG size of an image separate the classes (0.5 = not at all; both directions count). The row
``all`` has one memory for the four kinds.
"""

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from anomalib_synth.demo import DemoParts
from anomalib_synth.demo.parts import PART_KINDS
from anomalib_synth.models.bundled_backbone import BACKBONE_NAME

MAX_MEMORY = 40_000
CUES = ("mean", "deviation", "file size")


class PatchFeatures:
    """Frozen patch features: (B, 3, H, W) images in [0, 1] to (B, H/8, W/8, C)."""

    def __init__(self) -> None:
        self.net = timm.create_model(BACKBONE_NAME, pretrained=True, features_only=True, out_indices=(2, 3)).eval()

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return L2-free concatenated features."""
        mean, std = (torch.tensor(self.net.default_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        low, high = self.net((images - mean) / std)
        high = torch.nn.functional.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([low, high], dim=1).permute(0, 2, 3, 1)


def read(paths: list[str]) -> torch.Tensor:
    """Return images (B, 3, H, W) in [0, 1]."""
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def features_of(paths: list[str], extract: PatchFeatures) -> torch.Tensor:
    """Return features of images, (N, h, w, C), in small batches."""
    return torch.cat([extract(read(paths[at : at + 8])) for at in range(0, len(paths), 8)])


def nearest(queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Return the distance of every patch to its nearest neighbour, (N, h, w)."""
    squares = (memory**2).sum(1)
    maps = []
    for query in queries:
        flat = query.flatten(0, 1)
        best = (squares - 2 * flat @ memory.T).min(dim=1).values + (flat**2).sum(1)
        maps.append(best.clamp(min=0).sqrt().view(query.shape[:2]))
    return torch.stack(maps)


def subsample(memory: torch.Tensor, limit: int) -> torch.Tensor:
    """Return at most ``limit`` rows, chosen by a fixed seed."""
    order = torch.randperm(len(memory), generator=torch.Generator().manual_seed(0))
    return memory[order[:limit]]


def detector(train: torch.Tensor, test: torch.Tensor, masks: np.ndarray) -> tuple[float, float]:
    """Return image and pixel AUROC of the nearest-neighbour yardstick."""
    maps = nearest(test, subsample(train.flatten(0, 2), MAX_MEMORY))
    full = torch.nn.functional.interpolate(maps[:, None], size=masks.shape[1:], mode="bilinear")[:, 0].numpy()
    labels = masks.any(axis=(1, 2))
    image = roc_auc_score(labels, maps.flatten(1).max(dim=1).values.numpy())
    return image, roc_auc_score(masks[:, ::2, ::2].ravel(), full[:, ::2, ::2].ravel())


def cue_values(paths: list[str]) -> np.ndarray:
    """Return mean, standard deviation and file size of images, (N, 3)."""
    images = read(paths)
    sizes = [Path(path).stat().st_size for path in paths]
    return np.stack([images.mean(dim=(1, 2, 3)), images.std(dim=(1, 2, 3)), np.array(sizes)], axis=1)


def cue_scores(values: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return the AUROC of each cue, in the direction that separates better."""
    scores = [roc_auc_score(labels, column) for column in values.T]
    return [max(score, 1 - score) for score in scores]


def load(root: Path, kind: str, seed: int) -> tuple[list[str], list[str], np.ndarray]:
    """Return training paths, test paths and test masks (N, H, W) of one category."""
    data = DemoParts(root=root, category=kind, seed=seed, val_split_mode="none")
    data.prepare_data()
    data.setup()
    test = data.test_data.samples
    blank = np.zeros((data.plans[0].image_size,) * 2, dtype=bool)
    masks = [np.asarray(Image.open(path)) > 0 if isinstance(path, str) else blank for path in test.mask_path]
    return list(data.train_data.samples.image_path), list(test.image_path), np.stack(masks)


def main() -> None:
    """Render, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("datasets/DemoParts"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    extract = PatchFeatures()
    rows, pool = [], []
    for kind in PART_KINDS:
        train_paths, test_paths, masks = load(options.root, kind, options.seed)
        train, test = features_of(train_paths, extract), features_of(test_paths, extract)
        cues = cue_values(test_paths)
        rows.append((kind, *detector(train, test, masks), *cue_scores(cues, masks.any(axis=(1, 2))), masks))
        pool.append((train, test, masks, cues))
    train, test, masks, cues = (np.concatenate(items) for items in zip(*pool, strict=True))
    mean = np.mean([row[1:6] for row in rows], axis=0)
    rows.append(("mean", *mean, masks))
    pooled = detector(torch.from_numpy(train), torch.from_numpy(test), masks)
    rows.append(("all", *pooled, *cue_scores(cues, masks.any(axis=(1, 2))), masks))
    table = Table(title=f"DemoParts, seed {options.seed}")
    for title in ("category", "image AUROC", "pixel AUROC", *CUES, "defect area %"):
        table.add_column(title)
    for name, *values, area in rows:
        share = 100 * area[area.any(axis=(1, 2))].mean(axis=(1, 2))
        table.add_row(name, *(f"{value:.3f}" for value in values), f"{share.min():.2f}-{share.max():.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

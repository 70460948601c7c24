"""Small image sets and the datamodules over them that the tests of this room share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
from anomalib.data import AnomalibDataModule, Folder

from anomalib_synth.data import SyntheticDataModule
from anomalib_synth.generators import RuleBasedGenerator

SIDE = 64


def write_images(folder: Path, count: int, *, first: int = 0, side: int = SIDE) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        rng = np.random.default_rng(index)
        levels = rng.normal(120, 5, (side, side, 3)) + np.linspace(0, 30, side)[:, None, None]
        PIL.Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:03d}.png")


def write_mvtec(root: Path, *, train: int = 10, good: int = 4, broken: int = 3) -> None:
    write_images(root / "part" / "train" / "good", train)
    write_images(root / "part" / "test" / "good", good, first=100)
    write_images(root / "part" / "test" / "broken", broken, first=200)
    (root / "part" / "ground_truth" / "broken").mkdir(parents=True)
    for index in range(200, 200 + broken):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[20:30, 20:30] = 255
        PIL.Image.fromarray(mask).save(root / "part" / "ground_truth" / "broken" / f"{index:03d}_mask.png")


def folder(root: Path, **kwargs) -> Folder:
    return Folder(
        **{"name": "parts", "root": root, "normal_dir": "good", "num_workers": 0, "train_batch_size": 4, **kwargs}
    )


def generator(**kwargs) -> RuleBasedGenerator:
    return RuleBasedGenerator(**{"families": ["scratch", "stain", "noise"], "strength": (0.7, 1.0), **kwargs})


def wrap(base: AnomalibDataModule, root: Path, **kwargs) -> SyntheticDataModule:
    datamodule = SyntheticDataModule(base, kwargs.pop("generator", generator()), root=root / "kept", **kwargs)
    datamodule.setup()
    return datamodule


def tree_bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def sources(dataset) -> set[str]:
    return set(dataset.samples["source_path"])

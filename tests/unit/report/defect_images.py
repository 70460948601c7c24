"""A few images with a defect whose place is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

BOX = [[50, 30], [110, 80]]  # around the defect
SPOT = (slice(45, 65), slice(65, 95))


def draw_part(seed: int = 0, *, width: int = 160, height: int = 120) -> np.ndarray:
    """A light, noisy surface with a dark rectangle on it."""
    pixels = np.random.default_rng(seed).normal(170, 4, (height, width, 3)).clip(0, 255).astype(np.uint8)
    pixels[SPOT] -= 90
    return pixels


def make_parts(folder: Path, names: tuple[str, ...] = ("dent/a.png", "dent/b.png", "scratch/c.png")) -> Path:
    """Save such images under names in a folder, and return it."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_part(seed)).save(folder / name)
    return folder

"""Paste the few real defects you have onto good images.

python examples/few_real_defects.py --normals parts/train/good --defects parts/test --out pasted.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from anomalib_synth.callbacks.sample_grid import draw_sample_grid
from anomalib_synth.data.normals import read_folder
from anomalib_synth.generators import RealDefectGenerator


def main() -> None:
    """Paste a defect onto each of eight images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normals", type=Path, required=True, help="folder with good images")
    parser.add_argument("--defects", type=Path, required=True, help="folder with a folder for each type of defect")
    parser.add_argument("--masks", type=Path, help="folder with their masks, by default `ground_truth` beside it")
    parser.add_argument("--out", type=Path, default=Path("pasted.png"))
    args = parser.parse_args()

    images = torch.stack(list(read_folder(args.normals, image_size=256, limit=8)))
    sample = RealDefectGenerator(args.defects, args.masks).prepare(images)(images, seeds=range(len(images)))
    for caption, reason in zip(sample.caption, sample.reason, strict=True):
        print(caption or f"rejected: {reason}")
    Image.fromarray(draw_sample_grid(sample, list(range(len(sample))))).save(args.out)


if __name__ == "__main__":
    main()

"""Without any network: train local models on your good images, and draw what you ask for.

    python examples/fit_offline.py --normals parts/good --out offline

Takes minutes; `--steps` makes it shorter and the samples worse. Nothing but the folder is read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from anomalib_synth.callbacks.sample_grid import draw_sample_grid
from anomalib_synth.commands.fit import fit
from anomalib_synth.data.normals import read_folder
from anomalib_synth.fitting.settings import FitSettings
from anomalib_synth.generators import AutoregressiveGenerator


def main() -> None:
    """Fit a bundle and draw eight samples with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normals", type=Path, required=True, help="folder with good images")
    parser.add_argument("--steps", type=int, default=1500, help="training steps of each of the three models")
    parser.add_argument("--prompts", nargs="+", default=["a long bright scratch", "a dark stain at the top left"])
    parser.add_argument("--out", type=Path, default=Path("offline"))
    args = parser.parse_args()

    settings = FitSettings(autoencoder_steps=args.steps, token_steps=args.steps, dual_steps=args.steps)
    fit(args.normals, out=args.out / "bundle", settings=settings)
    images = torch.stack(list(read_folder(args.normals, image_size=256, limit=8)))
    generator = AutoregressiveGenerator(args.prompts, bundle=args.out / "bundle").prepare(images)
    sample = generator(images, seeds=range(len(images)))
    for caption, reason in zip(sample.caption, sample.reason, strict=True):
        print(caption or f"rejected: {reason}")
    Image.fromarray(draw_sample_grid(sample, list(range(len(sample))))).save(args.out / "samples.png")


if __name__ == "__main__":
    main()

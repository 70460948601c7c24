"""Draw defects onto your own images from Python.

python examples/draw_defects.py --normals FOLDER --out defects.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from anomalib_synth.callbacks.sample_grid import draw_sample_grid
from anomalib_synth.data.normals import read_folder
from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator


def main() -> None:
    """Prepare a generator with the images, draw, and look at what a sample carries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normals", type=Path, required=True, help="folder with good images")
    parser.add_argument("--out", type=Path, default=Path("defects.png"))
    args = parser.parse_args()

    images = torch.stack(list(read_folder(args.normals, image_size=256, limit=8)))
    generator = MixtureGenerator(
        [
            RuleBasedGenerator(["scratch", "dent", "stain"]),
            RuleBasedGenerator({"nsa": 2, "perlin_texture": 1}, strength=(0.5, 1.0)),
        ],
        weights=[3, 1],
    )
    generator.prepare(images)
    sample = generator(images, seeds=range(len(images)))
    for row in range(len(sample)):
        print(sample.caption[row] or f"rejected: {sample.reason[row]}", f"quality {sample.quality[row]:.2f}", sep=", ")

    again = generator(images[:1], seeds=[0])  # the same image and seed: the same defect, bit for bit
    print("replayed exactly:", torch.equal(again.image[0], sample.image[0]))
    Image.fromarray(draw_sample_grid(sample, list(range(len(sample))))).save(args.out)
    print("wrote", args.out)


if __name__ == "__main__":
    main()

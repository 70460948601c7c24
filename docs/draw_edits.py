"""Draw docs/edits.png: edits from words on the package's own demo parts, by the models that come with the package.

python docs/draw_edits.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from PIL import Image

from anomalib_synth.callbacks.sample_grid import draw_sample_grid
from anomalib_synth.data import DemoParts
from anomalib_synth.data.normals import read_folder
from anomalib_synth.generators import AutoregressiveGenerator
from anomalib_synth.sample import AnomalySample

KINDS = ["brushed_metal", "printed_cap", "woven_fabric", "circuit_board"]
PROMPTS = [
    "a clean dark hole, high contrast",
    "a large round dent, high contrast",
    "an irregular dark oily stain, high contrast",
    "a long bright scratch, high contrast",
    "a dark burn with a brown halo, high contrast",
    "a thick curled black fibre, high contrast",
]


def main() -> None:
    """Render a few parts of each kind, and draw every prompt on two kinds."""
    samples = []
    with tempfile.TemporaryDirectory() as root:
        for number, kind in enumerate(KINDS):
            DemoParts(root=root, category=kind, num_train=6, num_test_good=1, num_test_defect=1).prepare_data()
            images = torch.stack(list(read_folder(Path(root) / kind / "train", image_size=256, limit=6)))
            generator = AutoregressiveGenerator(strength=(0.9, 1.0), size=(0.12, 0.25)).prepare(images)
            prompts = PROMPTS[number % 2 :: 2]
            rows = images[: len(prompts)]
            samples.append(generator(rows, seeds=range(10 * number, 10 * number + len(prompts)), prompts=prompts))
    merged = AnomalySample.concatenate(samples)
    out = Path(__file__).parent / "edits.png"
    Image.fromarray(draw_sample_grid(merged, list(range(len(merged))))).quantize(256).save(out, optimize=True)
    print(f"{int(merged.accepted.sum())} of {len(merged)} accepted; wrote {out}")


if __name__ == "__main__":
    main()

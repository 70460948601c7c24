"""Draw docs/edits.png: edits from words on the package's own demo parts, by the models that come with the package.

python docs/draw_edits.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from before_and_after import TILE, save_pairs

from anomalib_synth.data import DemoParts
from anomalib_synth.data.normals import read_folder
from anomalib_synth.generators import AutoregressiveGenerator
from anomalib_synth.report.preview_samples import describe

# Prompt, then the part that shows it well, which of its images, and the seed of the draw.
EDITS = [
    ("a clean dark hole, high contrast", "printed_cap", 0, 110),
    ("a clean dark hole, high contrast", "woven_fabric", 0, 110),
    ("a large round dent, high contrast", "brushed_metal", 1, 111),
    ("a large round dent, high contrast", "printed_cap", 1, 101),
    ("an irregular dark oily stain, high contrast", "brushed_metal", 2, 102),
    ("an irregular dark oily stain, high contrast", "printed_cap", 2, 102),
    ("a long wide bright bundle of scratches, high contrast", "brushed_metal", 1, 111),
    ("a long wide bright scratch, high contrast", "circuit_board", 0, 100),
    ("a dark burn with a brown halo, high contrast", "brushed_metal", 4, 104),
    ("a dark burn with a brown halo, high contrast", "woven_fabric", 4, 104),
    ("a thick curled black fibre, high contrast", "brushed_metal", 3, 103),
    ("a thick curled black fibre, high contrast", "printed_cap", 3, 103),
]


def main() -> None:
    """Render a few parts of each kind, and draw every prompt on two of them."""
    generators, images = {}, {}
    with tempfile.TemporaryDirectory() as root:
        for kind in sorted({kind for _, kind, _, _ in EDITS}):
            DemoParts(root=root, category=kind, num_train=6, num_test_good=1, num_test_defect=1).prepare_data()
            images[kind] = torch.stack(list(read_folder(Path(root) / kind / "train", image_size=256, limit=6)))
            generator = AutoregressiveGenerator(strength=(1.0, 1.0), size=(0.12, 0.25))
            generators[kind] = generator.prepare(images[kind])
    drawings = []
    for prompt, kind, row, seed in EDITS:
        sample = generators[kind](images[kind][row : row + 1], seeds=[seed], prompts=[prompt])
        drawings.append(describe(sample, 0, "edit", TILE))
    out = Path(__file__).parent / "edits.png"
    save_pairs(drawings, out, titles=[drawing.family for drawing in drawings])
    print(f"{len(drawings)} edits; wrote {out}")


if __name__ == "__main__":
    main()

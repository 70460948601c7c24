"""Draw docs/families.png: one sample of each family on the package's own demo parts, before and after.

python docs/draw_families.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from before_and_after import TILE, save_pairs

from anomalib_synth.data import DemoParts
from anomalib_synth.data.normals import read_folder
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.report.preview_samples import describe

KINDS = ["brushed_metal", "printed_cap", "woven_fabric", "circuit_board"]
# The part that shows a family well, and the seed of the draw.
CHOSEN = {
    "noise": ("printed_cap", 100),
    "cutpaste": ("brushed_metal", 100),
    "cutpaste_scar": ("printed_cap", 101),
    "cutout": ("circuit_board", 100),
    "fpi": ("printed_cap", 100),
    "nsa": ("printed_cap", 100),
    "perlin_texture": ("woven_fabric", 100),
    "fractal": ("circuit_board", 100),
    "destseg": ("brushed_metal", 100),
    "memseg": ("circuit_board", 100),
    "realnet": ("woven_fabric", 100),
    "scratch": ("circuit_board", 100),
    "crack": ("printed_cap", 100),
    "fibre": ("brushed_metal", 101),
    "thread_pull": ("woven_fabric", 100),
    "dent": ("brushed_metal", 101),
    "stain": ("brushed_metal", 101),
    "corrosion": ("brushed_metal", 100),
    "burn": ("printed_cap", 100),
    "bubble": ("brushed_metal", 101),
    "hole": ("woven_fabric", 100),
    "chip": ("printed_cap", 100),
    "misprint": ("printed_cap", 100),
    "deformation": ("woven_fabric", 101),
    "uneven": ("brushed_metal", 100),
    "wear": ("woven_fabric", 100),
    "streaks": ("brushed_metal", 100),
    "fray": ("woven_fabric", 100),
}


def main() -> None:
    """Render a few parts of each kind, and draw each family on one of them."""
    generators, images = {}, {}
    with tempfile.TemporaryDirectory() as root:
        for kind in KINDS:
            DemoParts(root=root, category=kind, num_train=6, num_test_good=1, num_test_defect=1).prepare_data()
            images[kind] = torch.stack(list(read_folder(Path(root) / kind / "train", image_size=512, limit=6)))
            generators[kind] = RuleBasedGenerator(strength=(0.85, 1.0), size=(0.14, 0.25)).prepare(images[kind])
    families, drawings = RuleBasedGenerator.available_families(), []
    for index, family in enumerate(families):
        kind, seed = CHOSEN[family]
        row = images[kind][index % 6 : index % 6 + 1]
        drawings.append(describe(generators[kind].only(family)(row, seeds=[seed]), 0, family, TILE))
    out = Path(__file__).parent / "families.png"
    save_pairs(drawings, out, titles=families)
    print(f"{len(drawings)} families; wrote {out}")


if __name__ == "__main__":
    main()

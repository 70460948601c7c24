"""Draw docs/families.png: one sample of each family on the package's own demo parts.

python docs/draw_families.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from PIL import Image

from anomalib_synth.callbacks.sample_grid import draw_sample_grid
from anomalib_synth.data import DemoParts
from anomalib_synth.data.normals import read_folder
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.sample import AnomalySample

KINDS = ["brushed_metal", "printed_cap", "woven_fabric", "circuit_board"]


def main() -> None:
    """Render a few parts of each kind, and draw the families on them in turn."""
    generators, images = {}, {}
    with tempfile.TemporaryDirectory() as root:
        for kind in KINDS:
            DemoParts(root=root, category=kind, num_train=6, num_test_good=1, num_test_defect=1).prepare_data()
            images[kind] = torch.stack(list(read_folder(Path(root) / kind / "train", image_size=256, limit=6)))
            generators[kind] = RuleBasedGenerator(strength=(0.7, 1.0), size=(0.1, 0.25)).prepare(images[kind])
    samples = []
    for index, family in enumerate(RuleBasedGenerator.available_families()):
        kind = KINDS[index % len(KINDS)]
        row = images[kind][index % 6 : index % 6 + 1]
        samples.append(generators[kind].only(family)(row, seeds=[index]))
    merged = AnomalySample.concatenate(samples)
    out = Path(__file__).parent / "families.png"
    Image.fromarray(draw_sample_grid(merged, list(range(len(merged))))).save(out, optimize=True)
    print(f"{int(merged.accepted.sum())} of {len(merged)} accepted; wrote {out}")


if __name__ == "__main__":
    main()

"""Scores images with a torch export in a process of its own: `python -m anomalib_synth.building.torch_scores FILE NPZ`.

The export is a pickle. A build unpickles only the file that it has just written, to check that it can be read.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch


def score(export: Path, images: Path) -> list[float]:
    """Return the normalised score of each image: 0.5 is the threshold.

    Args:
        export: The file.
        images: NPZ file of batches (1, 3, H, W) float32 in [0, 1].
    """
    with contextlib.redirect_stdout(io.StringIO()):
        model = torch.load(export, map_location="cpu", weights_only=False)["model"].eval()  # just written by the build
    with np.load(images) as arrays, torch.inference_mode():
        batches = [torch.from_numpy(arrays[name]) for name in arrays.files]
        return [float(model(batch).pred_score.flatten()[0]) for batch in batches]


if __name__ == "__main__":
    print(json.dumps(score(Path(sys.argv[1]), Path(sys.argv[2]))))

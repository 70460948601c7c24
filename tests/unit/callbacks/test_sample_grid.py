"""The picture of a training run's samples."""

from __future__ import annotations

import numpy as np
import torch

from anomalib_synth.callbacks.sample_grid import draw_sample_grid
from anomalib_synth.sample import AnomalySample


def test_reason_is_written_when_a_draw_failed() -> None:
    source = torch.full((1, 3, 40, 40), 0.5)
    short, long = (draw_sample_grid(AnomalySample.unchanged(source, [None], text), [0]) for text in ("a", "too faint"))
    assert short.shape == long.shape
    assert not np.array_equal(short, long)

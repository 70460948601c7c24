"""The learning rate of the heads is the one cycle of torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anomalib_synth.detectors.discriminative_padim.schedule import OneCycle


def test_one_cycle_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=101)
    ours = OneCycle(100)
    for step in range(100):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], abs=0.03)
        optimiser.step()
        theirs.step()

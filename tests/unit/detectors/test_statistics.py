"""Running statistics of channels."""

from __future__ import annotations

import torch

from anomalib_synth.detectors.statistics import ChannelStatistics


def test_deviation_is_one_when_a_channel_never_changes() -> None:
    statistics = ChannelStatistics(2)
    statistics.update(torch.full((2, 2, 4, 4), 7.0))
    assert statistics.mean_and_deviation()[1].tolist() == [1.0, 1.0]

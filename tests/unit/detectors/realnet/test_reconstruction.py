"""Reconstruction networks keep the size, start at zero, and learn."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.detectors.realnet.reconstruction import ReconstructionUNet


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 1)])
def test_reconstruction_keeps_the_size_and_starts_at_zero(size) -> None:
    network = ReconstructionUNet(12, width=6, blocks=2)
    x = random(2, 12, *size)
    output = network(x)
    assert output.shape == x.shape
    assert not bool(output.any())
    loss = (output - x).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())


def test_reconstruction_learns() -> None:
    torch.manual_seed(0)
    network = ReconstructionUNet(8, width=8, blocks=1)
    x = random(2, 8, 8, 8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        loss = (network(x) - x).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3 * float(x.square().mean())

"""The network as a whole: what is done to its features."""

from __future__ import annotations

import numpy as np
import torch

from anomalib_synth.detectors.realnet.torch_model import RealNetModel


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_features_are_averaged_over_their_neighbours_and_the_border_over_fewer() -> None:
    class Fixed(torch.nn.Module):
        channels, strides = (3,), (4,)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [images]

    model = RealNetModel.build(
        Fixed(), feature_dims=[2], reconstruction_width=1.0, reconstruction_blocks=1, residual_dims=(1, 1),
        discriminator_width=8, discriminator_blocks=1,
    )  # fmt: skip
    images = random(2, 3, 4, 5)
    (found,) = model.extract(images)
    values, expected = images.numpy(), np.zeros((2, 3, 4, 5), np.float32)
    for row in range(4):
        for column in range(5):
            near = values[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            expected[:, :, row, column] = near.mean((2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)

"""A backbone that a test can compute by hand."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Pyramid(nn.Module):
    """A backbone of three maps at strides 4, 8 and 16, without weights."""

    channels = [3, 3, 3]  # noqa: RUF012
    strides = [4, 8, 16]  # noqa: RUF012

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [F.avg_pool2d(images, stride) for stride in self.strides]

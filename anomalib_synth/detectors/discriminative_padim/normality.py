r"""Part 2, normality: one shrunk Gaussian per grid position, and the distance of an image from it."""

from __future__ import annotations

import torch
from torch import nn


class PositionGaussian(nn.Module):
    r"""The Gaussian of normal features at each grid position, fitted in closed form.

    At position p the features of the normals have mean :math:`m_p` and covariance :math:`S_p`. PaDiM (arXiv 2011.08785)
    inverts :math:`S_p` after a random choice of channels and adds :math:`0.01 I`. We keep all channels and shrink:

    .. math:: \Sigma_p = \tfrac12 S_p + \tfrac12 \bar S + 0.01 I, \qquad w = L_p^{-1} (x - m_p), \qquad N = |w|,

    where :math:`\bar S` is the mean of the covariances over all positions and :math:`\Sigma_p = L_p L_p^\top`; the
    numbers are the defaults of ``shrinkage`` and ``ridge``.

    Args:
        positions: Number of cells of the grid.
        channels: Number of channels C.
        shrinkage: Weight of the mean covariance, in [0, 1].
        ridge: Value added to the diagonal, > 0; the features have deviation 1.

    Shape:
        (B, C, h, w) standardised features → (B, C, h, w) whitened residuals
    """

    def __init__(self, positions: int, channels: int, *, shrinkage: float = 0.5, ridge: float = 0.01) -> None:
        super().__init__()
        self.shrinkage = shrinkage
        self.ridge = ridge
        self.register_buffer("mean", torch.zeros(positions, channels))
        self.register_buffer("whitening", torch.zeros(positions, channels, channels))

    @torch.no_grad()
    def fit(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        """Set the Gaussians from (P, C) means and (P, C, C) covariances; the covariances are overwritten."""
        pooled = covariance.mean(0)
        covariance.mul_(1 - self.shrinkage).add_(pooled, alpha=self.shrinkage)
        covariance.diagonal(dim1=-2, dim2=-1).add_(self.ridge)
        identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        for matrix in covariance:  # one by one and in place: all at once would take three times the memory
            matrix.copy_(torch.linalg.solve_triangular(torch.linalg.cholesky(matrix), identity, upper=False))
        self.whitening = covariance
        self.mean = mean

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the whitened residuals (B, C, h, w) of standardised features."""
        cells = features.flatten(2).permute(2, 1, 0)  # (P, C, B)
        whitened = torch.bmm(self.whitening, cells - self.mean[:, :, None])
        return whitened.permute(2, 1, 0).reshape(features.shape)


class PositionMoments:
    """Accumulates mean and covariance at each position, in float32, relative to the first image."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, features: torch.Tensor) -> None:
        """Add (B, C, h, w) features."""
        cells = features.flatten(2).permute(2, 1, 0)  # (P, C, B)
        if not self.count:
            self.pivot = cells[:, :, :1].clone()
            self.sums = torch.zeros_like(self.pivot)
            self.products = cells.new_zeros(*cells.shape[:2], cells.shape[1])
        self.count += features.shape[0]
        cells = cells - self.pivot
        self.sums += cells.sum(2, keepdim=True)
        self.products.baddbmm_(cells, cells.transpose(1, 2))

    def standardised(self, mean: torch.Tensor, deviation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the moments of ``(features - mean) / deviation``; this overwrites the sums, so call it once.

        Args:
            mean: (C,) mean of each channel.
            deviation: (C,) deviation of each channel, > 0.

        Returns:
            (P, C) means and (P, C, C) covariances, with n - 1 in the denominator.

        """
        centre = self.sums / self.count
        self.products.baddbmm_(centre, self.sums.transpose(1, 2), alpha=-1).div_(self.count - 1)
        self.products.div_(deviation[:, None] * deviation[None])
        return ((centre + self.pivot)[:, :, 0] - mean) / deviation, self.products


def distance(whitened: torch.Tensor) -> torch.Tensor:
    """Return ``N = |w|`` (B, 1, h, w) of whitened residuals (B, C, h, w)."""
    return whitened.square().sum(1, keepdim=True).sqrt()

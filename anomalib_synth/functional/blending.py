"""Blending a patch into an image."""

from __future__ import annotations

from functools import lru_cache

import torch


def blend_poisson(source: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    """Clone a patch into an image seamlessly (Pérez et al., "Poisson Image Editing", SIGGRAPH 2003, eq. 4).

    Solves ``laplace(f) = laplace(patch)`` on the interior of a rectangle, with ``f = source`` on its outermost ring of
    pixels, for the five-point Laplacian. On a rectangle the sine transform diagonalises that operator, so the solution
    is direct: four small matrix products per channel, not an iteration. Images are solved one by one in float64 and
    rounded to multiples of 2**-20: a batched product may sum in another order for another batch size.

    Args:
        source: (N, C, h, w) what is around the patch, h, w >= 3.
        patch: (N, C, h, w) what gives the gradients.

    Returns:
        (N, C, h, w), the source on the outermost ring. Values may leave [0, 1].

    Raises:
        ValueError: If the shapes differ or a side is under 3 pixels.
    """
    if source.shape != patch.shape or min(source.shape[-2:]) < 3:
        msg = f"`source` and `patch` must have one shape, sides >= 3, got {tuple(source.shape)}, {tuple(patch.shape)}."
        raise ValueError(msg)
    return torch.stack(
        [patch_row + _harmonic(mismatch) for patch_row, mismatch in zip(patch, source - patch, strict=True)]
    )


def _harmonic(boundary: torch.Tensor) -> torch.Tensor:
    """Extend the outermost ring of a (C, h, w) tensor harmonically into the interior."""
    values = boundary.double()
    c, h, w = values.shape
    load = values.new_zeros(c, h - 2, w - 2)
    load[:, 0, :] += values[:, 0, 1:-1]
    load[:, -1, :] += values[:, -1, 1:-1]
    load[:, :, 0] += values[:, 1:-1, 0]
    load[:, :, -1] += values[:, 1:-1, -1]
    sine_y, eigen_y = _sine_basis(h - 2)
    sine_x, eigen_x = _sine_basis(w - 2)
    sine_y, sine_x = sine_y.to(values.device), sine_x.to(values.device)
    eigen = (eigen_y[:, None] + eigen_x[None, :]).to(values.device)
    inner = sine_y @ ((sine_y @ load @ sine_x) / eigen) @ sine_x
    result = boundary.clone()
    result[:, 1:-1, 1:-1] = ((inner * 2.0**20).round() * 2.0**-20).to(boundary.dtype)
    return result


@lru_cache(maxsize=512)
def _sine_basis(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the orthonormal sine basis (n, n) of the second difference, and its eigenvalues (n,), in float64."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    basis = (torch.outer(k, k) * (torch.pi / (n + 1))).sin() * (2.0 / (n + 1)) ** 0.5
    return basis, 2 - 2 * (k * (torch.pi / (n + 1))).cos()

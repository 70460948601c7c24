"""Blends a patch into an image."""

from __future__ import annotations

from functools import lru_cache

import torch
from scipy.fft import dctn, idctn


def blend_poisson(source: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    """Clone a patch into an image seamlessly (Pérez et al., "Poisson Image Editing", SIGGRAPH 2003, eq. 4).

    Solves ``laplace(f) = laplace(patch)`` on the interior of a rectangle, with ``f = source`` on its outermost ring of
    pixels, for the five-point Laplacian. On a rectangle, the sine transform diagonalises that operator, so four small
    matrix products per channel give the solution without iterating. Images are solved one by one in float64 and rounded
    to multiples of 2**-20, because a batched product may sum in an order that depends on the batch size.

    Args:
        source: (N, C, h, w) the image around the patch; h, w >= 3.
        patch: (N, C, h, w) the patch, which supplies the gradients.

    Returns:
        (N, C, h, w), equal to the source on the outermost ring. Values may leave [0, 1].

    Raises:
        ValueError: If the shapes differ or a side is under 3 pixels.
    """
    if source.shape != patch.shape or min(source.shape[-2:]) < 3:
        msg = f"`source` and `patch` must have one shape, sides >= 3, got {tuple(source.shape)}, {tuple(patch.shape)}."
        raise ValueError(msg)
    return torch.stack(
        [patch_row + _harmonic(mismatch) for patch_row, mismatch in zip(patch, source - patch, strict=True)]
    )


def clone_gradients(
    source: torch.Tensor, patch: torch.Tensor, region: torch.Tensor, *, keep_stronger: bool = False
) -> torch.Tensor:
    """Clone the content of a patch in a region of any shape into an image (Pérez et al. 2003, eq. 3 and 12).

    In the least-squares sense, differences between neighbouring pixels are the patch's if one of the two lies in the
    region, and the source's elsewhere. Unlike in the paper, no pixel on the region's boundary is fixed, because a fixed
    pixel would spread its noise into the region; instead, the result keeps the source's mean outside the region. So a
    region may reach the border of the window. The cosine transform diagonalises the system, so the solution is direct.
    Images are solved one by one in float64, on the CPU, and rounded to multiples of 2**-20.

    Args:
        source: (N, C, h, w) the image around the region.
        patch: (N, C, h, w) the content for the region.
        region: (N, 1, h, w) bool.
        keep_stronger: Keep the source's difference where it is the larger one, so that the source's texture shows
            through.

    Returns:
        (N, C, h, w), in the source's type, close to the source outside the region. Values may leave [0, 1].

    Raises:
        ValueError: If the shapes differ.
    """
    if source.shape != patch.shape or region.shape != (len(source), 1, *source.shape[-2:]):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (source, patch, region))
        msg = f"`source` and `patch` must have one shape, `region` theirs with one channel, got {shapes}."
        raise ValueError(msg)
    rows = zip(source, patch, region, strict=True)
    return torch.stack([row + _mismatch(row, other, inside, keep_stronger) for row, other, inside in rows])


def _mismatch(source: torch.Tensor, patch: torch.Tensor, region: torch.Tensor, keep_stronger: bool) -> torch.Tensor:
    """Return the field to add to the source (C, h, w); its differences are those of patch minus source."""
    first, second = source.double().cpu(), patch.double().cpu()
    inside = region.cpu()
    load = torch.zeros_like(first)
    for dim, size in ((1, first.shape[1] - 1), (2, first.shape[2] - 1)):
        own, other = first.diff(dim=dim), second.diff(dim=dim)
        taken = inside.narrow(dim, 0, size) | inside.narrow(dim, 1, size)
        if keep_stronger:
            taken = taken & (other.abs().sum(0) >= own.abs().sum(0))
        step = (other - own) * taken
        load.narrow(dim, 1, size).add_(step)
        load.narrow(dim, 0, size).sub_(step)
    eigen = _path_eigenvalues(load.shape[1])[:, None] + _path_eigenvalues(load.shape[2])
    eigen[0, 0] = 1.0  # a constant changes no difference: the mean is set below
    spectrum = dctn(load.numpy(), axes=(1, 2), norm="ortho") / eigen.numpy()
    spectrum[:, 0, 0] = 0.0
    field = (torch.from_numpy(idctn(spectrum, axes=(1, 2), norm="ortho")) * 2.0**20).round()
    outside = ~inside.expand_as(field)
    if bool(outside.any()):
        field -= ((field * outside).sum((1, 2), keepdim=True) / outside[0].sum()).round()  # integers: sums are exact
    return (field * 2.0**-20).to(source)


def _path_eigenvalues(n: int) -> torch.Tensor:
    """Return the eigenvalues (n,) of the second difference with free ends, in float64."""
    return 2 - 2 * (torch.arange(n, dtype=torch.float64) * (torch.pi / n)).cos()


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

"""Poisson blending against a dense solve of the same linear system."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.functional.blending import blend_poisson


def dense_solution(source: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """Solve laplace(f) = laplace(patch) inside, f = source on the ring, one equation a pixel."""
    h, w = source.shape
    matrix, right = np.zeros((h * w, h * w)), np.zeros(h * w)
    for i in range(h):
        for j in range(w):
            k = i * w + j
            matrix[k, k] = 1.0
            right[k] = source[i, j]
            if 0 < i < h - 1 and 0 < j < w - 1:
                matrix[k, k] = 4.0
                right[k] = 4 * patch[i, j]
                for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                    matrix[k, (i + di) * w + j + dj] = -1.0
                    right[k] -= patch[i + di, j + dj]
    return np.linalg.solve(matrix, right).reshape(h, w)


@pytest.mark.parametrize("size", [(3, 3), (4, 9), (17, 12)])
def test_solution_is_that_of_the_dense_system(size) -> None:
    rng = np.random.default_rng(0)
    source, patch = rng.random((2, 2, *size)), rng.random((2, 2, *size))
    blended = blend_poisson(torch.tensor(source), torch.tensor(patch)).numpy()
    for n in range(2):
        for c in range(2):
            np.testing.assert_allclose(blended[n, c], dense_solution(source[n, c], patch[n, c]), atol=2e-6)


def test_patch_that_differs_by_a_constant_vanishes() -> None:
    source = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(blend_poisson(source, source + 0.3), source, atol=2e-6, rtol=0)


def test_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        blend_poisson(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))

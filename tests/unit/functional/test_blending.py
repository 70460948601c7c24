"""Poisson blending against a dense solve of the same linear system."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.functional.blending import blend_poisson, clone_gradients


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


def least_squares_solution(source: np.ndarray, patch: np.ndarray, region: np.ndarray, *, mixed: bool) -> np.ndarray:
    """One equation for each pair of neighbours, solved densely; the mean outside the region is the source's."""
    h, w = source.shape
    matrix, right = [], []
    for i in range(h):
        for j in range(w):
            for k, m in ((i + 1, j), (i, j + 1)):
                if k == h or m == w:
                    continue
                row = np.zeros((h, w))
                row[k, m], row[i, j] = 1, -1
                own, other = source[k, m] - source[i, j], patch[k, m] - patch[i, j]
                from_patch = (region[i, j] or region[k, m]) and (abs(other) >= abs(own) or not mixed)
                matrix.append(row.ravel())
                right.append(other if from_patch else own)
    solution = np.linalg.lstsq(np.array(matrix), np.array(right), rcond=None)[0].reshape(h, w)
    return solution + (source - solution)[~region].mean()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("size", [(1, 6), (5, 5), (9, 12)])
def test_clone_is_the_least_squares_solution(size, mixed) -> None:
    rng = np.random.default_rng(1)
    source, patch = rng.random((2, 3, 1, *size))
    region = rng.random((3, 1, *size)) < 0.3
    region[:, 0, 0, 0] = False
    cloned = clone_gradients(*(torch.tensor(a) for a in (source, patch, region)), keep_stronger=mixed).numpy()
    for n in range(3):
        expected = least_squares_solution(source[n, 0], patch[n, 0], region[n, 0], mixed=mixed)
        np.testing.assert_allclose(cloned[n, 0], expected, atol=2e-6)


def test_clone_of_a_patch_that_differs_by_a_constant_is_the_source() -> None:
    source = torch.rand(2, 3, 12, 7, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(2, 1, 12, 7, dtype=torch.bool)
    region[..., 3:9, :4] = True
    torch.testing.assert_close(clone_gradients(source, source - 0.4, region), source, atol=2e-6, rtol=0)


def test_clone_refuses_a_region_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"`region` theirs with one channel, got .*\(1, 1, 8, 9\)"):
        clone_gradients(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 9, dtype=torch.bool))

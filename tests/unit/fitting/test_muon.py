"""Muon, against a singular value decomposition."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.fitting.muon import Muon, Optimizers, orthogonalise


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_it_turns_a_matrix_into_about_the_nearest_orthogonal_one(shape) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix)
    assert found.shape == shape
    values = torch.linalg.svdvals(found)
    assert bool(((values > 0.5) & (values < 1.4)).all())
    assert torch.cosine_similarity(found.flatten(), (u @ v).flatten(), dim=0) > 0.95


def test_a_step_has_the_length_of_the_rate_in_every_direction() -> None:
    kernel = torch.nn.Parameter(torch.zeros(8, 2, 3, 3))
    kernel.grad = torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(0)) * 1e-4
    Muon([kernel], lr=0.1, weight_decay=0.0).step()
    values = torch.linalg.svdvals(kernel.detach().flatten(1))
    assert bool(((values > 0.05) & (values < 0.14)).all())
    assert (kernel * kernel.grad).sum() < 0


def test_parameters_without_gradient_stay() -> None:
    kernel = torch.nn.Parameter(torch.ones(2, 2))
    Muon([kernel]).step()
    assert torch.equal(kernel.detach(), torch.ones(2, 2))


def test_several_optimisers_go_on_from_their_state() -> None:
    def make() -> tuple[list[torch.nn.Parameter], Optimizers]:
        parts = [torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(4))]
        return parts, Optimizers(Muon(parts[:1]), torch.optim.AdamW(parts[1:], lr=0.1))

    def advance(parts: list[torch.nn.Parameter], optimizers: Optimizers, steps: range) -> None:
        for step in steps:
            optimizers.zero_grad(set_to_none=True)
            x = torch.randn(4, generator=torch.Generator().manual_seed(step))
            ((parts[0] @ (x * parts[1])).square().sum() + parts[1].square().sum()).backward()
            optimizers.step()

    whole, optimizers = make()
    assert len(optimizers.param_groups) == 2
    advance(whole, optimizers, range(6))
    stopped, optimizers = make()
    advance(stopped, optimizers, range(3))
    again, resumed = make()
    with torch.no_grad():
        for mine, theirs in zip(again, stopped, strict=True):
            mine.copy_(theirs)
    resumed.load_state_dict(optimizers.state_dict())
    advance(again, resumed, range(3, 6))
    for mine, theirs in zip(again, whole, strict=True):
        assert torch.equal(mine, theirs)

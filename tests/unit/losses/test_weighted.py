"""The module that takes a loss's place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anomalib_synth.losses import SPLITS, WeightedLoss


def make(weights: list[float] | None, *, loss: nn.Module | None = None, **options) -> WeightedLoss:
    known = None if weights is None else torch.tensor(weights)
    settings = {"split": SPLITS["elementwise"], "get_weights": lambda: known} | options
    return WeightedLoss(loss or nn.MSELoss(), **settings)


def draw(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(rows, 4, 5, generator=generator) for _ in range(2))


def test_weighted_loss_by_hand() -> None:
    # squared errors 1, 4 and 9: (1 * 1 + 0.5 * 4 + 1.5 * 9) / 3
    loss = make([1.0, 0.5, 1.5])(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3))
    assert float(loss) == pytest.approx(16.5 / 3)


def test_weighted_gradient_is_that_of_the_loop() -> None:
    prediction, target = draw()
    prediction.requires_grad_()
    weights = [0.2, 1.0, 1.8]
    loop = sum(w * nn.functional.mse_loss(p, t) for w, p, t in zip(weights, prediction, target, strict=True)) / 3
    (expected,) = torch.autograd.grad(loop, prediction)
    (found,) = torch.autograd.grad(make(weights)(prediction, target), prediction)
    torch.testing.assert_close(found, expected)


def test_rows_are_repeated_when_the_model_repeats_the_batch() -> None:
    prediction, target = torch.tensor([1.0, 2.0, 1.0, 2.0]), torch.zeros(4)
    assert float(make([1.5, 0.5], copies=2)(prediction, target)) == pytest.approx((1.5 + 2 + 1.5 + 2) / 4)


def test_without_weights_the_original_is_called() -> None:
    class Odd(nn.MSELoss):
        def forward(self, *args):
            return super().forward(*args) * 0.1

    prediction, target = draw()
    assert torch.equal(make(None, loss=Odd())(prediction, target), Odd()(prediction, target))


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_rows_without_a_quality_are_refused(rows) -> None:
    with pytest.raises(ValueError, match=f"The batch has 3 qualities, but the loss has {rows} rows; 1 for each sample"):
        make([1.0, 0.5, 1.5])(*draw(rows))


def test_loss_that_is_not_what_is_known_is_found_out() -> None:
    def split(loss: nn.Module, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 1.05 * SPLITS["elementwise"](loss, prediction, target)

    with pytest.raises(RuntimeError, match=r"per-sample losses of MSELoss average to .*remove QualityWeighting"):
        make([1.0, 0.5, 1.5], split=split)(*draw())


def test_loss_is_compared_once() -> None:
    calls = []

    class Counted(nn.MSELoss):
        def forward(self, *args):
            if self.reduction == "mean":
                calls.append(torch.is_grad_enabled())
            return super().forward(*args)

    loss = make([1.0, 0.5, 1.5], loss=Counted())
    for _ in range(3):
        loss(*draw())
    assert calls == [False]


def test_half_precision_passes_the_comparison() -> None:
    prediction, target = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(make([1.0, 0.5, 1.5])(prediction.bfloat16(), target))


def test_loss_that_is_nan_already_does_not_look_like_another_loss() -> None:
    prediction, target = draw()
    assert torch.isnan(make([1.0, 0.5, 1.5])(prediction * torch.nan, target))


def test_nothing_is_added_to_checkpoints() -> None:
    loss = make([1.0])
    assert not loss.state_dict()
    assert list(loss.modules()) == [loss]


def test_loss_with_state_is_refused() -> None:
    with pytest.raises(ValueError, match="A loss with parameters or buffers cannot be weighted, got Linear"):
        make([1.0], loss=nn.Linear(2, 2))

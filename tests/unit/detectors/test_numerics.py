"""What stops a training whose numbers are no numbers, and what it says."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from anomalib_synth.detectors.numerics import check_loss, check_precision, check_state

MODULE = SimpleNamespace(trainer=SimpleNamespace(precision="16-mixed"), global_step=7, current_epoch=2)


def test_precision_is_refused_when_the_model_cannot_compute_in_it() -> None:
    check_precision(MODULE, ["32-true", "16-mixed"], reason="sums squares")
    with pytest.raises(
        ValueError, match=r"sums squares: `trainer.precision` must be 32-true or bf16-mixed, got 16-mixed. Set it to 32"
    ):
        check_precision(MODULE, ["32-true", "bf16-mixed"], reason="sums squares")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_training_stops_and_names_three_images_when_the_loss_is_not_finite(value) -> None:
    samples = torch.tensor([1.0, value, value, value, value])
    batch = SimpleNamespace(image_path=[f"{n}.png" for n in range(5)])
    check_loss(torch.tensor(1.0), samples, MODULE, batch)  # what is summed counts
    with pytest.raises(
        ValueError, match=r"at step 7 of epoch 2, with 4 of 5 images such as \['1.png', '2.png', '3.png'\]"
    ):
        check_loss(samples.sum(), samples, MODULE, batch)
    with pytest.raises(ValueError, match=r"with 4 of 5 images\. Training stops"):
        check_loss(samples.sum(), samples, MODULE, SimpleNamespace())
    with pytest.raises(ValueError, match=r"with 4 of 5 images such as \['1.png'\]\. Training"):
        check_loss(samples.sum(), samples, MODULE, SimpleNamespace(image_path=["0.png", "1.png"]))
    with pytest.raises(ValueError, match=r"of epoch 2\. Training stops"):
        check_loss(torch.tensor(value), torch.ones(2), MODULE, batch)


def test_weights_are_not_saved_when_one_is_not_finite() -> None:
    fine = {
        "post_processor.threshold": torch.tensor(math.nan), "model.count": torch.tensor(3), "model.name": "x",
        "model.weight": torch.ones(2),
    }  # fmt: skip
    check_state(MODULE, fine)
    for value in (math.nan, math.inf):
        odd = {"model.bias": torch.tensor([1.0, value]), "model.other": torch.tensor(value)}
        with pytest.raises(ValueError, match=r"not finite at step 7, such as 'model.bias', so no checkpoint"):
            check_state(MODULE, fine | odd)

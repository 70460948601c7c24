"""RealNet's losses against hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anomalib_synth.detectors.realnet.loss import reconstruction_loss, segmentation_loss


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_losses_are_per_sample_and_average_to_the_batch_loss() -> None:
    rebuilt, target = [random(3, 4, 6, 6), random(3, 8, 3, 3)], [random(3, 4, 6, 6, seed=1), random(3, 8, 3, 3, seed=2)]
    loss = reconstruction_loss(rebuilt, target)
    assert loss.shape == (3,)
    torch.testing.assert_close(loss.mean(), sum(F.mse_loss(a, b) for a, b in zip(rebuilt, target, strict=True)))
    alone = reconstruction_loss([part[1:2] for part in rebuilt], [part[1:2] for part in target])
    torch.testing.assert_close(alone[0], loss[1])
    logits, mask = random(3, 2, 6, 6), random(3, 6, 6, seed=3) > 0.5
    loss = segmentation_loss(logits, mask)
    torch.testing.assert_close(loss.mean(), F.cross_entropy(logits, mask.long()))
    torch.testing.assert_close(segmentation_loss(logits[2:], mask[2:])[0], loss[2])


def logits_of(probability: list[float]) -> torch.Tensor:
    """Logits (1, 2, 1, 4) under which four pixels are anomalous with these probabilities."""
    odds = torch.tensor(probability)
    return torch.stack([torch.zeros(4), (odds / (1 - odds)).log()]).reshape(1, 2, 1, 4)


# four pixels, the first of which is the defect; each is right with probability .5, .9, .8, .6
@pytest.mark.parametrize(
    ("kind", "losses", "weights"),
    [
        ("cross_entropy", [0.693147, 0.105361, 0.223144, 0.510826], [0.25] * 4),
        ("balanced", [0.693147, 0.105361, 0.223144, 0.510826], [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        ("focal", [0.25 * 0.693147, 0.01 * 0.105361, 0.04 * 0.223144, 0.16 * 0.510826], [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
    ],
)
def test_segmentation_loss_equals_the_sum_by_hand(kind, losses, weights) -> None:
    mask = torch.tensor([[[True, False, False, False]]])
    loss = segmentation_loss(logits_of([0.5, 0.1, 0.2, 0.4]), mask, kind=kind)
    assert loss.tolist() == pytest.approx([float(np.dot(losses, weights))], rel=1e-4)


@pytest.mark.parametrize("kind", ["balanced", "focal"])
def test_an_image_of_one_class_has_its_plain_mean(kind) -> None:
    power = {"balanced": 0, "focal": 2}[kind]
    for defect, wrong in ((False, [0.5, 0.1, 0.2, 0.4]), (True, [0.5, 0.9, 0.8, 0.6])):
        loss = segmentation_loss(logits_of([0.5, 0.1, 0.2, 0.4]), torch.full((1, 1, 4), defect), kind=kind)
        assert loss.tolist() == pytest.approx([np.mean([w**power * -np.log(1 - w) for w in wrong])], rel=1e-4)


@pytest.mark.parametrize("kind", ["cross_entropy", "balanced", "focal"])
def test_segmentation_loss_of_a_sample_depends_on_no_other(kind) -> None:
    logits, mask = random(3, 2, 6, 6), random(3, 6, 6, seed=3) > 0.9
    mask[1] = False
    loss = segmentation_loss(logits, mask, kind=kind)
    assert loss.shape == (3,)
    for row in range(3):
        torch.testing.assert_close(
            segmentation_loss(logits[row : row + 1], mask[row : row + 1], kind=kind)[0], loss[row]
        )

"""What each sample contributes to the losses of anomalib's models, against those losses and against plain loops."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
import torch
from anomalib.models.image.draem.loss import DraemLoss
from anomalib.models.image.dsr.loss import DsrThirdStageLoss
from anomalib.models.image.supersimplenet.loss import SSNLoss
from anomalib.models.image.uninet.components import UniNetLoss
from torch import nn

from anomalib_synth.losses import SPLITS

TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-12}  # of values and gradients, relative to the largest
MASKS = ["mixed", "no anomalous pixel", "no normal pixel"]


def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A leaf from the global generator, which each case seeds."""
    return torch.randn(*shape, dtype=torch.float64).to(dtype).requires_grad_()


def draw_mask(batch: int, size: int, kind: str) -> torch.Tensor:
    """(B, 1, size, size) in {0, 1}; in a mixed one the first row is normal."""
    mask = torch.zeros(batch, 1, size, size)
    if kind == "mixed":
        mask[1:, :, : size // 2, 1:] = (torch.rand(batch - 1, 1, size // 2, size - 1) < 0.7).float()
        mask[-1, :, -1, -1] = 1
    return torch.ones_like(mask) if kind == "no normal pixel" else mask


def draem_case(batch: int, kind: str, dtype: torch.dtype) -> tuple[nn.Module, list, list]:
    image, reconstruction = draw(batch, 3, 24, 24, dtype=dtype), draw(batch, 3, 24, 24, dtype=dtype)
    prediction = draw(batch, 2, 24, 24, dtype=dtype)
    return (
        DraemLoss(),
        [image.detach(), reconstruction, draw_mask(batch, 24, kind), prediction],
        [reconstruction, prediction],
    )


def dsr_case(batch: int, kind: str, dtype: torch.dtype) -> tuple[nn.Module, list, list]:
    prediction = draw(batch, 2, 16, 16, dtype=dtype)
    return DsrThirdStageLoss(), [prediction, draw_mask(batch, 16, kind)], [prediction]


def supersimplenet_case(batch: int, kind: str, dtype: torch.dtype) -> tuple[nn.Module, list, list]:
    score_map, score = draw(batch, 1, 8, 8, dtype=dtype), draw(batch, dtype=dtype)
    mask = draw_mask(batch, 8, kind).to(dtype)
    return SSNLoss(), [score_map, score, mask, mask.flatten(1).amax(1)], [score_map, score]


def uninet_case(batch: int, kind: str, dtype: torch.dtype) -> tuple[nn.Module, list, list]:
    shapes = [(4, 8), (6, 4), (8, 2)] * 2
    student = [draw(batch, channels, size, size, dtype=dtype) for channels, size in shapes]
    teacher = [draw(batch, channels, size, size, dtype=dtype) for channels, size in shapes]
    return UniNetLoss(temperature=0.1), [student, teacher, 1, draw_mask(batch, 16, kind).to(dtype)], student + teacher


def logits_case(batch: int, kind: str, dtype: torch.dtype) -> tuple[nn.Module, list, list]:
    logits = draw(batch, dtype=dtype)
    return (
        nn.BCEWithLogitsLoss(),
        [logits, draw_mask(batch, 4, kind).flatten(1).amax(1).to(dtype)],
        [logits],
    )


def squared_case(batch: int, kind: str, dtype: torch.dtype) -> tuple[nn.Module, list, list]:
    before, after = draw(batch, 5, 4, 4, dtype=dtype), draw(batch, 5, 4, 4, dtype=dtype)
    return nn.MSELoss(), [before, after], [before, after]


CASES = {
    "draem": ("draem", draem_case),
    "sspcab": ("elementwise", squared_case),
    "dsr": ("dsr", dsr_case),
    "supersimplenet": ("supersimplenet", supersimplenet_case),
    "uninet": ("uninet", uninet_case),
    "uninet, labels": ("elementwise", logits_case),
}


def make_case(name: str, batch: int, kind: str, dtype: torch.dtype) -> tuple[nn.Module, list, list, partial]:
    torch.manual_seed(batch)
    kind_of_split, case = CASES[name]
    loss, arguments, leaves = case(batch, kind, dtype)
    return loss, arguments, leaves, partial(SPLITS[kind_of_split], loss)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("name", "kind"),
    [pair for pair in product(CASES, MASKS) if pair != ("uninet", "no normal pixel")],  # that one is an error, below
)
def test_mean_contribution_is_the_models_loss(name, batch, kind, dtype) -> None:
    loss, arguments, leaves, split = make_case(name, batch, kind, dtype)
    expected = loss(*arguments)
    gradients = torch.autograd.grad(expected, leaves)
    found = split(*arguments)
    assert found.shape == (batch,)
    assert found.dtype == dtype
    torch.testing.assert_close(found.mean(), expected, rtol=TOLERANCE[dtype], atol=0)
    for mine, theirs in zip(torch.autograd.grad(found.mean(), leaves), gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=TOLERANCE[dtype] * float(theirs.abs().max()))


@pytest.mark.parametrize("name", CASES)
def test_a_contribution_depends_on_its_own_sample_alone(name) -> None:
    _, arguments, leaves, split = make_case(name, 3, "mixed", torch.float64)
    for row in range(3):
        gradients = torch.autograd.grad(split(*arguments)[row], leaves, retain_graph=True)
        assert all(float(g[other].abs().max()) == 0 for g in gradients for other in range(3) if other != row)
        if row > 0:  # the first is normal, and the focal loss of DRAEM and DSR, with alpha 1, leaves normal pixels out
            assert all(float(g[row].abs().max()) > 0 for g in gradients)


@pytest.mark.parametrize("name", ["draem", "sspcab", "dsr", "uninet, labels"])
def test_a_contribution_is_the_loss_of_the_sample_alone(name) -> None:
    loss, arguments, _, split = make_case(name, 4, "mixed", torch.float64)
    alone = [loss(*(part[row : row + 1] for part in arguments)) for row in range(4)]
    torch.testing.assert_close(split(*arguments), torch.stack(alone), rtol=1e-12, atol=0)


def test_truncated_term_of_supersimplenet_against_a_loop() -> None:
    loss, arguments, _, split = make_case("supersimplenet", 4, "mixed", torch.float64)
    scores, _, mask, label = (part.detach() for part in arguments)
    terms = torch.zeros(4, dtype=torch.float64)
    counts = {True: int((mask > 0).sum()), False: int((mask == 0).sum())}
    for row in range(4):
        for y in range(8):
            for x in range(8):
                value, drawn = float(scores[row, 0, y, x]), bool(mask[row, 0, y, x] > 0)
                terms[row] += max(0.0, (-value if drawn else value) + loss.th) * 4 / counts[drawn]
    focal = [
        loss.focal_loss(scores[row], mask[row]) + loss.focal_loss(arguments[1][row], label[row]) for row in range(4)
    ]
    torch.testing.assert_close(split(*arguments), terms + torch.stack(focal), rtol=1e-12, atol=0)


def test_uninet_terms_carry_over_to_scales_without_their_pixels() -> None:
    """One abnormal pixel that the coarser scales do not see, and a last scale without a normal one."""
    torch.manual_seed(0)
    sizes = [8, 4, 2]
    student = [draw(2, 4, size, size, dtype=torch.float64) for size in sizes]
    teacher = [features.detach().clone() for features in student]  # alike, or the abnormal term would be 0
    lone = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    lone[0, 0, 1, 1] = 1
    covered = torch.ones(2, 1, 8, 8, dtype=torch.float64)
    covered[1, 0, 1, 1] = 0
    loss = UniNetLoss(temperature=0.05)
    for mask in (lone, covered):
        found = SPLITS["uninet"](loss, student, teacher, mask=mask)
        expected = loss(student, teacher, mask=mask)
        torch.testing.assert_close(found.mean(), expected, rtol=1e-12, atol=0)
        for mine, theirs in zip(
            torch.autograd.grad(found.mean(), student), torch.autograd.grad(expected, student), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("mask", [None, torch.tensor([0.0, 1.0, 0.0])], ids=["none", "labels"])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_uninet_without_masks(mask, stop_gradient) -> None:
    loss, arguments, leaves, split = make_case("uninet", 3, "mixed", torch.float64)
    found = split(*arguments[:2], mask=mask, stop_gradient=stop_gradient).mean()
    expected = loss(*arguments[:2], mask=mask, stop_gradient=stop_gradient)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    mine, theirs = (torch.autograd.grad(value, leaves, allow_unused=True) for value in (found, expected))
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-10, atol=1e-15)


def test_uninet_without_a_normal_pixel_is_an_error() -> None:
    loss, arguments, _, split = make_case("uninet", 2, "no normal pixel", torch.float32)
    with pytest.raises(UnboundLocalError):  # anomalib's own; when it learns better, so must the split
        loss(*arguments)
    with pytest.raises(ValueError, match="UniNet's loss needs a normal pixel in every batch"):
        split(*arguments)


def test_settings_of_the_loss_are_respected() -> None:
    torch.manual_seed(0)
    logits, target = draw(3, 4, dtype=torch.float64), torch.rand(3, 4, dtype=torch.float64)
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))
    torch.testing.assert_close(SPLITS["elementwise"](loss, logits, target).mean(), loss(logits, target))
    assert loss.reduction == "mean"


def test_contributions_are_summed_in_full_precision() -> None:
    values = (1 + 0.01 * torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))).bfloat16()
    found = SPLITS["elementwise"](nn.MSELoss(), values, torch.zeros_like(values))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, values.square().float().flatten(1).mean(1), rtol=1e-6, atol=0)
    loss, zeros = SSNLoss(), torch.zeros_like(values)
    expected = torch.clip(values + loss.th, min=0).float() + loss.focal_loss(values, zeros, reduction="none").float()
    found = SPLITS["supersimplenet"](loss, values, zeros[:, 0, 0, 0], zeros, zeros[:, 0, 0, 0])
    score = loss.focal_loss(torch.zeros(1), torch.zeros(1))
    torch.testing.assert_close(found, expected.flatten(1).mean(1) + score, rtol=1e-4, atol=0)


def test_per_sample_losses_must_be_one_a_sample() -> None:
    with pytest.raises(ValueError, match=r"the loss of each sample, \(B,\), got \(2, 3\)"):
        SPLITS["samples"](nn.Identity(), torch.zeros(2, 3))

"""Which patch of GLASS' loss belongs to which sample, on a GLASS in miniature whose modules pass on what they get."""

from __future__ import annotations

import pytest
import torch
from anomalib.models.image.glass.components import PatchMaker
from anomalib.models.image.glass.loss import FocalLoss
from torch import nn

from anomalib_synth.losses import GlassPatches
from anomalib_synth.losses.patches import pool_mask


def make_mask(width: int) -> torch.Tensor:
    """(3, 1, 6, width): the first sample is normal, the others have a defect of a pixel or more."""
    mask = torch.zeros(3, 1, 6, width)
    mask[1, 0, 1, 1] = 1
    mask[2, 0, 2:5, 3:7] = 1
    return mask


def forward(quantile: float, *, features: torch.Tensor | None = None, scores: torch.Tensor | None = None, width=8):
    """Go through what GLASS does between its discriminator and its focal loss, in its own words: 3 samples, 2 x 2."""
    scorer, drawer, extractor = nn.Identity(), nn.Identity(), nn.Identity()
    patches = GlassPatches(
        scorer=scorer, drawer=drawer, extractor=extractor, layer="first", patchify=PatchMaker(3, stride=1).patchify,
        quantile=quantile,
    )  # fmt: skip
    torch.manual_seed(0)
    mask = make_mask(width)
    extractor({"first": torch.rand(3, 5, 3, 4) if features is None else features})
    drawer((torch.rand(3, 3, 6, width), mask))
    scores = torch.rand(3 * 3 * width // 2, 1) if scores is None else scores
    scores.requires_grad_()
    scorer(torch.rand(72, 1))  # an earlier call, on the real images
    scorer(scores)
    target = nn.functional.max_pool2d(mask, (2, 2)).reshape(-1, 1)
    kept, kept_target = scores, target
    if quantile > 0:
        error = (scores - target) ** 2
        hard = error >= torch.quantile(error, q=quantile)
        kept, kept_target = scores[hard].unsqueeze(1), target[hard].unsqueeze(1)
    return patches, torch.cat([1 - kept, kept], dim=1), kept_target, scores


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9])
def test_contributions_are_those_of_the_samples(quantile) -> None:
    patches, logits, target, scores = forward(quantile)
    found = patches.split(FocalLoss(), logits, target)
    assert found.shape == (3,)
    expected = FocalLoss()(logits, target)
    torch.testing.assert_close(found.mean(), expected)
    (gradient,) = torch.autograd.grad(expected, scores, retain_graph=True)
    (own,) = torch.autograd.grad(found.mean(), scores, retain_graph=True)
    torch.testing.assert_close(own, gradient)
    for row in range(3):
        (own,) = torch.autograd.grad(found[row], scores, retain_graph=True)
        others = own.reshape(3, 12)[[other for other in range(3) if other != row]]
        assert float(others.abs().max()) == 0
        torch.testing.assert_close(own.reshape(3, 12)[row] / 3, gradient.reshape(3, 12)[row])


def test_quantile_drops_rows() -> None:
    assert len(forward(0.0)[1]) == 36
    assert len(forward(0.5)[1]) == 18


def test_sample_without_a_row_contributes_nothing() -> None:
    scores = torch.full((36, 1), 0.5)
    scores[:12] = 1e-3  # the first sample is normal, and scored so: the easiest patches of all
    patches, logits, target, _ = forward(0.5, scores=scores)
    found = patches.split(FocalLoss(), logits, target)
    assert float(found[0].detach()) == 0
    torch.testing.assert_close(found.mean(), FocalLoss()(logits, target))


def test_grid_of_a_transformer_is_known() -> None:
    patches, logits, target, _ = forward(0.5, features=torch.rand(3, 9, 5), width=6)
    torch.testing.assert_close(patches.split(FocalLoss(), logits, target).mean(), FocalLoss()(logits, target))


def test_rows_in_half_precision_are_found() -> None:
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        patches, logits, target, _ = forward(0.5, scores=torch.rand(36, 1).bfloat16())
        found = patches.split(FocalLoss(), logits, target)
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("change", ["scores", "target", "fewer", "grid"])
def test_rows_that_are_not_the_selected_ones_are_an_error(change) -> None:
    features = torch.rand(3, 5, 2, 2) if change == "grid" else None
    patches, logits, target, _ = forward(0.5, features=features)
    if change == "scores":
        logits = logits.detach().clone()
        logits[0, 1] += 1e-6
    elif change == "target":
        target = 1 - target
    elif change == "fewer":
        logits, target = logits[1:], target[1:]
    with pytest.raises(RuntimeError, match=r"rows of GLASS' focal loss are not the patches that were expected"):
        patches.split(FocalLoss(), logits, target)


def test_hooks_are_removed() -> None:
    scorer, drawer, extractor = (nn.Identity() for _ in range(3))
    patches = GlassPatches(
        scorer=scorer, drawer=drawer, extractor=extractor, layer="", patchify=PatchMaker(3).patchify, quantile=0.5
    )
    assert all(module._forward_hooks for module in (scorer, drawer, extractor))
    patches.remove()
    assert not any(module._forward_hooks for module in (scorer, drawer, extractor))


@pytest.mark.parametrize(
    ("grid", "expected"),
    [((4, 4), [0, 5]), ((2, 2), [0]), ((8, 8), [0, 1, 8, 9, 18, 19, 26, 27]), ((3, 3), [0, 4])],
    ids=["as it is", "pooled", "enlarged", "pooled by one, then resized"],
)
def test_masks_are_pooled_as_by_glass(grid, expected) -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 0, 0] = mask[0, 0, 1, 1] = 1
    assert pool_mask(mask, grid).flatten().nonzero().flatten().tolist() == expected

"""Filling a hole from what is around it."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.models.filling import fill_from_around

IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def hole(*boxes: tuple[slice, slice]) -> torch.Tensor:
    mask = torch.zeros(2, 1, 64, 96)
    for box in boxes:
        mask[..., *box] = 1
    return mask


@pytest.mark.parametrize(
    "hidden",
    [
        hole((slice(10, 40), slice(20, 70))),
        hole((slice(0, 64), slice(0, 50))),
        hole((slice(5, 6), slice(0, 96)), (slice(30, 33), slice(2, 3))),
        hole((slice(0, 64), slice(0, 95))),
    ],
    ids=["middle", "border", "thin", "nearly all"],
)
def test_what_is_seen_stays_and_what_is_hidden_has_no_influence_when_a_hole_is_filled(hidden) -> None:
    filled = fill_from_around(IMAGES, hidden)
    seen = (hidden == 0).expand_as(IMAGES)
    assert torch.equal(filled[seen], IMAGES[seen])
    other = torch.where(seen, IMAGES, torch.rand(IMAGES.shape))
    assert torch.equal(filled, fill_from_around(other, hidden))
    assert 0 <= float(filled.min()) <= float(filled.max()) <= 1
    assert not torch.equal(filled, IMAGES)


def test_a_hole_continues_what_is_around_when_that_is_smooth() -> None:
    ramp = (torch.arange(96.0) / 96).expand(2, 3, 64, 96)
    filled = fill_from_around(ramp, hole((slice(20, 36), slice(40, 56))))
    assert (filled - ramp).abs().max() < 0.1


def test_all_is_grey_when_all_is_hidden() -> None:
    assert torch.equal(fill_from_around(IMAGES, torch.ones(2, 1, 64, 96)), torch.full_like(IMAGES, 0.5))

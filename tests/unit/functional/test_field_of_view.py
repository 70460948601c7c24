"""What is left of a mask after a transform."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import (
    CenterCrop,
    Compose,
    Grayscale,
    Normalize,
    RandomAffine,
    RandomCrop,
    RandomPerspective,
    RandomResizedCrop,
    Resize,
)
from torchvision.tv_tensors import Image, Mask

from anomalib_synth.functional.field_of_view import CoverageMask, cover, in_view, see_masks, sees_all

NORMALISE = Normalize([0.5] * 3, [0.5] * 3)


def brute_force(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Any overlap, pixel by pixel."""
    result = torch.zeros(size, dtype=torch.bool)
    for row in range(size[0]):
        for column in range(size[1]):
            top, left = row * mask.shape[0] / size[0], column * mask.shape[1] / size[1]
            bottom, right = (row + 1) * mask.shape[0] / size[0], (column + 1) * mask.shape[1] / size[1]
            rows = [r for r in range(mask.shape[0]) if r + 1 > top and r < bottom]
            columns = [c for c in range(mask.shape[1]) if c + 1 > left and c < right]
            result[row, column] = bool(mask[rows][:, columns].any())
    return result


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (19, 3), (20, 16)])
def test_mask_covers_any_overlap_when_it_gets_smaller(size) -> None:
    mask = torch.rand(20, 16, generator=torch.Generator().manual_seed(0)) > 0.95
    assert torch.equal(cover(mask, size), brute_force(mask, size))


def test_mask_is_repeated_when_it_gets_larger() -> None:
    mask = torch.eye(4, dtype=torch.uint8)
    assert torch.equal(cover(mask, (8, 8)), mask.repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize(
    "transform",
    [
        Resize((8, 8)),
        Resize(8),
        Resize(4, max_size=8),
        Compose([Resize((16, 16)), Resize((4, 4))]),
        RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(1.0, 1.0)),
        RandomAffine(20, scale=(0.4, 0.5)),
        RandomPerspective(0.3, p=1.0),
    ],
    ids=lambda transform: type(transform).__name__,
)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_speck_keeps_its_mask_when_the_image_gets_smaller(transform, dtype) -> None:
    lost = 0
    for place in range(25, 39):
        mask = torch.zeros(64, 64, dtype=dtype)
        mask[place, 63 - place] = 1
        torch.manual_seed(place)
        _, kept = transform(Image(torch.zeros(3, 64, 64)), CoverageMask(mask))
        assert isinstance(kept, CoverageMask)
        assert kept.dtype == dtype
        assert bool(kept.any())
        torch.manual_seed(place)
        _, plain = transform(Image(torch.zeros(3, 64, 64)), Mask(mask))
        assert plain.shape == kept.shape
        lost += not bool(plain.any())
    assert lost, "a plain mask must lose some, or this test says nothing"


def test_defect_is_out_of_view_when_it_is_cropped_away() -> None:
    masks = torch.zeros(3, 64, 64)
    masks[0, :8] = 1
    masks[1, 30:34, 30:34] = 1
    transform = Compose([Resize((32, 32)), CenterCrop(16), NORMALISE])
    assert in_view(masks, transform).tolist() == [False, True, False]
    assert see_masks(masks, transform).shape == (3, 16, 16)
    assert in_view(masks, None).tolist() == [True, True, False]


def test_random_state_is_left_when_a_transform_is_random() -> None:
    masks = torch.ones(1, 32, 32)
    masks[:, :, 16:] = 0
    crop = RandomCrop(8)
    for seed in range(8):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        seen = see_masks(masks, crop)
        assert torch.equal(torch.random.get_rng_state(), state)
        _, after = crop(Image(torch.zeros(1, 3, 32, 32)), Mask(masks))  # as the pre-processor does next
        assert torch.equal(seen, after.as_subclass(torch.Tensor) > 0)


def test_transforms_that_see_all_are_told_from_crops() -> None:
    assert sees_all(None)
    assert sees_all(Compose([Resize(8), Compose([NORMALISE, Grayscale(3)])]))
    assert not sees_all(Compose([Resize(8), CenterCrop(4)]))
    assert not sees_all(RandomResizedCrop(8))

"""What a generator is called with, and that its samples are of the images it was given."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.generators.validation import check_drawn_on, check_images, check_masks, check_range, check_texts
from anomalib_synth.sample import AnomalySample

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def make_sample(*, of_another: int, accepted: bool) -> AnomalySample:
    sample = AnomalySample.unchanged(IMAGES.clone(), [None] * 3, "")
    sample.source[of_another] = 1 - sample.source[of_another]
    sample.accepted[:] = accepted
    return sample


def test_sample_of_another_image_is_refused_by_name_when_it_is_accepted() -> None:
    sample = make_sample(of_another=1, accepted=True)
    with pytest.raises(ValueError, match=r"`generator` int gave a sample of another image than b\. Use another\."):
        check_drawn_on(sample, IMAGES, 0, ["a", "b", "c"], "Use another.")


def test_sample_of_another_image_passes_when_it_was_rejected_and_shows_nothing() -> None:
    check_drawn_on(make_sample(of_another=2, accepted=False), IMAGES, 0, ["a", "b", "c"], "")


def test_sample_of_the_image_itself_passes() -> None:
    sample = AnomalySample.unchanged(IMAGES, [None] * 3, "")
    sample.accepted[:] = True
    check_drawn_on(sample, IMAGES, 0, ["a", "b", "c"], "")
    check_drawn_on(sample, IMAGES.clone(), 0, ["a", "b", "c"], "")


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "must be float"),
        (torch.zeros(3, 4, 4), "must be float"),
        (torch.zeros(2, 4, 4, 4), "1 or 3 channels"),
        (torch.full((1, 3, 4, 4), float("nan")), "finite"),
        (torch.full((1, 3, 4, 4), 1.1), r"from 1.1 to 1.1"),
    ],
)
def test_images_are_refused_when_they_are_no_float_images_in_range(images, said) -> None:
    with pytest.raises(ValueError, match=said):
        check_images(images)


def test_masks_texts_and_ranges_are_refused_when_they_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(3, 1, 8, 8\)"):
        check_masks(torch.zeros(3, 8, 8), IMAGES)
    with pytest.raises(ValueError, match="`prompts` must be 2 texts"):
        check_texts("prompts", ["a", "  "], 2)
    assert check_texts("prompts", [" a ", "b"], 2) == ["a", "b"]
    with pytest.raises(ValueError, match="0 < min <= max <= 1"):
        check_range("strength", (0.0, 0.5))
    assert check_range("share", (0.0, 0.5), from_zero=True) == (0.0, 0.5)

"""The image-text score: hand-worked cases, the window it looks at, and independence of the batch."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.dual_encoder import DualEncoder
from anomalib_synth.quality import ImageTextScorer
from anomalib_synth.quality.windows import crop_view, find_window, fit_view

CAPTIONS = ["a dark stain", "a thin bright scratch", "a stain", "a dark scratch", "a thin stain"]


class Levels:
    """An encoder whose cosine is the image's mean level, for "minus" its negative; it keeps what it sees."""

    def __init__(self, image_size: int = 16) -> None:
        self.image_size = image_size
        self.seen: list[torch.Tensor] = []
        self.read: list[str] = []

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.clone())
        level = images.mean((1, 2, 3))
        return torch.stack([level, (1 - level**2).clamp_min(0).sqrt()], 1)

    def encode_captions(self, captions) -> torch.Tensor:
        self.read += captions
        return torch.tensor([[-1.0 if "minus" in caption else 1.0, 0.0] for caption in captions])


class Local:
    """A real encoder with random weights."""

    image_size = 64

    def __init__(self) -> None:
        self.vocabulary = CaptionVocabulary.from_captions(CAPTIONS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = DualEncoder(vocabulary_size=len(self.vocabulary)).eval()

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        return self.encoder.encode_image(images)

    def encode_captions(self, captions) -> torch.Tensor:
        return self.encoder.encode_text(self.vocabulary.encode(captions, length=16))


def draw(count: int, height: int = 48, width: int = 40, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    images = torch.rand(count, channels, height, width, generator=rng)
    masks = torch.zeros(count, 1, height, width)
    for row in range(count):
        masks[row, :, 5 + row : 9 + 3 * row, 30 - 4 * row : 34] = 1
    return images, masks


# cosines: 0.8 / 16 = 0.05 of the whole image, 0.8 of the window; scores (1 + 0.05) / 2 and (1 + 0.8) / 2
@pytest.mark.parametrize(("share", "wanted"), [(0.0, 0.525), (1.0, 0.9), (0.5, 0.7125), (0.25, 0.61875)])
def test_the_score_is_the_mean_of_image_and_window_by_their_shares(share, wanted) -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[..., :16, :16] = 0.8
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 4:12, 4:12] = 1
    scorer = ImageTextScorer(Levels(), window_size=32, share_of_window=share)
    assert float(scorer(image, mask, ["level"])) == pytest.approx(wanted, abs=1e-5)
    assert float(scorer(image, mask, ["minus"])) == pytest.approx(1 - wanted, abs=1e-5)


def test_rows_without_a_mask_have_quality_one_and_are_not_encoded() -> None:
    images, masks = draw(3)
    masks[1] = 0
    encoder = Levels()
    scores = ImageTextScorer(encoder)(images, masks, ["minus", "", "minus"])
    assert float(scores[1]) == 1
    assert bool((scores[[0, 2]] < 0.5).all())
    assert encoder.read == ["minus"]  # and each caption is read once
    assert torch.equal(ImageTextScorer(encoder)(images, masks * 0, ["", "", ""]), torch.ones(3))
    assert ImageTextScorer(encoder)(images[:0], masks[:0], []).shape == (0,)


def test_the_encoder_sees_the_image_as_it_is() -> None:
    images, masks = draw(1, 16, 16)
    encoder = Levels(16)
    before = images.clone()
    ImageTextScorer(encoder)(images, torch.ones_like(masks), ["level"])
    assert torch.equal(encoder.seen[0], images)
    assert torch.equal(encoder.seen[1], images)  # a mask that is everywhere: its window is the image
    assert torch.equal(images, before)


def test_grey_images_score_as_colour_images_without_colour() -> None:
    images, masks = draw(3, channels=1)
    scorer = ImageTextScorer(Local())
    assert torch.equal(scorer(images, masks, CAPTIONS[:3]), scorer(images.expand(-1, 3, -1, -1), masks, CAPTIONS[:3]))


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((20, 28, 20, 24), (64, 64), (16, 16, 14, 16)),  # twice the longer side, around the middle
        ((20, 24, 20, 24), (64, 64), (18, 8, 18, 8)),  # at least 8
        ((0, 8, 60, 64), (64, 64), (0, 16, 48, 16)),  # moved into the image
        ((10, 40, 0, 64), (64, 64), (0, 64, 0, 64)),  # larger than the image
        ((2, 6, 0, 40), (10, 200), (0, 10, 0, 80)),  # a narrow image keeps the whole mask
    ],
)
def test_the_window_lies_around_the_mask(box, size, expected) -> None:
    top, bottom, left, right = box
    mask = torch.zeros(1, *size)
    mask[:, top:bottom, left:right] = 1
    first, height, start, width = expected
    assert find_window(mask, least=8, margin=1.0) == (first, start, height, width)
    found = find_window(mask, least=8, margin=1.0)
    assert found[0] <= top
    assert bottom <= found[0] + found[2]
    assert found[1] <= left
    assert right <= found[1] + found[3]


def test_views_keep_values_and_average_what_they_shrink() -> None:
    image, mask = torch.zeros(3, 64, 64), torch.zeros(1, 64, 64)
    image[:, ::4] = 1
    assert (fit_view(image, 16) - 0.25).abs().max() < 0.1  # stripes become grey, they do not vanish
    mask[:, 8:12, 8:12] = 1
    top, left, height, width = find_window(mask, least=16)
    cropped = crop_view(image, mask, 16, least=16)
    assert torch.equal(cropped, image[:, top : top + height, left : left + width])


def test_a_score_does_not_depend_on_the_batch() -> None:
    images, masks = draw(5)
    scorer = ImageTextScorer(Local())
    whole = scorer(images, masks, CAPTIONS)
    assert len(set(whole.tolist())) == 5
    order = [3, 1, 4, 0, 2]
    shuffled = ImageTextScorer(Local())(images[order], masks[order], [CAPTIONS[row] for row in order])
    assert torch.equal(shuffled, whole[order])
    threads = torch.get_num_threads()
    torch.set_num_threads(threads % 2 + 1)
    try:
        for row in range(5):
            single = slice(row, row + 1)
            alone = ImageTextScorer(Local())(images[single], masks[single], CAPTIONS[single])
            assert torch.equal(alone, whole[single])
    finally:
        torch.set_num_threads(threads)
    laid_out = images.to(memory_format=torch.channels_last)
    assert torch.equal(scorer(laid_out, masks, CAPTIONS), whole)


def test_every_call_of_the_encoder_has_the_same_number_of_images() -> None:
    encoder = Levels()
    for count in (1, 3, 5):
        images, masks = draw(count)
        ImageTextScorer(encoder)(images, masks, ["level"] * count)
    assert {len(seen) for seen in encoder.seen} == {1}
    assert len(encoder.seen) == 2 * (1 + 3 + 5)


def test_threads_and_random_state_stay_as_they_were() -> None:
    images, masks = draw(2)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        ImageTextScorer(Local())(images, masks, CAPTIONS[:2])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_size": 1}, "`window_size` must be >= 2, got 1"),
        ({"share_of_window": 1.5}, r"`share_of_window` must be in \[0, 1\], got 1.5"),
        ({"margin": -0.1}, "`margin` must be >= 0, got -0.1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        ImageTextScorer(Levels(), **arguments)


def test_inputs_that_do_not_agree_are_refused() -> None:
    images, masks = draw(2)
    scorer = ImageTextScorer(Levels())
    with pytest.raises(ValueError, match="`images` must be"):
        scorer(images.byte(), masks, ["", ""])
    with pytest.raises(ValueError, match="`masks` must be"):
        scorer(images, masks[..., 1:], ["", ""])
    with pytest.raises(ValueError, match="`captions` must be 2 texts, one an image, got 1"):
        scorer(images, masks, [""])

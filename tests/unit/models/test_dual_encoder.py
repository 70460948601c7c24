"""The dual encoder: unit vectors that depend on nothing but their own row."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from anomalib_synth.models.captions import PADDING
from anomalib_synth.models.dual_encoder import MAX_LOGIT_SCALE, DualEncoder

WORDS = 40


def make(seed: int = 0, **arguments) -> DualEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DualEncoder(**{"vocabulary_size": WORDS, "dim": 16, "width": 8, "caption_length": 6} | arguments)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def draw_tokens(count: int, length: int) -> torch.Tensor:
    return torch.randint(2, WORDS, (count, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [8, 64, 96])
def test_vectors_are_unit_rows_of_the_dimension(size) -> None:
    encoder = make()
    for vectors in (encoder.encode_image(draw(3, 3, size, size)), encoder.encode_text(draw_tokens(3, 6))):
        assert vectors.shape == (3, 16)
        assert vectors.dtype == torch.float32
        assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_a_row_does_not_depend_on_the_others_of_its_batch(training) -> None:
    encoder = make().train(training)
    images, tokens = draw(5, 3, 64, 64) * torch.linspace(0.1, 1, 5).view(-1, 1, 1, 1), draw_tokens(5, 6)
    together, texts = encoder.encode_image(images), encoder.encode_text(tokens)
    assert (together[0] - together[4]).abs().max() > 1e-3  # the rows differ, else nothing is tested
    for row in range(5):
        assert torch.allclose(encoder.encode_image(images[row : row + 1])[0], together[row], atol=1e-5)
        assert torch.allclose(encoder.encode_text(tokens[row : row + 1])[0], texts[row], atol=1e-5)


def test_padding_is_not_read() -> None:
    encoder = make()
    words = draw_tokens(2, 4)
    before = encoder.encode_text(F.pad(words, (0, 2)))
    assert torch.allclose(before, encoder.encode_text(words), atol=1e-5)
    with torch.no_grad():
        encoder.text_tower.words.weight[PADDING] += 5
        encoder.text_tower.places[4:] += 5
    assert torch.allclose(before, encoder.encode_text(F.pad(words, (0, 2))), atol=1e-5)


def test_a_caption_without_words_gives_numbers() -> None:
    vectors = make().encode_text(torch.zeros(2, 6, dtype=torch.int64))
    assert bool(vectors.isfinite().all())


def test_words_and_their_order_change_the_vector() -> None:
    encoder = make()
    tokens = torch.tensor([[2, 3, 4, 0], [2, 4, 3, 0], [2, 3, 5, 0]])
    first, swapped, other = encoder.encode_text(tokens)
    assert not torch.allclose(first, swapped, atol=1e-3)
    assert not torch.allclose(first, other, atol=1e-3)


def test_a_small_defect_is_not_averaged_away() -> None:
    encoder = make(width=32, dim=64)
    image = torch.full((1, 3, 64, 64), 0.5)
    changed = image.clone()
    changed[..., 30:32, 30:32] = 0.1  # one pixel in a thousand
    assert (encoder.encode_image(image) - encoder.encode_image(changed)).norm() > 0.05


def test_it_is_small_enough_to_ship() -> None:
    encoder = DualEncoder(vocabulary_size=200)
    assert sum(parameter.numel() for parameter in encoder.image_tower.parameters()) <= 250_000
    assert sum(parameter.numel() for parameter in encoder.parameters()) <= 450_000


def test_config_and_weights_rebuild_it() -> None:
    encoder = make(3)
    twin = DualEncoder(**encoder.config)
    twin.load_state_dict(encoder.state_dict())
    images = draw(2, 3, 64, 64)
    assert torch.equal(twin.encode_image(images), encoder.encode_image(images))
    assert torch.equal(twin.encode_text(draw_tokens(2, 6)), encoder.encode_text(draw_tokens(2, 6)))


def test_half_precision_weights_change_little() -> None:
    encoder, twin = make(), make()
    twin.load_state_dict({name: value.half().float() for name, value in encoder.state_dict().items()})
    images = draw(4, 3, 64, 64)
    assert ((encoder.encode_image(images) * twin.encode_image(images)).sum(1) > 0.999).all()


def test_the_logit_scale_is_limited() -> None:
    encoder = make()
    assert float(encoder.logit_scale) == pytest.approx(1 / 0.07, rel=1e-4)
    with torch.no_grad():
        encoder.log_scale.fill_(20)
    assert float(encoder.logit_scale) == MAX_LOGIT_SCALE


@pytest.mark.parametrize(("dim", "width"), [(0, 32), (66, 32), (64, 0), (64, 12)])
def test_sizes_that_cannot_be_divided_are_refused(dim, width) -> None:
    with pytest.raises(ValueError, match="multiple of"):
        DualEncoder(vocabulary_size=10, dim=dim, width=width)

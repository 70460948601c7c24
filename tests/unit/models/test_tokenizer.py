"""The tokenizer against hand-made codebooks and a loop over pixels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from anomalib_synth.models.tokenizer import WindowTokenizer, enlarge, pool
from tests.unit.models.small_bundle import make_models


@pytest.fixture(scope="module")
def tokenizer() -> WindowTokenizer:
    return make_models()["tokenizer"]


@pytest.mark.parametrize("side", [64, 128])
def test_windows_of_any_size_keep_the_size_of_a_token(tokenizer, side) -> None:
    z = tokenizer.encode(torch.rand(2, 3, side, side))
    tokens, f = tokenizer.tokenize(z)
    assert z.shape == f.shape == (2, 8, side // 4, side // 4)
    assert [each.shape[-1] for each in tokens] == [side // 4 // stride for stride in tokenizer.strides]
    assert tokenizer.decode(f).shape == (2, 3, side, side)


def test_quantize_finds_the_nearest_vector(tokenizer) -> None:
    residual = torch.randn(1, 8, 16, 16)
    distances = torch.cdist(residual.flatten(2)[0].T, tokenizer.codebooks[6])
    assert torch.equal(tokenizer.quantize(residual, 6).flatten(), distances.argmin(1))


def test_latents_are_the_sum_of_what_the_tokens_stand_for(tokenizer) -> None:
    tokens, f = tokenizer.tokenize(torch.randn(1, 8, 16, 16))
    parts = [tokenizer.embed(r, scale) for scale, r in enumerate(tokens)]
    torch.testing.assert_close(sum(parts), f)
    assert parts[0].flatten(2).std(2).max() < 1e-6  # one token for the whole window


def test_pool_and_enlarge_keep_a_constant() -> None:
    flat = torch.full((1, 2, 16, 16), 0.7)
    torch.testing.assert_close(enlarge(pool(flat, 4), 4), flat)


def test_gate_takes_every_token_that_a_thin_line_touches(tokenizer) -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[0, 0, 17, 3:9] = 1
    for scale, stride in enumerate(tokenizer.strides):
        side = 4 * stride
        cells = {(17 // side, column // side) for column in range(3, 9)}
        assert {tuple(cell) for cell in tokenizer.gate(mask, scale)[0].nonzero().tolist()} == cells


def test_encoder_is_local(tokenizer) -> None:
    image = torch.rand(1, 3, 128, 128)
    changed = image.clone()
    changed[..., :8, :8] = 0
    difference = (tokenizer.encode(image) - tokenizer.encode(changed)).abs().sum(1)
    assert difference[..., :2, :2].min() > 0
    assert F.max_pool2d(difference[..., 12:, 12:], 4).max() == 0

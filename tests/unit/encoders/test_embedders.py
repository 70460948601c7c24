"""Embedders: unit vectors with the same bits whatever stands beside, weights on first use, clear errors."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.encoders.embedders import DEFAULT_EMBEDDER, TimmEmbedder, embed_rows, load_embedder
from tests.unit.models.small_clip import make_clip
from tests.unit.retrieval.small import write_bundle

WINDOWS = torch.rand(5, 3, 128, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def embedders(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("embedders")
    pytest.importorskip("open_clip")
    return {
        "timm": TimmEmbedder("resnet10t", pretrained=False),
        "default": load_embedder(DEFAULT_EMBEDDER),
        "bundle": load_embedder(write_bundle(folder / "bundle")),
        "open_clip": load_embedder(make_clip(folder / "clip")),
    }


@pytest.mark.parametrize("kind", ["timm", "default", "bundle", "open_clip"])
def test_vectors_have_unit_length_and_the_same_bits_in_any_company(embedders, kind) -> None:
    embedder = embedders[kind]
    windows = list(torch.nn.functional.interpolate(WINDOWS, (embedder.image_size,) * 2))
    state = torch.get_rng_state()
    vectors = embed_rows(embedder, windows)
    assert torch.equal(torch.get_rng_state(), state)
    assert vectors.shape[0] == 5
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    assert torch.equal(embed_rows(embedder, windows[::-1]), vectors.flip(0))
    assert torch.equal(embed_rows(embedder, windows[2:3])[0], vectors[2])
    assert len({tuple(vector.tolist()) for vector in vectors}) == 5


def test_timm_pools_mean_and_spread_of_strides_8_and_16() -> None:
    embedder = TimmEmbedder("resnet10t", pretrained=False)
    assert embedder.model.feature_info.reduction() == [8, 16]
    windows = WINDOWS[:2]
    levels = embedder.model((windows - torch.tensor(embedder._config["mean"]).view(3, 1, 1)) / torch.tensor(
        embedder._config["std"]).view(3, 1, 1))  # fmt: skip
    parts = []
    for level in levels:
        part = torch.cat([level.mean((2, 3)), level.std((2, 3), correction=0)], 1)
        parts.append(part / part.norm(dim=1, keepdim=True))
    wanted = torch.cat(parts, 1) / 2**0.5
    torch.testing.assert_close(embedder.embed(windows), wanted)


def test_a_transformer_of_one_stride_and_fixed_size_works() -> None:
    embedder = TimmEmbedder("vit_tiny_patch16_224", pretrained=False)
    assert embedder.image_size == 224
    assert embedder.embed(torch.rand(1, 3, 224, 224)).shape == (1, 2 * 2 * 192)


def test_the_digest_follows_the_weights(tmp_path) -> None:
    first, second = (load_embedder(write_bundle(tmp_path / str(seed), seed)) for seed in (0, 1))
    assert first.weights_hash != second.weights_hash
    torch.manual_seed(0)
    one = TimmEmbedder("resnet10t", pretrained=False)
    assert one.weights_hash == TimmEmbedder("resnet10t", pretrained=False).weights_hash
    torch.manual_seed(1)
    assert one.weights_hash != TimmEmbedder("resnet10t", pretrained=False).weights_hash


def test_nothing_is_read_before_it_is_used(tmp_path) -> None:
    for name in (f"bundle:{tmp_path}/none", "timm:local-dir:/nowhere", "open_clip:local-dir:/nowhere"):
        assert load_embedder(name).name == name
    with pytest.raises(ValueError, match="is no bundle"):
        _ = load_embedder(f"bundle:{tmp_path}/none").weights_hash
    with pytest.raises(OSError, match=r"timm cannot load 'no_such_model'.*local-dir:/path.*efficientnet_lite0"):
        _ = load_embedder("timm:no_such_model").image_size


@pytest.mark.parametrize("name", ["resnet18", "timm:", "bundled", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name) -> None:
    with pytest.raises(ValueError, match=r"`embedder` must be `timm:MODEL`.*needs no download"):
        load_embedder(name)

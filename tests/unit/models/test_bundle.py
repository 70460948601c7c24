"""Bundles: written, read, refused."""

from __future__ import annotations

import json

import pytest
import torch

from anomalib_synth.models.bundle import load_bundle, save_bundle
from tests.unit.models.small_bundle import make_bundle, make_models, vocabulary


def test_models_come_back_as_they_were(tmp_path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    for name, model in make_models().items():
        loaded = getattr(bundle, name)()
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key
    assert bundle.vocabulary.words == vocabulary().words
    assert bundle.card == {"note": "random weights"}


def test_half_precision_is_half_the_size_and_loads_as_float32(tmp_path) -> None:
    sizes = []
    for half in (False, True):
        bundle = save_bundle(tmp_path / str(half), make_models(), vocabulary(), {}, half=half)
        sizes.append((bundle.path / "token_model.safetensors").stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]
    assert {value.dtype for value in bundle.token_model().state_dict().values()} == {torch.float32}


def test_weights_hash_follows_weights_and_words(tmp_path) -> None:
    first, same, other = (make_bundle(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first.weights_hash == same.weights_hash != other.weights_hash
    file = tmp_path / "b" / "bundle.json"
    head = json.loads(file.read_text())
    head["vocabulary"][0] = "other"
    file.write_text(json.dumps(head))
    assert load_bundle(tmp_path / "b").weights_hash != first.weights_hash


def test_bad_bundles_are_errors(tmp_path) -> None:
    with pytest.raises(ValueError, match="is no bundle"):
        load_bundle(tmp_path / "none")
    bundle = make_bundle(tmp_path / "bundle")
    (bundle.path / "tokenizer.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="does not fit its bundle"):
        bundle.tokenizer()
    (bundle.path / "token_model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        load_bundle(bundle.path).token_model()
    head = json.loads((bundle.path / "bundle.json").read_text())
    (bundle.path / "bundle.json").write_text(json.dumps({**head, "format": 2}))
    with pytest.raises(ValueError, match="Upgrade anomalib-synth"):
        load_bundle(bundle.path)
    (bundle.path / "bundle.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_bundle(bundle.path)

"""The pretrained encoder that a bundle names: taken from this machine, and from a hub only where the user asks."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch

from anomalib_synth.encoders.text import load_backend
from anomalib_synth.generators import AutoregressiveGenerator
from anomalib_synth.models.bundle import Bundle, load_bundle, save_bundle
from anomalib_synth.models.token_transformer import TokenTransformer
from tests.unit.models.small_bundle import make_bundle, make_models, vocabulary
from tests.unit.models.small_clip import make_clip

pytest.importorskip("open_clip", reason="the extra `clip` is not installed")

HUB = [
    "open_clip:hf-hub:org/name",
    "open_clip:ViT-B-32:openai",
    "open_clip:ViT-B-16-SigLIP:webli",
    "open_clip:ViT-B-32:x",
]


@pytest.fixture(autouse=True)
def attempts(monkeypatch) -> list[object]:
    made: list[object] = []

    def note(*args: object, **kwargs: object) -> None:
        made.append(args)
        raise OSError(args)

    monkeypatch.setattr(socket, "getaddrinfo", note)
    monkeypatch.setattr(socket.socket, "connect", note)
    return made


def make_bundle_by(path: Path, name: str, digest: str = "0" * 32) -> Bundle:
    """A bundle whose token model reads texts by a pretrained encoder."""
    models = make_models()
    with torch.random.fork_rng():
        models["token_model"] = TokenTransformer(
            channels=8, codebook_size=32, num_scales=7, vocabulary_size=len(vocabulary()), dim=32, depth=1, heads=2,
            text_channels=12,
        )  # fmt: skip
    encoder = {"name": name, "weights_hash": digest}
    return save_bundle(path, models, vocabulary(), {}, text_encoder=encoder, half=False)


@pytest.mark.parametrize("name", HUB)
def test_an_encoder_is_refused_when_a_bundle_names_what_would_be_fetched(tmp_path, attempts, name) -> None:
    bundle = make_bundle_by(tmp_path / "bundle", name)
    with pytest.raises(ValueError, match=rf"must not name a `text_encoder` .*got '{name}'.*text_encoder='{name}'"):
        _ = AutoregressiveGenerator(bundle=bundle.path).backend
    assert attempts == []


@pytest.mark.parametrize("model", ["roberta-ViT-B-32", "ViT-B-16-SigLIP"])
def test_an_encoder_is_refused_when_only_its_weights_are_a_file(tmp_path, attempts, model) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"")
    bundle = make_bundle_by(tmp_path / "bundle", f"open_clip:{model}:{tmp_path / 'weights.safetensors'}")
    with pytest.raises(ValueError, match="must not name a `text_encoder` that is not on this machine"):
        load_backend(bundle)
    assert attempts == []


def test_an_encoder_is_asked_for_when_the_user_names_it(tmp_path) -> None:
    bundle = make_bundle_by(tmp_path / "bundle", HUB[0])
    with pytest.raises(OSError, match="open_clip cannot load hf-hub:org/name"):
        _ = AutoregressiveGenerator(bundle=bundle.path, text_encoder=HUB[0]).backend


def test_an_encoder_is_refused_when_the_user_names_another(tmp_path) -> None:
    bundle = make_bundle_by(tmp_path / "bundle", HUB[0])
    with pytest.raises(ValueError, match=rf"must be the encoder that .* was fitted with, {HUB[0]}, got"):
        _ = AutoregressiveGenerator(bundle=bundle.path, text_encoder=HUB[1]).backend
    with pytest.raises(ValueError, match="none: it reads words, got"):
        load_backend(make_bundle(tmp_path / "words"), text_encoder=HUB[0])


def test_an_encoder_on_this_machine_needs_no_word_when_its_digest_agrees(tmp_path) -> None:
    name = make_clip(tmp_path / "clip")
    with pytest.raises(ValueError, match="are others than those that bundle"):
        load_backend(make_bundle_by(tmp_path / "other", name))
    from anomalib_synth.encoders.text import OpenClipTextEncoder

    digest = OpenClipTextEncoder(name).encoder.weights_hash
    assert load_backend(make_bundle_by(tmp_path / "bundle", name, digest)).reader.channels == 12


def test_an_encoder_is_refused_with_one_kind_of_error_when_its_folder_is_gone(tmp_path) -> None:
    bundle = make_bundle_by(tmp_path / "bundle", f"open_clip:local-dir:{tmp_path / 'gone'}")
    with pytest.raises(ValueError, match="must name a `text_encoder` that can be loaded"):
        load_backend(bundle)


def test_the_argument_is_kept_when_a_generator_is_described() -> None:
    assert AutoregressiveGenerator(text_encoder=HUB[0]).init_args["text_encoder"] == HUB[0]
    assert "text_encoder" not in AutoregressiveGenerator().init_args  # as older stores have it


def test_a_head_names_an_encoder_only_with_its_channels(tmp_path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    head = json.loads((bundle.path / "bundle.json").read_text())
    head["text_encoder"] = {"name": HUB[0], "weights_hash": "0" * 32}
    (bundle.path / "bundle.json").write_text(json.dumps(head))
    with pytest.raises(ValueError, match=r"`models.token_model.text_channels` must be a number where"):
        load_bundle(bundle.path)

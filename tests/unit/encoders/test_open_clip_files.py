"""Models of open_clip in folders: whole, or refused by name; what their configuration names is not followed."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from anomalib_synth.quality import OpenClipDualEncoder
from tests.unit.models.small_clip import make_clip
from tests.unit.models.small_edits import edit_json, edit_weights

pytest.importorskip("open_clip", reason="the extra `clip` is not installed")
CONFIG = "open_clip_config.json"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def folder(tmp_path) -> Path:
    make_clip(tmp_path / "clip")
    return tmp_path / "clip"


def load(folder: Path) -> OpenClipDualEncoder:
    encoder = OpenClipDualEncoder(f"local-dir:{folder}")
    encoder.encode_captions(["a scratch"])
    return encoder


def edit_tower(folder: Path, tower: str, entries: dict[str, object]) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config["model_cfg"][tower] |= entries
    (folder / CONFIG).write_text(json.dumps(config))


def test_a_folder_loads_when_it_is_whole(folder) -> None:
    assert load(folder).image_size == 32


@pytest.mark.parametrize(
    ("kind", "said"),
    [("missing", r"Missing key\(s\).*"), ("unexpected", r"Unexpected key\(s\).*"), ("misshapen", ".*")],
)
def test_weights_are_refused_by_name_when_they_do_not_fit(folder, kind, said) -> None:
    name = edit_weights(folder, kind, about="transformer")
    with pytest.raises(ValueError, match=rf"must hold the weights of its whole model: .*{said}{name}.*Fetch the model"):
        load(folder)


def test_position_embeddings_are_refused_when_open_clip_would_stretch_them(folder) -> None:
    edit_tower(folder, "text_cfg", {"context_length": 12})
    with pytest.raises(ValueError, match=r"of another shape \('positional_embedding: \(16, 16\) for \(12, 16\)"):
        load(folder)


@pytest.mark.parametrize(
    ("tower", "entries", "said"),
    [
        ("text_cfg", {"hf_model_name": "roberta-base"}, "code of its own, got `model_cfg.text_cfg.hf_model_name"),
        ("text_cfg", {"hf_tokenizer_name": "org/name"}, "must come with the tokenizer's files in the folder"),
        ("text_cfg", {"tokenizer_kwargs": {"trust_remote_code": True}}, "code of its own"),
        ("text_cfg", {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}, "`text_cfg.tokenizer_kwargs` must be among"),
        ("vision_cfg", {"timm_model_name": "hf-hub:org/name"}, "repository of a hub"),
        ("vision_cfg", {"timm_model_name": "local-dir:/x"}, "must be a plain name of timm"),
        ("text_cfg", {"vocab_size": 10**12}, "no size beyond"),
        ("text_cfg", {"vocab_size": 9 * 10**6}, r"takes at least \d+ weights, its file has"),
        ("text_cfg", {"layers": 10**6}, "at most 1024 layers"),
        ("vision_cfg", {"width": 10**6}, r"takes at least \d+ weights"),
        ("vision_cfg", {"width": "64"}, "must have integers >= 0 as sizes"),
    ],
)
def test_a_configuration_is_refused_when_it_names_a_hub_or_endless_sizes(folder, tower, entries, said) -> None:
    edit_tower(folder, tower, entries)
    with pytest.raises(ValueError, match=said):
        load(folder)


def test_a_tokenizer_is_refused_when_its_file_names_code(folder) -> None:
    edit_tower(folder, "text_cfg", {"hf_tokenizer_name": "org/name"})
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.T", null]}}')
    with pytest.raises(ValueError, match="code of its own, got `auto_map"):
        load(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": 5}', '{"model_cfg": {"text_cfg": {}}}'])
def test_a_configuration_is_refused_when_it_is_damaged(folder, content) -> None:
    (folder / CONFIG).write_text(content)
    with pytest.raises(ValueError, match=f"{CONFIG}.*Fetch the model again"):
        load(folder)


def test_a_folder_is_refused_when_it_has_no_weights(folder) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"must hold the weights of its model as \*\.safetensors"):
        load(folder)


def test_a_configuration_of_other_keys_still_loads_when_they_name_nothing(folder) -> None:
    edit_json(folder / CONFIG, {"note": "mine"})
    assert load(folder).image_size == 32

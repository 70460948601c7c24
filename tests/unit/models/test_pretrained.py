"""Checkpoints of diffusers and transformers: whole, or refused by what does not fit; nothing is fetched."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest

from anomalib_synth.models.diffusion import CARD, DiffusionEditor
from anomalib_synth.models.janus import JanusCheckpoint
from tests.unit.models.small_diffusion import make_pipeline
from tests.unit.models.small_edits import edit_json, edit_weights
from tests.unit.models.small_janus import make_janus

SAID = {"missing": "tensor is missing", "unexpected": "tensor is unexpected", "misshapen": "tensor is of another shape"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("diffusion") / "pipeline")


@pytest.fixture(scope="module")
def janus(tmp_path_factory) -> Path:
    return make_janus(tmp_path_factory.mktemp("janus"))


@pytest.fixture
def pipeline(pipelines, tmp_path) -> Path:
    return shutil.copytree(pipelines, tmp_path / "pipeline")


@pytest.fixture
def checkpoint(janus, tmp_path) -> Path:
    return shutil.copytree(janus, tmp_path / "janus")


@pytest.mark.parametrize("kind", sorted(SAID))
@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder"])
def test_a_pipeline_is_refused_by_name_when_a_part_does_not_fit(pipeline, part, kind) -> None:
    name = edit_weights(pipeline / part, kind)
    with pytest.raises(ValueError, match=rf"`{part}` in .*1 {SAID[kind]} \('{name}.*Fetch the pipeline again"):
        _ = DiffusionEditor(pipeline).pipe


def test_a_pipeline_is_refused_when_an_image_encoder_is_incomplete(pipeline) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
        projection_dim=16,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(pipeline / "image_encoder")
    edit_json(pipeline / "model_index.json", {"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]})
    assert DiffusionEditor(pipeline).pipe.image_encoder is not None
    name = edit_weights(pipeline / "image_encoder", "missing")
    with pytest.raises(ValueError, match=rf"`image_encoder` in .*missing \('{name}"):
        _ = DiffusionEditor(pipeline).pipe


def test_a_pipeline_is_refused_when_a_part_of_another_takes_its_place(pipeline) -> None:
    shutil.rmtree(pipeline / "vae")
    shutil.copytree(pipeline / "unet", pipeline / "vae")
    with pytest.raises(ValueError, match="`vae` in "):
        _ = DiffusionEditor(pipeline).pipe


def test_a_pipeline_is_refused_when_a_part_is_not_there(pipeline) -> None:
    shutil.rmtree(pipeline / "text_encoder")
    with pytest.raises(ValueError, match="must hold its component `text_encoder`"):
        _ = DiffusionEditor(pipeline).pipe


def test_a_pipeline_is_refused_when_its_tokenizer_has_more_words_than_its_encoder(pipeline) -> None:
    file = pipeline / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"word{n}</w>": 10_000 + n for n in range(10)}
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"`tokenizer` in .*no more tokens than its text encoder knows"):
        _ = DiffusionEditor(pipeline).pipe


@pytest.mark.parametrize(
    "entry",
    [
        ["evil_module", "Evil"],
        ["evil_module", "AutoencoderKL"],
        ["diffusers", "evil_module"],
        ["transformers", "pipeline"],
        ["diffusers.utils", "logging"],
        ["diffusers"],
    ],
)
def test_nothing_is_imported_when_an_index_names_a_foreign_class(pipeline, entry, monkeypatch) -> None:
    (pipeline / "evil_module.py").write_text("raise SystemExit('run')")
    (pipeline / "vae" / "evil_module.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(pipeline)
    edit_json(pipeline / "model_index.json", {"vae": entry})
    said = "must name classes of diffusers and transformers alone, got `vae`|of each component, but has none for vae"
    with pytest.raises(ValueError, match=said):
        _ = DiffusionEditor(pipeline).pipe
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    ("file", "entries", "said"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "code of its own, got `auto_map"),
        ("text_encoder/config.json", {"attn_implementation": "org/kernel"}, "kernel of a hub, got `attn_impl"),
        ("text_encoder/config.json", {"_attn_implementation": {"": "org/kernel"}}, "kernel of a hub"),
        ("text_encoder/config.json", {"vision": {"model_type": "timm_wrapper"}}, "repository of a hub, got `vision"),
        ("text_encoder/config.json", {"backbone": "hf-hub:org/name"}, "repository of a hub, got `backbone"),
        ("text_encoder/config.json", {"vocab_size": 10**12}, r"no size beyond 10000000, got `vocab_size` 10{12}"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**6}, "at most 1024 layers"),
        ("unet/config.json", {"layers_per_block": 10**12}, "at most 1024 layers"),
        ("vae/config.json", {"block_out_channels": [10**6] * 3}, r"must hold the \d+ weights its config.json asks for"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "code of its own"),
        ("model_index.json", {"custom_pipeline": "org/name"}, "code of its own"),
        ("model_index.json", {"../outside": ["diffusers", "AutoencoderKL"]}, "must name its components by a word"),
        ("unet/adapter_config.json", {}, "must hold a whole model, got an adapter"),
        (
            "unet/diffusion_pytorch_model.safetensors.index.json",
            {"weight_map": {"a": "../../x"}},
            "files of its folder",
        ),
    ],
)
def test_a_pipeline_is_refused_when_its_json_names_a_hub_code_or_endless_sizes(pipeline, file, entries, said) -> None:
    path = pipeline / file
    if not path.exists():
        path.write_text("{}")
    edit_json(path, entries)
    with pytest.raises(ValueError, match=said):
        _ = DiffusionEditor(pipeline).pipe


@pytest.mark.parametrize("content", ["[]", "{", "null", "[" * 100_000, '{"recommended": {"guidance_scale": NaN}}'])
@pytest.mark.parametrize("file", ["model_index.json", CARD])
def test_json_of_a_pipeline_is_refused_when_it_is_damaged(pipeline, file, content) -> None:
    (pipeline / file).write_text(content)
    with pytest.raises(ValueError, match=f"{file}|must be a class of diffusers, got None"):
        _ = DiffusionEditor(pipeline).guidance, DiffusionEditor(pipeline).pipe


@pytest.mark.parametrize("card", [{"recommended": {"guidance_scale": "7"}}, {"recommended": {"x": 2}}, {"words": "a"}])
def test_a_card_is_refused_when_it_holds_other_types(pipeline, card) -> None:
    (pipeline / CARD).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=rf"{CARD}.* must hold .*Fetch the pipeline again"):
        _ = DiffusionEditor(pipeline).guidance


@pytest.mark.parametrize("kind", sorted(SAID))
def test_a_janus_model_is_refused_by_name_when_it_does_not_fit(checkpoint, kind) -> None:
    name = edit_weights(checkpoint, kind, about="language_model.layers.1")
    with pytest.raises(ValueError, match=rf"1 {SAID[kind]} \('{name}.*Fetch it again"):
        JanusCheckpoint(checkpoint).backend()


def test_a_janus_model_is_refused_when_its_json_names_code(checkpoint, monkeypatch) -> None:
    (checkpoint / "evil.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(checkpoint)
    edit_json(checkpoint / "processor_config.json", {"auto_map": {"AutoProcessor": "evil.P"}})
    with pytest.raises(ValueError, match="code of its own, got `auto_map"):
        JanusCheckpoint(checkpoint).backend()
    assert "evil" not in sys.modules


def test_a_janus_model_is_refused_when_its_config_asks_for_more_than_its_files_hold(checkpoint) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["vocab_size"] = 9_000_000
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"must hold the \d+ weights its config.json asks for"):
        JanusCheckpoint(checkpoint).backend()

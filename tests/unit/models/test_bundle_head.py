"""Malformed bundles: one kind of error, which names file, field, rule and value; no loop, no memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from anomalib_synth.models.bundle import load_bundle
from tests.unit.models.small_bundle import make_bundle
from tests.unit.models.small_edits import edit_weights


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_bundle(tmp_path / "bundle").path


def edit(folder: Path, place: str, value: object) -> None:
    """Set one entry of bundle.json; None for the value takes it out."""
    file = folder / "bundle.json"
    head = json.loads(file.read_text())
    *outer, last = place.split(".")
    target = head
    for key in outer:
        target = target[key]
    if value is None:
        del target[last]
    else:
        target[last] = value
    file.write_text(json.dumps(head))


@pytest.mark.parametrize("size", [10**12, 0, -1, 1.5, True, "64", [64], 2**70])
@pytest.mark.parametrize(
    "place",
    [
        "models.tokenizer.channels", "models.tokenizer.depth", "models.tokenizer.codebook_size",
        "models.token_model.depth", "models.token_model.num_scales", "models.token_model.vocabulary_size",
        "models.token_model.heads", "models.dual_encoder.dim", "models.dual_encoder.caption_length",
    ],
)  # fmt: skip
def test_a_size_is_refused_by_its_field_when_it_is_out_of_range(folder, place, size) -> None:
    if place.endswith("depth") and size == 0:
        size = 10**9
    edit(folder, place, size)
    with pytest.raises(ValueError, match=rf"bundle.json': `{place}` must be an integer in \[\d+, \d+\], got .*again"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("format", None, "`format` must be 1, got None"),
        ("models.token_model.mask_cells", 3, "`models.token_model.mask_cells` must divide the tokenizer's `patch` = 4"),
        ("models.token_model.mask_cells", 0, "`models.token_model.mask_cells` must be an integer in"),
        ("models.token_model.context_only", 1, "`models.token_model.context_only` must be true or false, got 1"),
        ("format", "1", "`format` must be 1, got '1'"),
        ("format", True, "`format` must be 1, got True"),
        ("format", 2, "Upgrade anomalib-synth"),
        ("vocabulary", None, r"must have the fields .*got \"none of \['vocabulary'\]\""),
        ("vocabulary", "a dark scratch", "`vocabulary` must be a list of words"),
        ("vocabulary", ["a", 5], r"`vocabulary\[1\]` must be a word"),
        ("vocabulary", ["a", "a"], "`vocabulary` must have each word once"),
        ("vocabulary", ["a"], "vocabulary_size` must be 3, as the vocabulary asks for"),
        ("card", [], "`card` must be an object"),
        ("models", [], "`models` must be among"),
        ("models.other", {}, "`models` must be among"),
        ("models.tokenizer", 5, "`models.tokenizer` must be an object"),
        ("models.tokenizer.patch", None, r"`models.tokenizer` must have all arguments .*none of \['patch'\]"),
        ("models.tokenizer.device", "cuda", r"alone, got \['device'\]"),
        ("models.tokenizer.strides", [16, 3], "`models.tokenizer.strides` must be a list of strides"),
        ("models.tokenizer.strides", [1] * 7 * 10, "`models.tokenizer.strides` must be a list of strides"),
        ("models.tokenizer.channels", 4, "`models.token_model.channels` must be that of the tokenizer, 4, got 8"),
        ("models.token_model.frozen_scales", 7, "must be below `num_scales` = 7"),
        ("models.token_model.dim", 30, "must be a multiple of 4 x `heads` = 8"),
        ("models.token_model.text_channels", 12, "must be null where the bundle names no `text_encoder`"),
        ("text_encoder", "open_clip:ViT-B-32:openai", "`text_encoder` must be an object of two texts"),
        ("text_encoder", {"name": "t5", "weights_hash": "0" * 32}, "`text_encoder.name` must start with"),
        ("text_encoder", {"name": "open_clip:a:b", "weights_hash": "x"}, "must be 32 hexadecimal digits"),
    ],
)
def test_an_entry_is_refused_by_its_field_when_it_breaks_a_rule(folder, place, value, said) -> None:
    edit(folder, place, value)
    with pytest.raises(ValueError, match=said):
        load_bundle(folder)


@pytest.mark.parametrize("text", ["", "null", "[]", "5", '"a"', "{", "\ufeff{}", "[" * 100_000, '{"format": NaN}'])
def test_a_head_is_refused_when_it_is_no_object_of_json(folder, text) -> None:
    (folder / "bundle.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"bundle.json' of the bundle must .*Fit the bundle again"):
        load_bundle(folder)


def test_a_folder_in_place_of_the_head_is_refused(folder) -> None:
    (folder / "bundle.json").unlink()
    (folder / "bundle.json").mkdir()
    with pytest.raises(ValueError, match="is no bundle"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("kind", "said"), [("missing", "missing"), ("unexpected", "unexpected"), ("misshapen", "of another shape")]
)
def test_weights_are_refused_by_name_when_they_do_not_fit(folder, tmp_path, kind, said) -> None:
    only = tmp_path / "only"
    only.mkdir()
    (folder / "token_model.safetensors").rename(only / "token_model.safetensors")
    name = edit_weights(only, kind)
    (only / "token_model.safetensors").rename(folder / "token_model.safetensors")
    with pytest.raises(ValueError, match=rf"`models.token_model` and no others; 1 tensor is {said} \('{name}"):
        load_bundle(folder).token_model()


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_weights_are_refused_when_they_are_cut(folder, cut) -> None:
    file = folder / "dual_encoder.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"dual_encoder.safetensors' does not fit .* no safetensors file"):
        load_bundle(folder).dual_encoder()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_are_refused_when_they_are_not_finite(folder, value) -> None:
    file = folder / "dual_encoder.safetensors"
    state = load_file(file)
    state["log_scale"] = torch.tensor(value)
    save_file(state, file)
    with pytest.raises(ValueError, match="'log_scale' holds values that are no finite numbers"):
        load_bundle(folder).dual_encoder()


def test_weights_are_refused_when_they_are_integers(folder) -> None:
    file = folder / "dual_encoder.safetensors"
    state = load_file(file)
    state["log_scale"] = torch.tensor(2)
    save_file(state, file)
    with pytest.raises(ValueError, match="'log_scale' holds values that are no finite numbers"):
        load_bundle(folder).dual_encoder()


def test_weights_are_refused_unread_when_the_file_is_far_too_large(folder) -> None:
    with (folder / "tokenizer.safetensors").open("r+b") as file:
        file.truncate(2**40)  # a hole: no disk is used
    with pytest.raises(ValueError, match=r"it has 1099511627776 bytes, the model takes at most"):
        load_bundle(folder).tokenizer()

"""Checks of ``bundle.json``: type, range and consistency of every field, before a model is built from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from anomalib_synth.models.captions import UNKNOWN
from anomalib_synth.models.config_files import read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
_REMEDY = "Fit the bundle again, or fetch it again."
_FIELDS = {"format", "vocabulary", "models", "card"}
_MOST_WORDS = 2**17
_LONGEST_WORD = 1000
_WINDOW = 64  # a token of any scale covers at most this many pixels per side
_HASH = re.compile(r"[0-9a-f]{32}")


class _Range(NamedTuple):
    least: int
    most: int


_RANGES = {
    "tokenizer": {
        "channels": _Range(1, 1024),
        "width": _Range(1, 4096),
        "depth": _Range(0, 64),
        "patch": _Range(1, _WINDOW),
        "codebook_size": _Range(1, 2**17),
    },
    "token_model": {
        "channels": _Range(1, 1024),
        "codebook_size": _Range(1, 2**17),
        "num_scales": _Range(1, 64),
        "frozen_scales": _Range(0, 63),
        "vocabulary_size": _Range(UNKNOWN + 1, _MOST_WORDS + UNKNOWN + 1),
        "caption_length": _Range(1, 1024),
        "dim": _Range(4, 8192),
        "depth": _Range(0, 128),
        "heads": _Range(1, 128),
        "text_channels": _Range(1, 2**16),
        "mask_cells": _Range(1, _WINDOW),
    },
    "dual_encoder": {
        "vocabulary_size": _Range(UNKNOWN + 1, _MOST_WORDS + UNKNOWN + 1),
        "dim": _Range(4, 8192),
        "width": _Range(8, 4096),
        "caption_length": _Range(1, 1024),
    },
}
_LISTS = {"tokenizer": {"strides"}}
_SWITCHES = {"token_model": {"context_only"}}
_NULLABLE = {"text_channels"}
_OPTIONAL = {"token_model": {"text_channels", "mask_cells", "context_only"}}


def read_head(path: Path) -> dict[str, Any]:
    """Return the checked content of a ``bundle.json``.

    Raises:
        ValueError: If a field breaks a rule; the message names file, field, rule and value.
    """
    if not path.is_file():
        msg = f"{str(path.parent)!r} is no bundle: it has no bundle.json. Make one with `anomalib-synth fit --out`."
        raise ValueError(msg)
    head = read_json_object(path, what="bundle", remedy=f"It is damaged. {_REMEDY}")
    check = _Checker(path)
    version = head.get("format")
    if type(version) is int and version > FORMAT:
        msg = (
            f"{str(path)!r} has format {version}, this version reads format {FORMAT}. Upgrade anomalib-synth, or fit "
            "the bundle again."
        )
        raise ValueError(msg)
    check(type(version) is int and version == FORMAT, "format", f"must be {FORMAT}", version)
    missing = sorted(_FIELDS - set(head))
    check(not missing, "bundle.json", f"must have the fields {sorted(_FIELDS)}", f"none of {missing}")
    check.vocabulary(head["vocabulary"])
    check(isinstance(head["card"], dict), "card", "must be an object", head["card"])
    models = head["models"]
    check(isinstance(models, dict) and set(models) <= set(_RANGES), "models", f"must be among {list(_RANGES)}", models)
    for name, arguments in models.items():
        check.arguments(name, arguments)
    check.agreement(models, len(head["vocabulary"]) + UNKNOWN + 1)
    check.text_encoder(head.get("text_encoder"), models)
    return head


class _Checker:
    """Raises a ValueError that names file, field, rule, value and remedy."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, right: bool, field: str, rule: str, value: Any) -> None:
        if not right:
            shown = repr(value) if len(repr(value)) <= 100 else repr(value)[:100] + " ..."
            msg = f"{str(self.path)!r}: `{field}` {rule}, got {shown}. {_REMEDY}"
            raise ValueError(msg)

    def vocabulary(self, words: Any) -> None:
        self(isinstance(words, list) and len(words) <= _MOST_WORDS, "vocabulary", "must be a list of words", words)
        for index, word in enumerate(words):
            right = isinstance(word, str) and 0 < len(word) <= _LONGEST_WORD
            self(right, f"vocabulary[{index}]", f"must be a word of at most {_LONGEST_WORD} characters", word)
        self(len(set(words)) == len(words), "vocabulary", "must have each word once", words)

    def arguments(self, name: str, arguments: Any) -> None:
        ranges, place = _RANGES[name], f"models.{name}"
        switches = _SWITCHES.get(name, set())
        known = set(ranges) | switches | _LISTS.get(name, set())
        self(isinstance(arguments, dict), place, "must be an object", arguments)
        missing = sorted(known - _OPTIONAL.get(name, set()) - set(arguments))
        self(not missing, place, "must have all arguments of its model", f"none of {missing}")
        unknown = sorted(set(arguments) - known)
        self(not unknown, place, f"must have the arguments {sorted(known)} alone", unknown)
        for key, value in arguments.items():
            if key in switches:
                self(isinstance(value, bool), f"{place}.{key}", "must be true or false", value)
            if key in ranges and not (value is None and key in _NULLABLE):
                least, most = ranges[key]
                self(_is_in(value, least, most), f"{place}.{key}", f"must be an integer in [{least}, {most}]", value)

    def agreement(self, models: Mapping[str, Any], vocabulary_size: int) -> None:
        """Check rules that involve several fields: sizes that two models share, and those within one model."""
        tokenizer, tokens, dual = (models.get(name) for name in ("tokenizer", "token_model", "dual_encoder"))
        for name, model in (("token_model", tokens), ("dual_encoder", dual)):
            if model is not None:
                place, size = f"models.{name}.vocabulary_size", model["vocabulary_size"]
                self(size == vocabulary_size, place, f"must be {vocabulary_size}, as the vocabulary asks for", size)
        if tokenizer is not None:
            strides, patch = tokenizer["strides"], tokenizer["patch"]
            right = isinstance(strides, list) and 0 < len(strides) <= _WINDOW
            right = right and all(_is_in(each, 1, _WINDOW) and _WINDOW % (patch * each) == 0 for each in strides)
            rule = f"must be a list of strides, times `patch` = {patch} each a divisor of {_WINDOW}"
            self(right, "models.tokenizer.strides", rule, strides)
        if tokens is not None:
            frozen, scales = tokens["frozen_scales"], tokens["num_scales"]
            self(frozen < scales, "models.token_model.frozen_scales", f"must be below `num_scales` = {scales}", frozen)
            step = 4 * tokens["heads"]
            rule = f"must be a multiple of 4 x `heads` = {step}"
            self(tokens["dim"] % step == 0, "models.token_model.dim", rule, tokens["dim"])
        if tokens is not None and tokenizer is not None:
            patch, cells = tokenizer["patch"], tokens.get("mask_cells") or 1
            rule = f"must divide the tokenizer's `patch` = {patch}"
            self(patch % cells == 0, "models.token_model.mask_cells", rule, cells)
            shared = {**tokenizer, "num_scales": len(tokenizer["strides"])}
            for key in ("channels", "codebook_size", "num_scales"):
                rule = f"must be that of the tokenizer, {shared[key]}"
                self(tokens[key] == shared[key], f"models.token_model.{key}", rule, tokens[key])
        if dual is not None:
            self(dual["dim"] % 4 == 0, "models.dual_encoder.dim", "must be a multiple of 4", dual["dim"])
            self(dual["width"] % 8 == 0, "models.dual_encoder.width", "must be a multiple of 8", dual["width"])

    def text_encoder(self, encoder: Any, models: Mapping[str, Any]) -> None:
        channels = models.get("token_model", {}).get("text_channels")
        if encoder is None:
            rule = "must be null where the bundle names no `text_encoder`"
            self(channels is None, "models.token_model.text_channels", rule, channels)
            return
        right = isinstance(encoder, dict) and set(encoder) == {"name", "weights_hash"}
        right = right and all(isinstance(value, str) for value in encoder.values())
        self(right, "text_encoder", "must be an object of two texts, `name` and `weights_hash`", encoder)
        self(
            encoder["name"].startswith("open_clip:"),
            "text_encoder.name",
            "must start with `open_clip:`",
            encoder["name"],
        )
        digest = encoder["weights_hash"]
        self(bool(_HASH.fullmatch(digest)), "text_encoder.weights_hash", "must be 32 hexadecimal digits", digest)
        rule = "must be a number where the bundle names a `text_encoder`"
        self(channels is not None, "models.token_model.text_channels", rule, channels)


def _is_in(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most

"""Learns byte pairs for CLIP's tokenizer from the few words of captions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
_PIECE = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORD_END = "</w>"


def split_pieces(text: str) -> list[str]:
    """Return the pieces into which CLIP's tokenizer cuts a text before byte-pair encoding, in its byte alphabet.

    Example:
        >>> split_pieces("A colour-split misprint, 2 mm")
        ['a', 'colour', '-', 'split', 'misprint', ',', '2', 'mm']
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    plain = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]).normalize_str(text)
    cut = pre_tokenizers.Split(Regex(_PIECE), behavior="removed", invert=True)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [piece for piece, _ in pre_tokenizers.Sequence([cut, letters]).pre_tokenize_str(plain)]


def learn_byte_pairs(texts: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn byte pairs with ``tokenizers`` until every word is one token (arXiv 1508.07909, algorithm 1).

    Each distinct word counts once. Other words are spelled with the learned pieces and single letters, so any text can
    be encoded.

    Args:
        texts: The texts.

    Returns:
        The index of each token, and the merges in order: the content of ``vocab.json`` and ``merges.txt`` of CLIP's
        tokenizer.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = sorted({piece for text in texts for piece in split_pieces(text)})
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = [*letters, *(letter + _WORD_END for letter in letters)]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + sum(map(len, words)),  # room for all merges
        min_frequency=1,
        special_tokens=alphabet,  # in a fixed order, so that ties break alike in every process
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    tokenizer.train_from_iterator(words, trainer)
    learned = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [(first, second) for first, second in (m.split(" ") if isinstance(m, str) else m for m in learned)]
    tokens = [*alphabet, *("".join(pair) for pair in merges), START, END]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges


def make_clip_tokenizer(texts: Iterable[str], folder: Path, *, length: int) -> Any:
    """Write a CLIP tokenizer with the byte pairs of the given texts, and return it.

    Args:
        texts: The texts.
        folder: Where to write ``vocab.json`` and ``merges.txt``.
        length: Most tokens of a text, start and end token included.
    """
    from transformers import CLIPTokenizer

    vocabulary, merges = learn_byte_pairs(texts)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": length}), encoding="utf-8"
    )
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True, model_max_length=length)

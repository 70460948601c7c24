"""Byte pairs for CLIP's tokenizer, learned from the few words of captions."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
_PIECE = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")
_WORD_END = "</w>"


def split_pieces(text: str) -> list[str]:
    """Return the pieces that CLIP's tokenizer cuts a text of Latin letters into before it looks for byte pairs.

    Example:
        >>> split_pieces("a colour-split misprint, 2 mm")
        ['a', 'colour', '-', 'split', 'misprint', ',', '2', 'mm']
    """
    return _PIECE.findall(text.lower())


def learn_byte_pairs(texts: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn byte pairs until every word of some texts is one token (arXiv 1508.07909, algorithm 1).

    Words that are not among them are spelled by the pieces and letters that are, so any text can be written.

    Args:
        texts: The texts, of ASCII characters where a word is to be one token.

    Returns:
        Index by token, and the merges in their order: ``vocab.json`` and ``merges.txt`` of CLIP's tokenizer.
    """
    words = {piece for text in texts for piece in split_pieces(text) if piece.isascii()}
    spelled = {word: [*word[:-1], word[-1] + _WORD_END] for word in sorted(words)}
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for pieces in spelled.values() for pair in itertools.pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = {word: _merge(pieces, best) for word, pieces in spelled.items()}
    letters = _byte_letters()
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *("".join(pair) for pair in merges), START, END]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges


def make_clip_tokenizer(texts: Iterable[str], folder: Path, *, length: int) -> Any:
    """Write CLIP's tokenizer with the byte pairs of some texts, and return it.

    Args:
        texts: The texts.
        folder: Where to write ``vocab.json`` and ``merges.txt``.
        length: Most tokens of a text, with the one before and the one after it.
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


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """Join the pairs of a word, from left to right."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def _byte_letters() -> list[str]:
    """Return the visible letters that CLIP writes the 256 bytes with."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = 256 - len(shown)
    return [chr(code) for code in shown] + [chr(256 + n) for n in range(hidden)]

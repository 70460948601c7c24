"""Turns the words of captions into numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PADDING, UNKNOWN = 0, 1
_WORD = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class CaptionReader(Protocol):
    """Turns captions into what a :class:`~anomalib_synth.models.token_transformer.TokenTransformer` reads."""

    def encode(self, captions: Sequence[str], *, length: int) -> torch.Tensor:
        """Return one row per caption; the row of the empty caption is all zeros."""

    def find_unknown(self, caption: str) -> list[str]:
        """Return the words of a caption that the reader does not know."""


class CaptionVocabulary:
    """The words that captions are made of.

    Captions of defects use about a hundred words, so each word gets its own index. A table of byte pairs would be
    larger than the models that read it. All words outside the vocabulary share one index; :meth:`find_unknown` names
    them, so that the user can be told.

    Args:
        words: The words, in lower case; duplicates are removed and the rest is sorted.

    Example:
        >>> vocabulary = CaptionVocabulary.from_captions(["a thin dark scratch", "a dark stain"])
        >>> vocabulary.encode(["a pale scratch"], length=4).tolist()
        [[2, 1, 4, 0]]
        >>> vocabulary.find_unknown("a pale scratch")
        ['pale']
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(set(words))
        self._index = {word: index for index, word in enumerate(self.words, start=UNKNOWN + 1)}

    @classmethod
    def from_captions(cls, captions: Iterable[str]) -> CaptionVocabulary:
        """Return the vocabulary of all words in the captions."""
        return cls(word for caption in captions for word in split_words(caption))

    def __len__(self) -> int:
        """Return the number of indices, padding and unknown words included."""
        return len(self.words) + UNKNOWN + 1

    def encode(self, captions: Sequence[str], *, length: int) -> torch.Tensor:
        """Return the word indices of captions.

        Args:
            captions: B captions.
            length: Words per row, >= 1; longer captions are cut, shorter ones padded with 0.

        Returns:
            (B, length) int64; 0 is padding, 1 an unknown word.
        """
        rows = [[self._index.get(word, UNKNOWN) for word in split_words(caption)[:length]] for caption in captions]
        return torch.tensor([row + [PADDING] * (length - len(row)) for row in rows], dtype=torch.int64)

    def find_unknown(self, caption: str) -> list[str]:
        """Return the words of a caption that the vocabulary lacks, in order."""
        return [word for word in dict.fromkeys(split_words(caption)) if word not in self._index]


def split_words(caption: str) -> list[str]:
    """Return the words of a caption, lower case.

    Example:
        >>> split_words("A colour-split misprint, low contrast")
        ['a', 'colour-split', 'misprint', 'low', 'contrast']
    """
    return _WORD.findall(caption.lower())

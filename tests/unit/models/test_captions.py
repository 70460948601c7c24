"""Words of captions as numbers."""

from __future__ import annotations

import torch

from anomalib_synth.models.captions import PADDING, UNKNOWN, CaptionVocabulary, split_words


def test_words_are_lower_case_and_hyphenated_ones_stay_whole() -> None:
    assert split_words("A Colour-split misprint, low-contrast; 2 dots -") == [
        "a", "colour-split", "misprint", "low-contrast", "2", "dots",
    ]  # fmt: skip


def test_indices_depend_on_the_words_and_not_on_their_order() -> None:
    first = CaptionVocabulary.from_captions(["a dark stain", "a pale stain"])
    second = CaptionVocabulary(["stain", "pale", "dark", "a", "a"])
    assert first.words == second.words == ["a", "dark", "pale", "stain"]
    assert len(first) == 6
    assert first.encode(["pale stain"], length=3).tolist() == [[4, 5, PADDING]]


def test_every_word_has_an_index_of_its_own_within_the_length() -> None:
    vocabulary = CaptionVocabulary.from_captions(["one two three"])
    tokens = vocabulary.encode(["one two three"], length=3)[0].tolist()
    assert len(set(tokens)) == 3
    assert not {PADDING, UNKNOWN} & set(tokens)
    assert max(tokens) == len(vocabulary) - 1


def test_captions_are_cut_and_padded_to_the_length() -> None:
    vocabulary = CaptionVocabulary(["a", "b"])
    tokens = vocabulary.encode(["a b a b", "", "b"], length=2)
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [[2, 3], [0, 0], [3, 0]]


def test_unknown_words_share_an_index_and_are_named_once_in_order() -> None:
    vocabulary = CaptionVocabulary(["a", "scratch"])
    assert vocabulary.encode(["a zigzag Scratch"], length=3).tolist() == [[2, UNKNOWN, 3]]
    assert vocabulary.find_unknown("a zigzag blue zigzag SCRATCH") == ["zigzag", "blue"]
    assert vocabulary.find_unknown("A scratch") == []

"""Byte pairs for CLIP's tokenizer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from anomalib_synth.fitting.byte_pairs import learn_byte_pairs, make_clip_tokenizer, split_pieces

TEXTS = [
    "add a thin dark scratch, low contrast",
    "add a colour-split misprint",
    "add the maker's crack, 2 mm",
    "Füge hinzu",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_clip_tokenizer(TEXTS, tmp_path_factory.mktemp("tokenizer"), length=16)


def test_every_word_is_one_token(tokenizer) -> None:
    for text in TEXTS:
        assert tokenizer.tokenize(text) == [f"{piece}</w>" for piece in split_pieces(text)]
    assert tokenizer.tokenize(TEXTS[1]) == ["add</w>", "a</w>", "colour</w>", "-</w>", "split</w>", "misprint</w>"]


def test_pieces_are_those_of_the_tokenizer_that_reads_them(tokenizer) -> None:
    for text in [*TEXTS, "It's  3.5mm (deep)!", "ĲŠŨ 日本 ½", "we'll"]:
        backend = tokenizer.backend_tokenizer
        cut = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
        assert split_pieces(text) == [piece for piece, _ in cut]


def test_other_words_are_spelled_and_come_back(tokenizer) -> None:
    ids = tokenizer("a zebra's Æther", add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids).replace(" ", "") == "azebra'sæther"


def test_texts_are_framed_padded_and_survive_saving(tokenizer, tmp_path) -> None:
    from transformers import CLIPTokenizer

    row = tokenizer("add a scratch", padding="max_length", truncation=True, max_length=16).input_ids
    assert len(row) == 16
    assert row[0] == tokenizer.bos_token_id
    assert set(row[4:]) == {tokenizer.eos_token_id}
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert again("add a scratch, zebra").input_ids == tokenizer("add a scratch, zebra").input_ids
    assert again.model_max_length == 16


def test_merges_are_the_most_frequent_first() -> None:
    vocabulary, merges = learn_byte_pairs(["abab", "ab"])
    assert merges == [("a", "b</w>"), ("a", "b"), ("ab", "ab</w>")]
    assert len(vocabulary) == 512 + 3 + 2
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


def test_each_word_counts_once_when_it_is_in_many_texts() -> None:
    assert learn_byte_pairs(["ab ab ab cd", "cde cdf", "ab"])[1][0] == ("c", "d")


def test_merges_repeat_in_another_process() -> None:
    code = f"from anomalib_synth.fitting.byte_pairs import learn_byte_pairs as l; print(l({TEXTS!r}))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == repr(learn_byte_pairs(TEXTS))

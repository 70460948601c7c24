"""Batches of one size, against what is worked out by hand."""

from __future__ import annotations

from anomalib_synth.images.batching import batch_by_size, fill_chunks

SIZES = [(3, 4, 4), (3, 4, 4), (3, 4, 4), (3, 8, 4), (3, 4, 4), (3, 100, 100), (3, 4, 4)]


def split(**limits) -> list[list[int]]:
    return [[n for n, _ in batch] for batch in batch_by_size(enumerate(SIZES), lambda item: item[1], **limits)]


def test_consecutive_items_of_one_size_share_a_batch_when_nothing_limits_it() -> None:
    assert split() == [[0, 1, 2], [3], [4], [5], [6]]


def test_batch_ends_when_it_has_as_many_items_as_allowed() -> None:
    assert split(count=2) == [[0, 1], [2], [3], [4], [5], [6]]


def test_batch_ends_when_its_pixels_would_be_too_many_and_a_large_item_is_alone() -> None:
    assert split(most=32) == [[0, 1], [2], [3], [4], [5], [6]]
    assert split(most=31) == [[0], [1], [2], [3], [4], [5], [6]]


def test_weight_is_what_the_caller_says_when_he_says_it() -> None:
    assert split(most=10, weigh=lambda item: 4 * item[0]) == [[0, 1], [2], [3], [4], [5], [6]]


def test_items_are_drawn_no_further_than_needed_when_one_batch_is_asked_for() -> None:
    drawn = []
    batches = batch_by_size((drawn.append(size) or size for size in SIZES), lambda size: size, count=2)
    next(batches)
    assert len(drawn) == 3


def test_nothing_comes_of_nothing() -> None:
    assert list(batch_by_size([], len)) == []
    assert list(fill_chunks([], 4)) == []


def test_last_chunk_is_filled_with_its_last_item_when_it_is_short() -> None:
    assert list(fill_chunks([1, 2, 3, 4, 5], 3)) == [([1, 2, 3], 3), ([4, 5, 5], 2)]

"""Run lengths come back as pycocotools made them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from anomalib_synth.defects.run_lengths import RunLengths, decompress, find_fault


@settings(max_examples=100, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 30))).filter(np.any))
def test_compressed_run_lengths_come_back_when_pycocotools_made_them(mask) -> None:
    text = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    counts = decompress(text)
    assert find_fault(counts, *mask.shape) == ""
    region = RunLengths(np.array(counts), *mask.shape).draw(*mask.shape)
    np.testing.assert_array_equal(region.inside, mask)


def test_long_runs_come_back_when_the_image_is_large() -> None:
    mask = np.zeros((3000, 4000), np.uint8, order="F")
    mask[1000:1010, 500:3900] = 1
    counts = decompress(coco_mask.encode(mask)["counts"].decode())
    assert sum(counts[1::2]) == mask.sum()
    assert sum(counts) == mask.size


@pytest.mark.parametrize("text", ["é", "5 2", "o", "ooooooooooooo1", "0" * 3 + "P" * 40])
def test_compressed_run_lengths_are_refused_when_they_are_damaged(text) -> None:
    with pytest.raises(ValueError, match="compressed run lengths"):
        decompress(text)


@pytest.mark.parametrize(
    ("counts", "fault"),
    [([6], "marks no pixel"), ([3, -1, 4], "negative"), ([3, 4], "7 pixels for a mask of 3 x 2"), ([], "0 pixels")],
)
def test_run_lengths_are_refused_when_they_do_not_fit(counts, fault) -> None:
    assert fault in find_fault(counts, 2, 3)


def test_runs_go_along_rows_when_they_are_cvats() -> None:
    region = RunLengths(np.array([1, 2, 3]), 2, 3, left=10, top=5, by_columns=False).draw(20, 20)
    assert (region.rows, region.columns) == (slice(5, 7), slice(10, 13))
    np.testing.assert_array_equal(region.inside, [[False, True, True], [False, False, False]])

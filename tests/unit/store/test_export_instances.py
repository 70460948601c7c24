"""Instances of masks: specks are joined or left out by a stated rule, and counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask
from scipy import ndimage

from anomalib_synth.store import StoreError, export_coco
from anomalib_synth.store.export_instances import SpeckCount, find_instances
from tests.unit.store.samples import make_masked_store

MASKS = arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24))).filter(np.any)


def paint(*boxes: tuple[int, int, int, int], size: int = 60) -> np.ndarray:
    """A mask with boxes: top, left, height, width."""
    mask = np.zeros((size, size), dtype=bool)
    for top, left, high, wide in boxes:
        mask[top : top + high, left : left + wide] = True
    return mask


@settings(max_examples=150, deadline=None)
@given(mask=MASKS, min_area=st.integers(1, 60))
def test_pixels_are_neither_lost_nor_counted_twice(mask, min_area) -> None:
    count = SpeckCount()
    instances = find_instances(mask, min_area, count)
    height, width = mask.shape
    shown = np.zeros(mask.shape, dtype=int)
    for instance in instances:
        outline = instance.outline()
        assert all(corner != outline[position - 1] for position, corner in enumerate(outline))
        corners = [float(value) for corner in outline for value in corner]
        decoded = coco_mask.decode(coco_mask.frPyObjects([corners], height, width))[..., 0]
        counts = {"size": [height, width], "counts": instance.run_lengths(height, width)}
        assert np.array_equal(decoded, coco_mask.decode(coco_mask.frPyObjects(counts, height, width)))
        assert decoded.sum() == instance.area
        assert tuple(coco_mask.toBbox(coco_mask.encode(np.asfortranarray(decoded)))) == instance.box
        shown += decoded
    assert shown.max() == 1
    assert not (shown.astype(bool) & ~mask).any()
    assert mask.sum() - shown.sum() == count.dropped_pixels
    regions = ndimage.label(mask, structure=np.ones((3, 3)))[1]
    assert count.regions == regions == count.instances + count.joined + count.dropped
    assert len(instances) == count.instances >= 1
    assert len(instances) == 1 or all(instance.area >= min_area for instance in instances)


def test_a_speck_joins_the_nearest_when_two_are_near() -> None:
    count = SpeckCount()
    mask = paint((10, 10, 5, 5), (10, 16, 2, 2), (10, 21, 5, 5))
    instances = find_instances(mask, 16, count)
    assert [instance.box for instance in instances] == [(10, 10, 8, 5), (21, 10, 5, 5)]
    assert (count.joined, count.dropped, count.dropped_pixels) == (1, 0, 0)


@pytest.mark.parametrize(("gap", "expected"), [(7, 1), (8, 2)])
def test_reach_ends_when_centres_are_twice_the_root_of_the_area_apart(gap, expected) -> None:
    count = SpeckCount()
    instances = find_instances(paint((10, 10, 5, 5), (10, 15 + gap, 2, 2)), 16, count)  # centres gap + 1 apart
    assert len(instances) == 1
    assert instances[0].area == {1: 29, 2: 25}[expected]
    assert count.dropped_pixels == {1: 0, 2: 4}[expected]


def test_large_regions_stay_apart_when_they_nearly_touch() -> None:
    assert len(find_instances(paint((10, 10, 5, 5), (10, 16, 5, 5)), 16)) == 2


def test_specks_become_one_instance_when_together_they_are_large_enough() -> None:
    count = SpeckCount()
    instances = find_instances(paint(*[(10, 10 + 4 * step, 2, 2) for step in range(5)]), 16, count)
    assert [instance.area for instance in instances] == [20]
    assert (count.regions, count.joined) == (5, 4)


def test_the_largest_stays_when_all_are_specks() -> None:
    count = SpeckCount()
    instances = find_instances(paint((5, 5, 1, 2), (50, 50, 2, 2), (5, 50, 1, 1)), 16, count)
    assert [instance.box for instance in instances] == [(50, 50, 2, 2)]
    assert (count.dropped, count.dropped_pixels) == (2, 3)


def test_every_region_is_an_instance_when_the_least_area_is_one() -> None:
    assert len(find_instances(paint((5, 5, 1, 1), (7, 7, 1, 1), (30, 30, 5, 5)), 1)) == 3


def test_the_summary_says_how_many_when_specks_are_joined_or_left_out(tmp_path) -> None:
    masks = [paint((10, 10, 5, 5), (10, 16, 2, 2), (50, 50, 1, 1)), paint((5, 5, 1, 2))]
    summary = export_coco(make_masked_store(tmp_path / "s", masks), tmp_path / "out")
    assert summary.describe() == [
        "2 instances of 4 connected regions: 1 specks joined to a neighbour, 1 left out (1 pixels)."
    ]


def test_an_empty_mask_is_refused_when_its_sample_is_kept(tmp_path) -> None:
    store = make_masked_store(tmp_path / "s", [np.zeros((8, 8), dtype=bool)])
    with pytest.raises(StoreError, match="its mask is empty"):
        export_coco(store, tmp_path / "out")

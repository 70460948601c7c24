"""The instances of a mask: its connected regions, specks joined to a neighbour or left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.export_outlines import run_lengths, trace_outline

if TYPE_CHECKING:
    from anomalib_synth.store.record import Record
    from anomalib_synth.store.store import SampleStore

MIN_AREA = 16


@dataclass(frozen=True)
class Instance:
    """One defect of an image.

    Args:
        region: Its pixels within its box, bool (h, w).
        left: First column of the box.
        top: First row of the box.
    """

    region: np.ndarray
    left: int
    top: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.region))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels."""
        height, width = self.region.shape
        return self.left, self.top, width, height

    def outline(self) -> list[tuple[int, int]]:
        """Return the corners ``(x, y)`` of one polygon; see :func:`trace_outline`."""
        return [(self.left + x, self.top + y) for x, y in trace_outline(self.region)]

    def run_lengths(self, height: int, width: int) -> list[int]:
        """Return the run lengths in an image of the given size."""
        mask = np.zeros((height, width), dtype=bool)
        mask[self.top : self.top + self.region.shape[0], self.left : self.left + self.region.shape[1]] = self.region
        return run_lengths(mask)


@dataclass
class SpeckCount:
    """Counts of the regions of masks; ``regions = instances + joined + dropped``."""

    regions: int = 0
    instances: int = 0
    joined: int = 0
    dropped: int = 0
    dropped_pixels: int = 0


def read_instances(
    store: SampleStore, record: Record, min_area: int, count: SpeckCount
) -> tuple[tuple[int, int], list[Instance]]:
    """Return the height and width of a sample, and its instances.

    Args:
        store: The store.
        record: The sample.
        min_area: See :func:`find_instances`.
        count: The regions of this mask are added to it.

    Raises:
        StoreError: If the mask is damaged or empty.
    """
    mask = store.read_mask(record) > 0
    if not mask.any():
        msg = f"Sample {record.id} is kept, but its mask is empty. Reject it in `anomalib-synth review`."
        raise StoreError(msg)
    return (mask.shape[0], mask.shape[1]), find_instances(mask, min_area, count)


def find_instances(mask: np.ndarray, min_area: int = MIN_AREA, count: SpeckCount | None = None) -> list[Instance]:
    """Return the instances of a mask (H, W), in the order of their first pixels.

    A connected region (8 neighbours) is an instance. A region of fewer pixels than ``min_area`` is a speck. Specks are
    joined to their nearest neighbours, the closest pair first, if the nearest pixels of the two are at most
    ``2 * sqrt(min_area)`` pixels apart, from centre to centre. Two regions that are no specks are never joined. What is
    still too small then is left out; if that were everything, the largest stays.

    Args:
        mask: The mask, not empty.
        min_area: Least number of pixels of an instance, >= 1.
        count: The regions of this mask are added to it.
    """
    labels, regions = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=regions + 1)
    areas[0] = 0
    owner = _join_specks(labels, areas, min_area)
    sums = np.bincount(owner, weights=areas, minlength=regions + 1).astype(int)
    groups = np.unique(owner[1:])
    kept = [group for group in groups if sums[group] >= min_area] or [groups[np.argmax(sums[groups])]]
    if count is not None:
        count.regions += regions
        count.instances += len(kept)
        count.joined += regions - len(groups)
        count.dropped += len(groups) - len(kept)
        count.dropped_pixels += int(areas.sum() - sums[kept].sum())
    owners = owner[labels]
    boxes = ndimage.find_objects(owners)
    return [
        Instance(owners[boxes[group - 1]] == group, boxes[group - 1][1].start, boxes[group - 1][0].start)
        for group in kept
    ]


def _join_specks(labels: np.ndarray, areas: np.ndarray, min_area: int) -> np.ndarray:
    """Return for each region the first region of those it is joined with; itself where it is joined with none."""
    owner = np.arange(len(areas))
    if len(areas) <= 2 or areas[1:].min() >= min_area:
        return owner
    sums = areas.copy()
    for first, second in _neighbours(labels, 2 * min_area**0.5):
        one, other = sorted((owner[first], owner[second]))
        if one != other and min(sums[one], sums[other]) < min_area:
            owner[owner == other] = one
            sums[one] += sums[other]
    return owner


def _neighbours(labels: np.ndarray, reach: float) -> list[tuple[int, int]]:
    """Return the pairs of regions within reach, the closest first.

    Every pixel belongs to the region nearest to it; where two such areas meet, their regions are neighbours.
    """
    rows, columns = np.nonzero(labels)
    labels = labels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    places = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    nearest = labels[tuple(places)]
    meetings = []
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        meet = nearest[here] != nearest[there]
        apart = np.hypot(*(place[here][meet] - place[there][meet] for place in places))
        pair = np.sort(np.stack([nearest[here][meet], nearest[there][meet]]), axis=0)
        meetings.append(np.stack([apart, *pair]))
    near = np.concatenate(meetings, axis=1)
    near = near[:, near[0] <= reach]
    near = near[:, np.lexsort(near[::-1])]
    _, first = np.unique(near[1:], axis=1, return_index=True)
    return [(int(one), int(other)) for _, one, other in near[:, np.sort(first)].T]

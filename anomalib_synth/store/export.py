"""The parts that all exports share: the kept samples, the kinds of their defects, and the summary of an export."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.export_folder import ExportPlan, write_export
from anomalib_synth.store.export_instances import SpeckCount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from anomalib_synth.store.record import Record
    from anomalib_synth.store.store import SampleStore


@dataclass(kw_only=True)
class ExportSummary:
    """The numbers of an export.

    Args:
        samples: Number of samples.
        normals: Number of good images, None where the layout has none.
        specks: Counts of the masks' regions, None where the layout keeps the masks themselves.
        notes: Further sentences for the user.
        finished_before: Whether the export was there already, complete.
    """

    samples: int
    normals: int | None = None
    specks: SpeckCount | None = None
    notes: list[str] = field(default_factory=list)
    finished_before: bool = False

    def describe(self) -> list[str]:
        """Return the numbers as sentences."""
        lines = [f"{self.normals} good images."] if self.normals is not None else []
        if (count := self.specks) is not None:
            lines.append(
                f"{count.instances} instances of {count.regions} connected regions: {count.joined} specks joined to a "
                f"neighbour, {count.dropped} left out ({count.dropped_pixels} pixels)."
            )
        return [*lines, *self.notes]


def kept_records(store: SampleStore) -> list[Record]:
    """Return the samples that are kept.

    Raises:
        StoreError: If no sample is kept.
    """
    records = [record for record in store.records if store.is_accepted(record)]
    if not records:
        msg = f"Store {str(store.path)!r} has no kept sample to export. Generate more, or accept some in `review`."
        raise StoreError(msg)
    return records


def kind_of(record: Record) -> str:
    """Return the kind of a sample's defect."""
    return record.family or "defect"


def list_kinds(store: SampleStore) -> list[str]:
    """Return the kinds of defects in the order of their first samples in the manifest, rejected ones included.

    So a kind keeps its number when samples are rejected or more are generated.
    """
    return list(dict.fromkeys(kind_of(record) for record in store.records if record.image_file))


def check_min_area(min_area: int) -> None:
    """Refuse a ``min_area`` that is not a whole number >= 1.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(min_area, bool) or not isinstance(min_area, int) or min_area < 1:
        msg = f"`min_area` must be a whole number of pixels >= 1, got {min_area!r}. With 1 every region is an instance."
        raise ValueError(msg)


def run_export(
    store: SampleStore,
    out: Path | str,
    plan: ExportPlan,
    render: Callable[[], Iterable[bytes]],
    summary: ExportSummary,
) -> ExportSummary:
    """Write an export; see :func:`write_export`. ``render`` may still change the numbers of the summary."""
    found: dict[str, Any] = write_export(store, out, plan, render, lambda: asdict(summary))
    try:
        specks = found.pop("specks")
        return ExportSummary(**found, specks=SpeckCount(**specks) if specks is not None else None)
    except (KeyError, TypeError) as error:
        msg = f"`out` must be a new or empty folder; the export.json in {str(out)!r} was changed. Choose another."
        raise StoreError(msg) from error


def facts_of(record: Record, kinds: list[str]) -> list[Any]:
    """Return all of a sample that an export depends on, as plain data."""
    hashes = (record.image_hash, record.mask_hash, record.source_hash, record.source_file_hash)
    return [record.id, kinds.index(kind_of(record)), *hashes, record.split, record.caption]

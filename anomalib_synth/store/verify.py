"""Does a store hold what its manifest says, and if not, what can be saved?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import track

from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.files import append_lines, write_whole

if TYPE_CHECKING:
    from anomalib_synth.store.record import Record
    from anomalib_synth.store.store import SampleStore

_QUIET = 1000


def find_problems(store: SampleStore) -> dict[str, str]:
    """Return what is wrong with each damaged sample, by id."""
    problems = {}
    for record in track(store.records, "Checking", disable=len(store.records) < _QUIET, transient=True):
        if found := _find_problem(store, record):
            problems[record.id] = found
    return problems


def verify(store: SampleStore) -> list[str]:
    """Return every problem of a store as a sentence; none when it is sound."""
    store.refresh()
    problems = list(find_problems(store).values())
    if rest := store.unread_tail():
        problems.append(f"The manifest ends in {rest} bytes of an unfinished row, as a killed writer leaves it.")
    return problems


def repair(store: SampleStore) -> list[str]:
    """Take what is damaged out of the manifest, so that it is drawn again; return what was done.

    ``generate`` goes on after the last row, so the manifest is cut at the first damaged sample; what came after it is
    drawn again as well, and comes out the same. The rows cut off go to ``manifest.removed.jsonl``; decisions stay.

    Raises:
        StoreError: If another process is writing.
    """
    done = []
    if rest := store.unread_tail():
        done.append(f"Cut {rest} bytes of an unfinished row off the manifest.")
    with store.writing():
        problems = find_problems(store)
        if problems:
            first = min(store.get(sample).index for sample in problems)
            kept = [record for record in store.records if record.index < first]
            cut = [record for record in store.records if record.index >= first]
            append_lines(store.path / "manifest.removed.jsonl", b"".join(record.to_line() for record in cut), sync=True)
            write_whole(store.path / "manifest.jsonl", b"".join(record.to_line() for record in kept))
            done += [f"{problem} Removed." for problem in problems.values()]
            done.append(f"The manifest now ends before sample {first}: {len(cut)} rows went to manifest.removed.jsonl.")
            store.reload()
    return done


def _find_problem(store: SampleStore, record: Record) -> str:
    """Return what is wrong with a sample's files, "" when nothing is."""
    for place, digest in (
        (record.image_file, record.image_hash),
        (record.mask_file, record.mask_hash),
        (record.source_file, record.source_file_hash),
    ):
        if not place:
            continue
        try:
            store.check_file(record, place, digest)
        except StoreError as error:
            return str(error)
    return ""

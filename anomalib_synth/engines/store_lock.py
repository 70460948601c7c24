"""Locks a store for one run, and clears away what a killed run left half-written."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anomalib_synth.engines.settings import check_same
from anomalib_synth.store import SampleStore, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HALF_WRITTEN = (
    ".store.json.*",
    ".normals.jsonl*",
    ".manifest.jsonl.*",
    "images/??/.*",
    "masks/??/.*",
    "sources/??/.*",
)


def find_store(out: Path, settings: dict[str, Any], *, resume: bool) -> SampleStore | None:
    """Return the store that is there already, None when there is none.

    Raises:
        ValueError: If the folder holds something else, the store was made with other settings, or it is there and
            ``resume`` is off.
    """
    if not (out / "store.json").exists():
        if out.exists() and not (out.is_dir() and all(_is_ours(path) for path in out.iterdir())):
            msg = f"`out` must be a new or empty folder or a store, got {str(out)!r}, which holds something else."
            raise ValueError(msg)
        return None
    if not resume:
        msg = f"`out` {str(out)!r} is a store already. Leave `resume` on to go on with it, or name another folder."
        raise ValueError(msg)
    store = SampleStore.open(out)
    check_same(store.settings, settings, str(out))
    return store


@contextmanager
def lock_store(out: Path, store: SampleStore | None) -> Iterator[None]:
    """Be the only run that writes to a store or makes it, and clear away what a killed run left half-written.

    Args:
        out: Folder of the store.
        store: The store, None when it is still to be made.

    Raises:
        StoreError: If another run is writing to the store, or has just made it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (store or SampleStore(out)).writing():
        if store is None and (out / "store.json").exists():
            msg = f"Another run has just made the store {str(out)!r}. Run the command again to go on with it."
            raise StoreError(msg)
        for pattern in _HALF_WRITTEN:
            for path in out.glob(pattern):
                path.unlink(missing_ok=True)
        yield


def _is_ours(path: Path) -> bool:
    """Return whether a file is one that a run writes before it makes the store."""
    return path.name in {".lock", "normals.jsonl"} or path.name.startswith((".store.json.", ".normals.jsonl."))

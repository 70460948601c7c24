"""The command `anomalib-synth check`: is a store what its manifest says?"""

from __future__ import annotations

from pathlib import Path


def check(store: Path, *, repair: bool = False) -> None:
    """Compare a store with its manifest: every field of every row, and every file.

    Args:
        store: Folder of the store.
        repair: Move bad lines, and rows whose files are damaged, into files beside their logs, and keep the rest. The
            same `generate` command draws the missing samples again.

    Raises:
        ValueError: If there are problems.
        StoreError: If there is no store.
    """
    from anomalib_synth.store import SampleStore

    opened = SampleStore.open(store, strict=False)
    for line in opened.repair() if repair else ():
        print(line)
    problems = opened.verify()
    for line in problems:
        print(line)
    if problems:
        msg = f"{store} has {len(problems)} problems. Run `anomalib-synth check --store {store} --repair`."
        raise ValueError(msg)
    print(f"{store}: {len(opened.records)} samples, sound.")

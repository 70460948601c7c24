"""A filter's judgements about the samples of a store: one file, written whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.files import write_whole
from anomalib_synth.store.logs import remedy
from anomalib_synth.store.schemas import find_judgement_fault

if TYPE_CHECKING:
    from pathlib import Path


class FilterResults:
    """The last filter's judgements.

    Args:
        folder: Folder of the store.

    Attributes:
        samples: By id: ``reason``, "" for a sample to keep, and numbers by name.
        problem: What is wrong with the file, "" when nothing is.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "filter.json"
        self.samples: dict[str, dict[str, Any]] = {}
        self.problem = ""
        self._read = (0, 0)

    def refresh(self, *, strict: bool) -> None:
        """Read the file if it has changed since the last look; a damaged one changes nothing.

        Args:
            strict: Whether a damaged file is an error; otherwise it is noted in ``problem``.

        Raises:
            StoreError: If the file is damaged and ``strict`` is on.
        """
        found = (self.path.stat().st_mtime_ns, self.path.stat().st_size) if self.path.is_file() else (0, 0)
        if found == self._read:
            return
        samples, faults = read_filter_results(self.path.read_bytes()) if found != (0, 0) else ({}, [])
        self.problem = f"{str(self.path)!r} is damaged: it {faults[0]}." if faults else ""
        if self.problem and strict:
            again = "Then run `anomalib-synth filter` again, or `look_alikes` where that chose."
            msg = f"{self.problem} {remedy(self.path.parent)} {again}"
            raise StoreError(msg)
        if not self.problem:
            self.samples = samples
        self._read = found

    def write(self, samples: dict[str, dict[str, Any]], facts: dict[str, Any]) -> None:
        """Replace the file.

        Raises:
            StoreError: If a judgement breaks the rules of the file, or the disk is full.
        """
        for sample, judgement in samples.items():
            if fault := find_judgement_fault(sample, judgement):
                msg = f"A judgement for {str(self.path)!r} {fault}. Nothing was written."
                raise StoreError(msg)
        content = json.dumps({"facts": facts, "samples": samples}, indent=1, ensure_ascii=False)
        write_whole(self.path, content.encode() + b"\n")
        self.refresh(strict=True)


def read_filter_results(data: bytes) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the sound judgements of a file by id, and what is wrong with the others."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        return {}, [f"is not JSON ({error})"]
    if type(content) is not dict or type(content.get("samples")) is not dict:
        return {}, ["is no filter's report, which is an object with `samples` by id"]
    faults = {sample: find_judgement_fault(sample, judgement) for sample, judgement in content["samples"].items()}
    sound = {sample: judgement for sample, judgement in content["samples"].items() if not faults[sample]}
    return sound, [fault for fault in faults.values() if fault]

"""The inputs a store was begun with, compared with those that are there when a run goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from anomalib_synth.engines.scanning import Scan
from anomalib_synth.images import ImageReader, Normal, UnreadableImageError, read_bytes
from anomalib_synth.progress import printable
from anomalib_synth.store.files import write_whole
from anomalib_synth.store.logs import read_log
from anomalib_synth.store.schemas import INPUT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anomalib_synth.store import SampleStore

_FILE = "normals.jsonl"
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class ResumedInputs:
    """The inputs of a run that goes on.

    Args:
        found: The inputs the store was begun with, in the order that decides which image each sample is drawn on.
        gone: Reason by name of inputs that could be read then and cannot now; their samples wait until they can.
        regained: Names of inputs that could not be read then and can now; they stay left out of this store.
    """

    found: Scan
    gone: dict[str, str] = field(default_factory=dict)
    regained: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Lines for the user about inputs that are gone or regained."""
        lines = [
            f"Cannot be read any more, so its samples that are missing wait: {name} ({reason}). "
            "Put it back and run the same command again."
            for name, reason in self.gone.items()
        ]
        lines += [
            f"Left out, as when the store was begun: {name}. It can be read now; a new store takes it."
            for name in self.regained
        ]
        return [printable(line) for line in lines]


def write_inputs(folder: Path, found: Scan) -> None:
    """Write down which inputs a store is begun with."""
    rows = [
        {"name": name, "content": content, "reason": found.unreadable.get(name, "")}
        for name, content in found.contents.items()
    ]
    lines = (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    write_whole(folder / _FILE, b"".join(lines))


def resume_inputs(store: SampleStore, found: Scan, files: Mapping[str, Path]) -> ResumedInputs:
    """Compare the inputs of a run with those that its store was begun with.

    Args:
        store: The store.
        found: A scan of the inputs as they are now, in which nothing was decoded.
        files: File by name, as they are now.

    Raises:
        ValueError: If a file has changed or was not there then; the message names up to five of them.
    """
    kept = _read_inputs(store)
    if kept is None:  # an older version wrote no list, or it is damaged: only the digest can be compared
        if found.digest == store.settings.get("normals", {}).get("digest"):
            write_inputs(store.path, found)
        return ResumedInputs(found=found)
    now = {normal.name: normal for normal in found.normals}
    normals: list[Normal] = []
    gone: dict[str, str] = {}
    changed = sorted(files.keys() - kept.keys())
    for name, (content, reason) in kept.items():
        if reason:
            continue
        normal = now.get(name)
        if normal is None or normal.content != content:
            why = (
                found.unreadable.get(name, "there is no such file")
                if normal is None
                else _find_reason(normal.path, found.reader)
            )
            if not why:
                changed.append(name)
            gone[name] = why
            normal = Normal(path=files.get(name, store.path / "gone" / name), name=name, content=content)
        normals.append(normal)
    if changed:
        shown = ", ".join(repr(name) for name in changed[:_NAMED]) + (" and others" if len(changed) > _NAMED else "")
        now_count = f"normals.files: {len(kept)} in the store, {len(files)} now"
        msg = (
            f"The store {str(store.path)!r} was made with other settings ({now_count}; new or changed: {shown}). "
            "Put the inputs back as they were, or use another `out`."
        )
        raise ValueError(msg)
    unreadable = {name: reason for name, (_, reason) in kept.items() if reason}
    regained = [name for name in unreadable if name in files and not _find_reason(files[name], found.reader)]
    same = Scan(
        normals=normals,
        unreadable=unreadable,
        digest=store.settings["normals"]["digest"],
        reader=found.reader,
        contents={name: content for name, (content, _) in kept.items()},
    )
    return ResumedInputs(found=same, gone=gone, regained=regained)


def _read_inputs(store: SampleStore) -> dict[str, tuple[str, str]] | None:
    """Return content and reason by name, None where the list does not match the store's settings."""
    update = read_log(store.path / _FILE, INPUT)
    kept = {row["name"]: (row["content"], row["reason"]) for _, row in update.rows}
    digest = blake2b(digest_size=16)
    for name, (content, _) in kept.items():
        digest.update(f"{name}\0{content}\0".encode())
    reasons = {name: reason for name, (_, reason) in kept.items() if reason}
    summary = store.settings.get("normals", {})
    is_right = digest.hexdigest() == summary.get("digest") and reasons == summary.get("unreadable")
    return kept if is_right else None


def _find_reason(path: Path, reader: ImageReader) -> str:
    """Return why a file cannot be used, "" if it can."""
    try:
        reader.decode(read_bytes(path))
    except UnreadableImageError as error:
        return str(error)
    return ""

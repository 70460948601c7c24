"""Writes the folder of an export whole or not at all; an export that was stopped goes on."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth.progress import track
from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.files import raise_when_full, write_whole
from anomalib_synth.store.identity import hash_bytes
from anomalib_synth.store.locking import exclusive
from anomalib_synth.store.rules import is_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anomalib_synth.store.record import Record
    from anomalib_synth.store.store import SampleStore

MARKER = "export.json"
FORMAT = 1  # raise it when the same samples and options give other files
_LOCK = ".lock"
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")  # what a killed `write_whole` leaves
_QUIET = 200


@dataclass(kw_only=True)
class ExportPlan:
    """The files that an export writes; all names are paths in its folder.

    Args:
        layout: Name of the layout.
        options: Options of the layout, as plain data.
        samples: Everything of the samples that the files depend on, as plain data.
        copies: Files of the store by their name in the export: the sample, the place in the store, the digest.
        texts: Names of the files that are made from the samples, in the order they are made.
    """

    layout: str
    options: dict[str, Any]
    samples: list[Any]
    copies: dict[str, tuple[Record, str, str]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """Return the names of all files, each once.

        Raises:
            StoreError: If two files have one name (capitals do not count, as on some file systems), or a name leads
                out of the folder.
        """
        names = [*self.copies, *self.texts]
        folded = {name.casefold() for name in names}
        if len(folded) < len(names) or not all(_is_portable(name) for name in names):
            msg = "The manifest of the store has ids or digests that cannot name files. Run `anomalib-synth check`."
            raise StoreError(msg)
        return names

    def head(self, store: SampleStore) -> dict[str, Any]:
        """Return what identifies the command (``request``) and, with the samples, the export (``content``)."""
        origin = hash_bytes((store.path / "store.json").read_bytes())
        request = {"layout": self.layout, "options": self.options, "store": origin}
        content = hash_bytes(json.dumps([FORMAT, request, self.samples]).encode())
        return {"made_by": "anomalib-synth", "format": FORMAT, "request": request, "content": content}


def write_export(
    store: SampleStore,
    out: Path | str,
    plan: ExportPlan,
    render: Callable[[], Iterable[bytes]],
    summary: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Write an export into ``<out>.partial``, then rename that to ``out``; return its summary.

    Args:
        store: The store.
        out: A folder that is new or empty, or that holds this very export already.
        plan: What to write.
        render: Gives the content of ``plan.texts``, one by one.
        summary: Gives the numbers of the export as plain data, once everything is written.

    Raises:
        StoreError: If `out` holds anything else, or the disk is full; the store's own errors.
    """
    out = Path(os.path.realpath(out))
    _check_out(store, out)
    if out.is_dir() and any(out.iterdir()):
        return _recognise(out, plan.head(store))
    work = out.with_name(f"{out.name}.partial")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with exclusive(work / _LOCK, wait=0.0):
            numbers = _fill(store, work, plan, render, summary)
        (work / _LOCK).unlink(missing_ok=True)
        if out.is_dir():
            out.rmdir()
        work.rename(out)
    except OSError as error:
        raise_when_full(error, Path(error.filename or work))
        msg = f"`out` = {str(out)!r} cannot be written ({error}). Choose a folder that you may make and write to."
        raise StoreError(msg) from error
    return numbers


def _fill(
    store: SampleStore,
    work: Path,
    plan: ExportPlan,
    render: Callable[[], Iterable[bytes]],
    summary: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Write the files that are not there yet, and remove those that only an earlier try had planned."""
    head, names = plan.head(store), plan.names()
    _clear(work, head["request"], set(names))
    _mark(work, {**head, "finished": False, "files": dict.fromkeys(names, "")})
    digests = {}
    quiet = len(names) < _QUIET
    for name, (record, place, digest) in track(plan.copies.items(), "Copying", disable=quiet):
        _write(work / name, store.check_file(record, place, digest))
        digests[name] = digest
    texts = track(render(), "Labelling", total=len(plan.texts), disable=quiet)
    for name, data in zip(plan.texts, texts, strict=True):
        _write(work / name, data)
        digests[name] = hash_bytes(data)
    _prune(work)
    if missing := digests.keys() - _list(work).keys():
        msg = (
            f"{len(missing)} of the {len(digests)} files of the export are not on disk, one is {min(missing)!r}. Its "
            f"file system took two names for one, or something removed them. Remove {str(work)!r} and export elsewhere."
        )
        raise StoreError(msg)
    numbers = summary()
    _mark(work, {**head, "finished": True, "files": digests, "summary": numbers})
    return numbers


def _check_out(store: SampleStore, out: Path) -> None:
    why = ""
    if out.is_relative_to(os.path.realpath(store.path)):
        why = "is in the store. Choose one outside"
    elif out.exists() and not out.is_dir():
        why = "is a file. Choose another"
    elif os.path.ismount(out):
        why = "is a mount point and cannot be put in place as a whole. Name a folder in it"
    if why:
        msg = f"`out` must be a new or empty folder, got {str(out)!r}, which {why}."
        raise StoreError(msg)


def _recognise(out: Path, head: dict[str, Any]) -> dict[str, Any]:
    """Return the summary of a finished export of the same samples and options; refuse anything else."""
    found = _read_marker(out)
    if not found or not found["finished"]:
        msg = f"`out` must be a new or empty folder, got {str(out)!r}, which holds other files. Choose another."
        raise StoreError(msg)
    if found["content"] != head["content"]:
        msg = (
            f"`out` must be a new or empty folder, got {str(out)!r}, which holds another export, or one made before "
            f"the store changed ({_describe(found['request'])}). Choose another, or remove that one."
        )
        raise StoreError(msg)
    for name, digest in found["files"].items():
        path = out / name
        if not _is_portable(name) or not path.is_file() or hash_bytes(path.read_bytes()) != digest:
            msg = (
                f"`out` = {str(out)!r} holds this export, but {name!r} was changed or removed since. Choose another "
                "folder, or remove that one."
            )
            raise StoreError(msg)
    return {**found.get("summary", {}), "finished_before": True}


def _clear(work: Path, request: dict[str, Any], names: set[str]) -> None:
    """Remove files that are no longer planned from an export that was stopped; refuse files that are not its own."""
    found = _read_marker(work)
    if found and found["request"] != request:
        msg = (
            f"{str(work)!r} holds an unfinished export of another command ({_describe(found['request'])}). Run that "
            "one again to finish it, remove the folder, or choose another `out`."
        )
        raise StoreError(msg)
    own = set(found["files"]) if found else set()
    for name, path in _list(work).items():
        if _UNFINISHED.fullmatch(path.name) and not path.is_symlink():
            path.unlink()
        elif path.is_symlink() or (name not in own | {MARKER, _LOCK}) or (name == MARKER and not found):
            msg = (
                f"{str(path)!r} is not of the export that was to go on in {str(work)!r}. Move it elsewhere, or choose "
                "another `out`."
            )
            raise StoreError(msg)
        elif name in own - names:
            path.unlink()


def _list(folder: Path) -> dict[str, Path]:
    """Return every file and link in a folder by its name in it."""
    paths = (Path(place) / name for place, folders, files in os.walk(folder) for name in [*files, *folders])
    return {path.relative_to(folder).as_posix(): path for path in paths if path.is_symlink() or not path.is_dir()}


def _prune(work: Path) -> None:
    """Remove folders that nothing is left in."""
    for place, _, _ in os.walk(work, topdown=False):
        if not any(Path(place).iterdir()):
            Path(place).rmdir()


def _write(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)


def _mark(folder: Path, content: dict[str, Any]) -> None:
    content = {**content, "digest": _digest(content)}
    write_whole(folder / MARKER, json.dumps(content, indent=1).encode() + b"\n")


def _digest(content: dict[str, Any]) -> str:
    return hash_bytes(json.dumps(content, sort_keys=True).encode())


def _read_marker(folder: Path) -> dict[str, Any] | None:
    """Return the content of an export's marker, None where there is none or it was changed."""
    try:
        found = json.loads((folder / MARKER).read_bytes())
        digest = found.pop("digest")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if digest == _digest(found) else None


def _describe(request: dict[str, Any]) -> str:
    options = request.get("options") or {}
    return " ".join([str(request.get("layout")), *(f"--{name} {value}" for name, value in options.items())])


def _is_portable(name: str) -> bool:
    """Return whether a name stays inside the export on any system."""
    return is_inside(name) and "\\" not in name and ":" not in name

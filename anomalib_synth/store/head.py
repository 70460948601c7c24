"""The head of a store: its format, and the settings of the run that made it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.files import write_whole
from anomalib_synth.store.identity import ALGORITHM
from anomalib_synth.store.rules import (
    CONFIG,
    HASH,
    HASH_OR_EMPTY,
    PLAIN,
    FieldRule,
    RecordSchema,
    is_text,
    one_of,
    or_none,
    whole,
)

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1


def _has_texts(value: Any) -> bool:
    return type(value) is dict and all(is_text(name) and is_text(text) for name, text in value.items())


_NORMALS = RecordSchema(
    name="the inputs' summary",
    rules={"files": whole(0), "digest": HASH, "unreadable": FieldRule("reasons by name", _has_texts)},
    optional=frozenset({"files", "digest", "unreadable"}),
    open_ended=True,
)


def _is_size(value: Any) -> bool:
    """Return whether a value is a side in pixels, a pair of sides, or text such as ``384x512``."""
    if type(value) is list:
        return len(value) == 2 and all(_is_size(each) for each in value)
    return (type(value) is int and 1 <= value < 2**31) or (type(value) is str and is_text(value))


_SETTINGS = RecordSchema(
    name="the settings of a run",
    rules={
        "algorithm": whole(0),
        "generator": CONFIG,
        "files_digest": HASH_OR_EMPTY,
        "weights_hash": HASH_OR_EMPTY,
        "prepare_digest": HASH_OR_EMPTY,
        "seed": whole(0, 2**63 - 1),
        "image_size": or_none(FieldRule("a size in pixels", _is_size)),
        "split": one_of("train", "val", "test"),
        "max_normals": whole(1),
        "normals": PLAIN,
        "defect_digests": FieldRule("names of files by digest", _has_texts),
    },
    optional=frozenset(
        {"algorithm", "generator", "files_digest", "weights_hash", "prepare_digest", "seed", "image_size", "split"}
        | {"max_normals", "normals", "defect_digests"}
    ),
    open_ended=True,
)
_HEAD = RecordSchema(
    name="the head of a store",
    rules={"format": whole(1), "algorithm": whole(0), "settings": PLAIN},
    optional=frozenset({"algorithm"}),
    open_ended=True,
)


def write_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the head of a new store, which makes the folder a store."""
    head = {"format": FORMAT, "algorithm": ALGORITHM, "settings": settings}
    write_whole(path / "store.json", json.dumps(head, indent=1).encode() + b"\n")


def find_head_fault(head: Any) -> str:
    """Return what is wrong with the contents of ``store.json``, "" when nothing is."""
    if fault := _HEAD.find_fault(head):
        return fault
    if fault := _SETTINGS.find_fault(head["settings"]):
        return f"has settings in which something is wrong: it {fault}"
    fault = _NORMALS.find_fault(head["settings"].get("normals", {}))
    return f"has settings of which `normals` {fault}" if fault else ""


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a store's head.

    Raises:
        StoreError: If the store has no head, it is of another format, or it is damaged.
    """
    file = path / "store.json"
    try:
        head = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{str(path)!r} is no store: it has no store.json. Make one with `anomalib-synth generate --out`."
        raise StoreError(msg) from error
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{str(file)!r} is damaged ({error}). Restore it from a copy, or generate a new store."
        raise StoreError(msg) from error
    version = head.get("format") if isinstance(head, dict) else None
    if type(version) is int and version != FORMAT:
        this = f"this version of anomalib-synth reads format {FORMAT}"
        msg = f"{str(path)!r} has format {version}, {this}. Upgrade the package."
        raise StoreError(msg)
    if fault := find_head_fault(head):
        msg = f"{str(file)!r} is damaged: it {fault}. Restore it from a copy, or generate a new store."
        raise StoreError(msg)
    return head["settings"]

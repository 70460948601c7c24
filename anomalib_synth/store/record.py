"""One row of the manifest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from anomalib_synth.store.errors import StoreError
from anomalib_synth.store.rules import (
    CONFIG,
    FLAG,
    HASH,
    HASH_OR_EMPTY,
    INSIDE,
    NUMBERS,
    PLAIN,
    POSITIVE,
    TEXT,
    RecordSchema,
    between,
    one_of,
    or_none,
    place,
    show,
    whole,
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that is kept of a sample besides its pixels, as plain data.

    Args:
        id: See :func:`anomalib_synth.store.sample_id`.
        index: Position in the run, from 0.
        split: Role of the source: ``train``, ``val`` or ``test``; never mixed when samples are served.
        source: Path of the input, relative to the folder of normals.
        source_hash: Digest of the source's pixels as the generator saw them.
        image_file: Path in the store, as ``mask_file`` and ``source_file``; a rejected row has only ``source_file``.
        image_hash: Digest of the file's bytes, as ``mask_hash`` and ``source_file_hash``; "" without a file.
        generator: ``{"class_path": ..., "init_args": ...}``.
        prepare_digest: Digest of the normals the generator was prepared with.
        files_digest: Digest of the files the generator reads.
        weights_hash: Digest of the generator's weights, "" if it has none.
        seed: Seed of the sample.
        attempt: Number of the draw that was kept, from 0; -1 for none.
        prompt: Prompt that was asked for, "" for none.
        caption: What the generator says it drew.
        family: Kind of defect.
        params: Parameters of the draw.
        strength: Strength of the draw in (0, 1], None where the generator has none.
        area: Share of the image's pixels in the mask, in [0, 1].
        visibility: Mean change in the mask, divided by the noise of normals.
        agreement: Share of the intended area that changed, in [0, 1].
        foreground: Share of the mask on the part, in [0, 1].
        quality: In [0, 1].
        scores: Further scores by name.
        accepted: Whether the sample passed the generator's checks.
        reason: Why it did not.
        seconds: Time it took to draw; the only field that may differ between two runs.
        version: Version of the package.
    """

    id: str
    index: int
    split: str
    source: str
    source_hash: str
    image_file: str
    mask_file: str
    source_file: str
    image_hash: str
    mask_hash: str
    source_file_hash: str
    generator: dict[str, Any]
    prepare_digest: str
    files_digest: str
    weights_hash: str
    seed: int
    attempt: int
    prompt: str
    caption: str
    family: str
    params: dict[str, Any]
    strength: float | None
    area: float
    visibility: float
    agreement: float
    foreground: float
    quality: float
    scores: dict[str, float] = field(default_factory=dict)
    accepted: bool
    reason: str
    seconds: float
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)

    def to_line(self) -> bytes:
        """Return the row as a line of JSON."""
        return json.dumps(vars(self), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_dict(cls, row: dict[str, Any], *, where: str = "A row of the manifest") -> Record:
        """Return the record of a row.

        Raises:
            StoreError: If a field is missing, unknown, or is not what :data:`RECORD` says.
        """
        if fault := RECORD.find_fault(row):
            msg = f"{where} {fault}."
            raise StoreError(msg)
        return cls.of_checked(row)

    @classmethod
    def of_checked(cls, row: dict[str, Any]) -> Record:
        """Return the record of a checked row, without the slow field-by-field setting of frozen dataclasses."""
        record = cls.__new__(cls)
        record.__dict__.update(row)
        return record


def file_place(kind: str, name: str) -> str:
    """Return where the store keeps a file: its first two letters name a folder, so that no folder gets too full."""
    return f"{kind}/{name[:2]}/{name}.png"


def name_of(place: str) -> str:
    """Return the name within a path of the store: the sample's id, or the digest of a source; "" for no file."""
    return place[-36:-4]


def _find_odd_files(row: dict[str, Any]) -> str:
    """Return what is wrong with the files that a row names: a sample has an image and a mask, or neither."""
    is_drawn = row["image_file"] != ""
    for name in ("mask_file", "image_hash", "mask_hash"):
        if (row[name] != "") is not is_drawn:
            return f"has `{name}` = {show(row[name])}, which must be there if `image_file` is, and only then"
    return "has `accepted` = True, but the sample was never drawn" if row["accepted"] and not is_drawn else ""


_UNIT = between(0, 1)
RECORD = RecordSchema(
    name="a sample",
    rules={
        "id": HASH,
        "index": whole(0),
        "split": one_of("train", "val", "test"),
        "source": INSIDE,
        "source_hash": HASH,
        "image_file": place("images", optional=True),
        "mask_file": place("masks", optional=True),
        "source_file": place("sources"),
        "image_hash": HASH_OR_EMPTY,
        "mask_hash": HASH_OR_EMPTY,
        "source_file_hash": HASH,
        "generator": CONFIG,
        "prepare_digest": HASH_OR_EMPTY,
        "files_digest": HASH_OR_EMPTY,
        "weights_hash": HASH_OR_EMPTY,
        "seed": whole(0, 2**64 - 1),
        "attempt": whole(-1),
        "prompt": TEXT,
        "caption": TEXT,
        "family": TEXT,
        "params": PLAIN,
        "strength": or_none(POSITIVE),
        "area": _UNIT,
        "visibility": POSITIVE,
        "agreement": _UNIT,
        "foreground": _UNIT,
        "quality": _UNIT,
        "scores": NUMBERS,
        "accepted": FLAG,
        "reason": TEXT,
        "seconds": POSITIVE,
        "version": TEXT,
    },
    relation=_find_odd_files,
)

"""One row of the manifest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from anomalib_synth.store.errors import StoreError


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that is kept of a sample beside its pixels; plain data.

    Args:
        id: See :func:`anomalib_synth.store.sample_id`.
        index: Position in the run, from 0.
        split: Role of the source: ``train``, ``val`` or ``test``; never mixed when samples are served.
        source: Path of the input, relative to the folder of normals.
        source_hash: Digest of the source's pixels as the generator saw them.
        image_file: Path in the store, as ``mask_file`` and ``source_file``; "" for the first two of a rejected row.
        image_hash: Digest of the file's bytes, as ``mask_hash`` and ``source_file_hash``.
        generator: ``{"class_path": ..., "init_args": ...}``.
        prepare_digest: Digest of the normals the generator was prepared with.
        files_digest: Digest of the files the generator reads.
        weights_hash: Digest of its weights, "" without.
        seed: Seed of the sample.
        attempt: Which draw was kept, -1 for none.
        prompt: Prompt that was asked for.
        caption: What the generator says it drew.
        family: Kind of defect.
        params: Parameters of the draw.
        strength: Strength of the draw in (0, 1], None where the generator has none.
        area: Share of the image's pixels in the mask, in [0, 1].
        visibility: Mean change in the mask over the noise of normals.
        agreement: Share of the intended area that changed, in [0, 1].
        foreground: Share of the mask on the part, in [0, 1].
        quality: In [0, 1].
        scores: Further scores by name.
        accepted: Whether the sample passed the generator's checks.
        reason: Why it did not.
        seconds: Time it took; the only field that may differ between two runs.
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
    def from_dict(cls, row: dict[str, Any], *, where: str = "a row") -> Record:
        """Return the record of a row.

        Raises:
            StoreError: If a key is missing or unknown, or a path leads out of the store.
        """
        if not isinstance(row, dict) or row.keys() != _NAMES:
            got = row.keys() if isinstance(row, dict) else set()
            msg = (
                f"{where} of the manifest must have the fields of a sample; missing {sorted(_NAMES - got)}, unknown "
                f"{sorted(got - _NAMES)}. It was edited or damaged: restore it from a copy, or generate a new store."
            )
            raise StoreError(msg)
        for name in ("image_file", "mask_file", "source_file"):
            if not is_inside(row[name]):
                msg = (
                    f"{where} of the manifest has `{name}` = {row[name]!r}, which leads out of the store. It was not "
                    "written by this package: do not use this store."
                )
                raise StoreError(msg)
        return cls(**row)


_NAMES = {each.name for each in fields(Record)}


def is_inside(path: str) -> bool:
    """Return whether a relative path stays inside the folder it starts from."""
    if not isinstance(path, str) or "\\" in path or ":" in path:
        return False
    return not path.startswith("/") and ".." not in path.split("/")

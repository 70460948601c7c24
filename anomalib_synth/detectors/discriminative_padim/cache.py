"""Keeps computed features: in memory up to a limit, then in a temporary file, or permanently in a folder."""

from __future__ import annotations

import logging
import re
import tempfile
from hashlib import blake2b
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)
_LINE = re.compile(r"(?P<key>([0-9a-f]{2})+),(?P<start>\d{1,15}),(?P<length>\d{1,12})")
RAW = b"raw"  # prefix of the keys of raw features


class FeatureCache:
    """Keeps half-precision feature vectors, each under a key made from a digest of its image's pixels.

    Vectors that fit within neither limit are not kept and have to be computed again. The temporary file has no name and
    disappears with the process.

    Args:
        memory: Most bytes to keep in memory.
        disk: Most bytes to keep in the temporary file.
        kept: Permanent store of raw features; None for no such store.
    """

    def __init__(self, *, memory: int, disk: int, kept: KeptFeatures | None = None) -> None:
        self._room_memory, self._room_disk = memory, disk
        self._kept_for_good = kept
        self._kept: dict[bytes, np.ndarray] = {}
        self._places: dict[bytes, tuple[int, int]] = {}  # start of each vector in the file, and its length
        self._file: IO[bytes] | None = None
        self._end = 0
        self._largest = 0  # bytes of a vector that was put

    @property
    def has_room(self) -> bool:
        """Whether one more vector, as large as any before, would be kept."""
        return self._largest <= max(self._room_memory, self._room_disk)

    def __len__(self) -> int:
        """Return the number of vectors kept in memory and in the temporary file."""
        return len(self._kept) + len(self._places)

    def __contains__(self, key: bytes) -> bool:
        """Return whether the vector of a key is kept."""
        return key in self._kept or key in self._places or self._is_kept_for_good(key)

    def _is_kept_for_good(self, key: bytes) -> bool:
        return self._kept_for_good is not None and key in self._kept_for_good

    def get(self, key: bytes) -> torch.Tensor | None:
        """Return the vector of a key, None if it is not kept."""
        if key in self._kept:
            return torch.from_numpy(self._kept[key])
        if self._kept_for_good is not None and key in self._kept_for_good:
            return self._kept_for_good.get(key)
        if key not in self._places or self._file is None:
            return None
        start, length = self._places[key]
        self._file.seek(start)
        return torch.from_numpy(np.frombuffer(bytearray(self._file.read(2 * length)), dtype=np.float16))

    def put(self, key: bytes, vector: torch.Tensor) -> None:
        """Keep a (D,) float16 vector, if there is room."""
        if key in self:
            return
        if self._kept_for_good is not None and key.startswith(RAW):
            self._kept_for_good.put(key, vector)
            return
        array = vector.cpu().numpy()
        self._largest = max(self._largest, array.nbytes)
        if array.nbytes <= self._room_memory:
            self._room_memory -= array.nbytes
            self._kept[key] = array
        elif array.nbytes <= self._room_disk:
            self._room_disk -= array.nbytes
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="anomalib_synth_")  # noqa: SIM115  (closed by `close`)
            try:
                self._file.seek(self._end)
                self._file.write(array.tobytes())
            except OSError as error:
                self._room_disk = 0
                logger.warning("Features are no longer kept, so training goes on more slowly: %s. Set TMPDIR.", error)
                return
            self._places[key] = (self._end, array.size)
            self._end += array.nbytes

    def close(self) -> None:
        """Drop all vectors in memory and delete the temporary file; the permanent store stays."""
        self._kept.clear()
        self._places.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


class KeptFeatures:
    """Half-precision vectors in a folder, by key, for use in later runs too.

    All vectors are in one file. An index file holds one line per vector with its place, written after the vector
    itself, so the index of a killed run lists complete vectors only.

    Args:
        folder: The folder; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._vectors, self._index = folder / "features.f16", folder / "features.csv"
        self._vectors.touch()
        self._places: dict[bytes, tuple[int, int]] = {}
        text = self._index.read_text(encoding="ascii", errors="replace") if self._index.exists() else ""
        size = self._vectors.stat().st_size
        for line in text.split("\n")[:-1]:
            found = _LINE.fullmatch(line)
            if found and int(found["start"]) + 2 * int(found["length"]) <= size:
                self._places[bytes.fromhex(found["key"])] = (int(found["start"]), int(found["length"]))

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        """Return whether the vector of a key is there."""
        return key in self._places

    def get(self, key: bytes) -> torch.Tensor | None:
        """Return the vector of a key, None if it is not there."""
        if key not in self._places:
            return None
        start, length = self._places[key]
        with self._vectors.open("rb") as file:
            file.seek(start)
            return torch.from_numpy(np.frombuffer(bytearray(file.read(2 * length)), dtype=np.float16))

    def put(self, key: bytes, vector: torch.Tensor) -> None:
        """Keep a (D,) float16 vector."""
        if key in self:
            return
        array = vector.cpu().numpy()
        with self._vectors.open("ab", buffering=0) as file:  # appends at the end, which another process may have moved
            file.write(array.tobytes())
            start = file.tell() - array.nbytes
        with self._index.open("a", encoding="ascii") as file:
            file.write(f"{key.hex()},{start},{array.size}\n")
        self._places[key] = (start, array.size)


def digest_values(image: torch.Tensor) -> bytes:
    """Return a digest of an image's values."""
    return blake2b(image.detach().cpu().contiguous().numpy(), digest_size=16).digest()

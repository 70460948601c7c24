"""Features that are computed once: in memory up to a limit, then in a temporary file; or kept in a folder for good."""

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
RAW = b"raw"  # what the keys of raw features begin with


class FeatureCache:
    """Keeps one half-precision vector an image, under a digest of its pixels.

    What comes after both limits is not kept, and has to be computed again. The file has no name and goes with the
    process.

    Args:
        memory: Bytes kept in memory.
        disk: Bytes kept in the file.
        kept: Where raw features are kept for good, None for nowhere.
    """

    def __init__(self, *, memory: int, disk: int, kept: KeptFeatures | None = None) -> None:
        self._room_memory, self._room_disk = memory, disk
        self._kept_for_good = kept
        self._kept: dict[bytes, np.ndarray] = {}
        self._places: dict[bytes, tuple[int, int]] = {}  # where a vector starts in the file, and its length
        self._file: IO[bytes] | None = None
        self._end = 0

    def __len__(self) -> int:
        """Return the number of vectors that are kept."""
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
        """Forget everything and give the memory and the file back."""
        self._kept.clear()
        self._places.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


class KeptFeatures:
    """Half-precision vectors in a folder, under digests; they are there in the next run too.

    The vectors follow one another in one file; a line of another says where each lies and is written after it, so a run
    that was killed leaves whole vectors and no others.

    Args:
        folder: The folder; it is made.
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
        with self._vectors.open("ab", buffering=0) as file:  # at the end, wherever another process has moved it
            file.write(array.tobytes())
            start = file.tell() - array.nbytes
        with self._index.open("a", encoding="ascii") as file:
            file.write(f"{key.hex()},{start},{array.size}\n")
        self._places[key] = (start, array.size)


def digest_values(image: torch.Tensor) -> bytes:
    """Return a digest of an image's values."""
    return blake2b(image.detach().cpu().contiguous().numpy(), digest_size=16).digest()

"""Features that are computed once: in memory up to a limit, then in a temporary file up to another."""

from __future__ import annotations

import logging
import tempfile
from hashlib import blake2b
from typing import IO

import numpy as np
import torch

logger = logging.getLogger(__name__)


class FeatureCache:
    """Keeps one half-precision vector an image, under a digest of its pixels.

    What comes after both limits is not kept, and has to be computed again. The file has no name and goes with the
    process.

    Args:
        memory: Bytes kept in memory.
        disk: Bytes kept in the file.
    """

    def __init__(self, *, memory: int, disk: int) -> None:
        self._room_memory, self._room_disk = memory, disk
        self._kept: dict[bytes, np.ndarray] = {}
        self._places: dict[bytes, tuple[int, int]] = {}  # where a vector starts in the file, and its length
        self._file: IO[bytes] | None = None
        self._end = 0

    def __len__(self) -> int:
        """Return the number of vectors that are kept."""
        return len(self._kept) + len(self._places)

    def __contains__(self, key: bytes) -> bool:
        """Return whether the vector of a key is kept."""
        return key in self._kept or key in self._places

    def get(self, key: bytes) -> torch.Tensor | None:
        """Return the vector of a key, None if it is not kept."""
        if key in self._kept:
            return torch.from_numpy(self._kept[key])
        if key not in self._places or self._file is None:
            return None
        start, length = self._places[key]
        self._file.seek(start)
        return torch.from_numpy(np.frombuffer(bytearray(self._file.read(2 * length)), dtype=np.float16))

    def put(self, key: bytes, vector: torch.Tensor) -> None:
        """Keep a (D,) float16 vector, if there is room."""
        if key in self:
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


def digest_pixels(image: torch.Tensor) -> bytes:
    """Return a digest of an image's values."""
    return blake2b(image.detach().cpu().contiguous().numpy(), digest_size=16).digest()

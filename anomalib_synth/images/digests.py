"""Digests that recognise an image by its content, whatever its file is called."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomalib_synth.images.files import open_file
from anomalib_synth.images.formats import UnreadableImageError
from anomalib_synth.images.reading import allow_large_images, open_image, read_bytes
from anomalib_synth.images.samples import as_rgb, is_deep, read_samples, turn_upright
from anomalib_synth.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable

_QUIET = 64
_THREADS = 4


def hash_bytes(data: bytes) -> str:
    """Return the digest of a file's bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_file(path: str | Path) -> str:
    """Return the digest of a file's bytes, as :func:`hash_bytes` does, without holding them all in memory.

    Raises:
        OSError: If it cannot be opened, or is not a regular file.
    """
    with open_file(Path(path)) as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def digest_image(path: str | Path) -> str:
    """Return the digest of what a file shows: its upright samples, before any white point.

    A copy under another name, in another lossless format or without metadata has the same digest. A file that is not a
    readable image has the digest of its bytes.

    Raises:
        ValueError: If the file cannot be opened, so that nobody can say what it shows.
    """
    try:
        data = read_bytes(Path(path))
        with open_image(data) as image:
            if is_deep(image, data):
                samples = read_samples(image, data)
            else:
                samples = turn_upright(np.asarray(as_rgb(image)), image)
    except UnreadableImageError:
        try:
            return digest_file(path)
        except OSError as error:
            msg = (
                f"Images must be there to be compared with others, but {str(path)!r} cannot be read "
                f"({error.strerror or error}). Put it back, or take it away."
            )
            raise ValueError(msg) from error
    return digest_pixels(samples)


def digest_pixels(samples: np.ndarray) -> str:
    """Return the digest of decoded pixels, (H, W) or (H, W, 3), upright.

    Of an 8-bit image it is the same as :func:`digest_image` of the file.
    """
    if samples.ndim == 2:
        samples = np.repeat(samples[..., None], 3, axis=2)
    if samples.dtype.kind in "iu" and samples.dtype.itemsize > 1:
        samples = samples.astype(np.int32)
    kind = f"{samples.dtype.kind}{samples.dtype.itemsize}{samples.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(samples).tobytes(), digest_size=16, key=kind).hexdigest()


def digest_images(paths: Iterable[str | Path], *, description: str = "Comparing images") -> list[str]:
    """Return the :func:`digest_image` of each file, in order; several threads read, and many files show a bar."""
    listed = list(paths)
    with ThreadPoolExecutor(_THREADS) as pool, allow_large_images():
        results = pool.map(digest_image, listed)
        return list(track(results, description, total=len(listed), disable=len(listed) < _QUIET))

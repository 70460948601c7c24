"""The ids of samples, and their images as bytes of PNG files."""

from __future__ import annotations

import io
import json
from hashlib import blake2b
from typing import Any

import numpy as np
from PIL import Image

from anomalib_synth.images.digests import hash_bytes
from anomalib_synth.store.errors import StoreError

ALGORITHM = 1  # raise it when the same inputs give other samples
_MODES = frozenset({"L", "LA", "RGB", "RGBA"})
_MAX_PIXELS = 2**27


def hash_pixels(image: np.ndarray) -> str:
    """Return the digest of an image's shape and pixels: uint8, (H, W, C) or (H, W)."""
    shape = str(tuple(image.shape)).encode()
    return blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16, key=shape[:64]).hexdigest()


def encode_png(image: np.ndarray) -> bytes:
    """Return an image as PNG, the same bytes each time: uint8, (H, W, C) or (H, W)."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """Return the pixels of a PNG: uint8, (H, W, C) or (H, W).

    Raises:
        StoreError: If the data is no PNG, has other than 8 bits a channel, or has more than 2**27 pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode not in _MODES or image.width * image.height > _MAX_PIXELS:
                msg = f"a PNG of mode {image.mode} and {image.width} x {image.height} pixels"
                raise ValueError(msg)
            return np.array(image)
    except Exception as error:  # a damaged file can make a decoder raise anything
        msg = f"must be a PNG of 8 bits a channel and at most {_MAX_PIXELS / 1e6:.0f} megapixels ({error})."
        raise StoreError(msg) from error


def png_size(data: bytes) -> tuple[int, int]:
    """Return the width and the height in a PNG's header; (0, 0) if the data does not begin like a PNG."""
    is_png = data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and len(data) >= 24
    return (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) if is_png else (0, 0)


def sample_id(
    *,
    source_hash: str,
    prepare_digest: str,
    config: dict[str, Any],
    prompt: str,
    mask_hash: str,
    files_digest: str,
    weights_hash: str,
    algorithm: int = ALGORITHM,
    seed: int,
) -> str:
    """Return the id of a sample, 32 hexadecimal digits: a function of all that decides its pixels.

    Args:
        source_hash: Digest of the source's pixels.
        prepare_digest: Digest of the normals the generator was prepared with.
        config: ``{"class_path": ..., "init_args": ...}`` of the generator.
        prompt: Prompt, "" when none was given.
        mask_hash: Digest of the region that was asked for, "" when none was.
        files_digest: Digest of the files the generator reads.
        weights_hash: Digest of the generator's weights, "" when it has none.
        algorithm: Version of the algorithm.
        seed: Seed of the sample.
    """
    parts = {
        "source": source_hash,
        "prepare": prepare_digest,
        "config": config,
        "prompt": prompt,
        "mask": mask_hash,
        "files": files_digest,
        "weights": weights_hash,
        "algorithm": algorithm,
        "seed": seed,
    }
    return hash_bytes(json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str).encode())

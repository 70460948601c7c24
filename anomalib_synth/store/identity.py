"""What a sample is called: ids by content, and images as bytes."""

from __future__ import annotations

import io
import json
from hashlib import blake2b
from typing import Any

import numpy as np
from PIL import Image

from anomalib_synth.images.digests import hash_bytes

ALGORITHM = 1  # raise it when the same inputs give other samples


def hash_pixels(image: np.ndarray) -> str:
    """Return the digest of an image's shape and pixels: uint8, (H, W, C) or (H, W)."""
    shape = str(tuple(image.shape)).encode()
    return blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16, key=shape[:64]).hexdigest()


def encode_png(image: np.ndarray) -> bytes:
    """Return an image as PNG, the same bytes each time: uint8, (H, W, C) or (H, W)."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """Return the pixels of a PNG: uint8, (H, W, C) or (H, W)."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.array(image)


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

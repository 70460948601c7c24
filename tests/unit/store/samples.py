"""Small stores for tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_synth.store import (
    Record,
    SampleStore,
    encode_png,
    hash_bytes,
    hash_pixels,
    sample_id,
)

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {"class_path": "anomalib_synth.generators.RuleBasedGenerator", "init_args": {"families": ["scratch"]}}


def make_record(
    store: SampleStore,
    index: int,
    *,
    size: int = 16,
    mask: np.ndarray | None = None,
    source_seed: int | None = None,
    **changes: Any,
) -> Record:
    """Put the files of a sample and return its row: a bright square, or a mask, on a random source."""
    if mask is None:
        mask = np.zeros((size, size), dtype=np.uint8)
        top, left = index % (size // 2), (3 * index) % (size // 2)
        mask[top : top + size // 4, left : left + size // 4] = 255
    mask = np.where(mask > 0, np.uint8(255), np.uint8(0))
    rng = np.random.default_rng(index if source_seed is None else source_seed)
    source = rng.integers(0, 200, (*mask.shape, 3), dtype=np.uint8)
    image = np.where(mask[..., None] > 0, np.uint8(255), source)
    source_hash = hash_pixels(source)
    identity = sample_id(
        source_hash=source_hash, prepare_digest="", config=CONFIG, prompt="", mask_hash="", files_digest="",
        weights_hash="", seed=index,
    )  # fmt: skip
    data = {"images": encode_png(image), "masks": encode_png(mask), "sources": encode_png(source)}
    names = {"images": identity, "masks": identity, "sources": source_hash}
    places = {kind: store.put(kind, names[kind], data[kind])[0] for kind in data}
    row = {
        "id": identity, "index": index, "split": "train", "source": f"good/{index}.png", "source_hash": source_hash,
        "image_file": places["images"], "mask_file": places["masks"], "source_file": places["sources"],
        "image_hash": hash_bytes(data["images"]), "mask_hash": hash_bytes(data["masks"]),
        "source_file_hash": hash_bytes(data["sources"]), "generator": CONFIG, "prepare_digest": "", "files_digest": "",
        "weights_hash": "", "seed": index, "attempt": 0, "prompt": "", "caption": "a bright square",
        "family": ["scratch", "stain"][index % 2], "params": {"strength": 0.5}, "strength": 0.5,
        "area": float((mask > 0).mean()), "visibility": 3.0, "agreement": 1.0, "foreground": 1.0,
        "quality": (index % 10) / 10, "scores": {}, "accepted": True, "reason": "", "seconds": 0.01, "version": "0.1.0",
    }  # fmt: skip
    return Record(**{**row, **changes})


def reject(record: Record) -> Record:
    """Return the row of a sample whose draws all failed."""
    empty = dict.fromkeys(("image_file", "mask_file", "image_hash", "mask_hash", "family", "caption"), "")
    return Record(**{**record.to_dict(), **empty, "accepted": False, "reason": "scratch: nothing changed visibly"})


def make_store(path: Path, count: int = 6, *, size: int = 16) -> SampleStore:
    """Make a store with some samples."""
    store = SampleStore.create(path, {"seed": 0})
    with store.writing():
        for index in range(count):
            store.append(make_record(store, index, size=size))
    return store


def make_masked_store(path: Path, masks: list[np.ndarray], **changes: list) -> SampleStore:
    """A store with a sample for each mask; lists of changes give one value a sample."""
    store = SampleStore.create(path, {"seed": 0})
    with store.writing():
        for index, mask in enumerate(masks):
            mine = {name: values[index] for name, values in changes.items()}
            store.append(make_record(store, index, mask=mask, **mine))
    return store


def hard_masks() -> list[np.ndarray]:
    """A ring with an island in it, pixels that touch at corners, specks, two regions whose boxes overlap, noise."""
    ring = np.zeros((40, 50), dtype=bool)
    ring[5:30, 8:40], ring[10:25, 12:30], ring[14:20, 18:24] = True, False, True
    corners = np.eye(40, 50, dtype=bool) | np.eye(40, 50, k=9, dtype=bool)[:, ::-1]
    specks = np.zeros((40, 50), dtype=bool)
    specks[3:9, 3:9], specks[11, 5], specks[4:8, 12], specks[35, 45] = True, True, True, True
    hooks = np.zeros((40, 50), dtype=bool)
    hooks[5:30, 5], hooks[29, 5:30], hooks[2, 10:45], hooks[2:26, 44] = True, True, True, True
    return [ring, corners, specks, hooks, np.random.default_rng(3).random((40, 50)) > 0.6]

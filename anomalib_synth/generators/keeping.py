"""How a sample gets into a store: its pixels as files, everything else as a row of the manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from anomalib_synth.store import Record, encode_png, hash_pixels, sample_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.sample import AnomalySample
    from anomalib_synth.store.store import Kind

    Put = Callable[[Kind, str, bytes], tuple[str, str]]

_MEASURED = ("area", "visibility", "agreement", "foreground")
_REMEMBERED_SOURCES = 4096


class SampleKeeper:
    """Writes the files of samples into a store, and describes each sample by a row.

    Args:
        put: Stores a file: (kind, name, bytes) -> its path in the store.
        split: Role of the sources: ``train``, ``val`` or ``test``.
        weights_hash: Digest of the generator's weights, ``""`` if it has none.
    """

    def __init__(self, put: Put, *, split: str, weights_hash: str) -> None:
        self._put = put
        self._split = split
        self._weights_hash = weights_hash
        self._sources: dict[str, tuple[str, str]] = {}

    def keep(
        self,
        sample: AnomalySample,
        row: int,
        *,
        index: int,
        name: str,
        seed: int,
        source: np.ndarray,
        image: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        seconds: float = 0.0,
    ) -> Record:
        """Put the files of one sample and return its row.

        Args:
            sample: A batch of samples.
            row: Which of them.
            index: Its position in the run.
            name: Path of the source, relative to the folder of normals.
            seed: Its seed.
            source: The whole source, (H, W, C) uint8; the generator may have seen a window of it alone.
            image: The whole source with the defect, (H, W, C) uint8; None takes the sample's own image.
            mask: The mask of the whole source, (H, W) uint8; None takes the sample's own.
            seconds: Seconds that drawing it took.

        Raises:
            StoreError: If the store cannot take a file, for instance because the disk is full.
        """
        provenance = sample.provenance[row]
        accepted = bool(sample.accepted[row])
        source_hash = hash_pixels(source)
        identity = sample_id(
            source_hash=source_hash,
            prepare_digest=provenance.prepare_digest,
            config=provenance.config,
            prompt=provenance.prompt,
            mask_hash="",
            files_digest=provenance.files_digest,
            weights_hash=self._weights_hash,
            seed=seed,
        )
        source_file, source_file_hash = self._put_source(source_hash, source)
        image_file, image_hash, mask_file, mask_hash = "", "", "", ""
        if accepted:
            image = to_levels(sample.image[row]) if image is None else image
            mask = to_levels(sample.mask[row])[..., 0] if mask is None else mask
            image_file, image_hash = self._put_png("images", identity, image)
            mask_file, mask_hash = self._put_png("masks", identity, mask)
        measured = {key: provenance.measured.get(key, 0.0) for key in _MEASURED}
        measured["area"] *= sample.image[row, 0].numel() / (source.shape[0] * source.shape[1])
        scores = {key: value for key, value in provenance.measured.items() if key not in _MEASURED}
        return Record(
            id=identity,
            index=index,
            split=self._split,
            source=name,
            source_hash=source_hash,
            image_file=image_file,
            mask_file=mask_file,
            source_file=source_file,
            image_hash=image_hash,
            mask_hash=mask_hash,
            source_file_hash=source_file_hash,
            generator=provenance.config,
            prepare_digest=provenance.prepare_digest,
            files_digest=provenance.files_digest,
            weights_hash=self._weights_hash,
            seed=seed,
            attempt=provenance.attempt,
            prompt=provenance.prompt,
            caption=sample.caption[row],
            family=provenance.family,
            params=dict(provenance.params),
            strength=provenance.params.get("strength"),
            **measured,
            quality=float(sample.quality[row]),
            scores=scores,
            accepted=accepted,
            reason=sample.reason[row],
            seconds=round(seconds, 4),
            version=provenance.version,
        )

    def _put_source(self, source_hash: str, source: np.ndarray) -> tuple[str, str]:
        """Write a source once, and remember that it was written."""
        if source_hash not in self._sources:
            if len(self._sources) >= _REMEMBERED_SOURCES:
                self._sources.pop(next(iter(self._sources)))
            self._sources[source_hash] = self._put_png("sources", source_hash, source)
        return self._sources[source_hash]

    def _put_png(self, kind: Kind, name: str, pixels: np.ndarray) -> tuple[str, str]:
        return self._put(kind, name, encode_png(pixels))


def to_levels(image: torch.Tensor) -> np.ndarray:
    """Return an image (C, H, W) in [0, 1] as (H, W, C) uint8; values that came from 8 bits come back exactly."""
    levels = (image.detach().cpu().float() * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())

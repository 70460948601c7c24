"""Serves the kept samples of a store."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch.nn import functional as F

from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.images import WhitePoint, digest_images, to_tensor
from anomalib_synth.sample import AnomalySample, Provenance
from anomalib_synth.store import Record, SampleStore, StoreError, hash_bytes, hash_pixels
from anomalib_synth.store.logs import read_log
from anomalib_synth.store.schemas import INPUT

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np

    from anomalib_synth.generators.condition import Condition

Split = Literal["train", "val", "test"]


class StoredGenerator(AnomalyGenerator):
    """Serves samples that were generated before and kept in a store; draws nothing itself.

    A sample's seed chooses among the kept samples: those that passed the generator's checks and that nobody rejected in
    a review. Only samples of one split are served, so that no source of the test split gets into the training.

    Args:
        store: Folder of the store, made by ``anomalib-synth generate``.
        min_quality: Least quality, in [0, 1].
        split: Role of the sources: ``train``, ``val`` or ``test``.
        paired: If True, a sample brings its own source, which replaces the image, at the image's size. If False, an
            image gets a sample only if the store has one of the same image, equal in every pixel; otherwise it comes
            back unchanged.
        families: Kinds of defects to serve; None for all.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If an argument is out of its range.
        StoreError: On first use, if there is no store, it is damaged, or no sample of it is kept.
    """

    def __init__(
        self,
        store: Path | str,
        *,
        min_quality: float = 0.0,
        split: Split = "train",
        paired: bool = True,
        families: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if not 0 <= min_quality <= 1:
            msg = f"`min_quality` must be in [0, 1], got {min_quality}."
            raise ValueError(msg)
        if split not in get_args(Split):
            msg = f"`split` must be one of {', '.join(get_args(Split))}, got {split!r}."
            raise ValueError(msg)
        self.store = Path(store)
        self.min_quality = min_quality
        self.split = split
        self.paired = paired
        self.families = None if families is None else list(families)

    @cached_property
    def kept(self) -> list[Record]:
        """The samples that are served, as the store has them when it is first used."""
        return list(self._served)

    @cached_property
    def _served(self) -> list[Record]:
        """The samples that the arguments ask for, before :meth:`leave_normals_out` leaves any out."""
        records = [record for record in self._opened.records if self._opened.is_accepted(record)]
        served = [
            record
            for record in records
            if record.split == self.split
            and record.quality >= self.min_quality
            and (self.families is None or record.family in self.families)
        ]
        if not served:
            families = "any family" if self.families is None else ", ".join(self.families)
            msg = (
                f"Store {str(self.store)!r} keeps {len(records)} samples, but none of split {self.split!r}, quality >= "
                f"{self.min_quality:g} and {families}. Make some with `anomalib-synth generate --split {self.split}`, "
                "lower `min_quality`, or accept some in `anomalib-synth review`."
            )
            raise StoreError(msg)
        return served

    @property
    def defect_digests(self) -> dict[str, str]:
        """The paths, by digest, of the real defects that the kept samples show, as the store's settings list them."""
        return self._opened.settings.get("defect_digests", {})

    @property
    def normal_digests(self) -> set[str]:
        """Digests of the served samples' normals: of the files they were read from, and of the store's own copies."""
        return {digest for record in self.kept for digest in self._sources[record.source_hash]}

    def leave_normals_out(self, digests: Collection[str]) -> int:
        """Stop serving samples of the normals with these digests, such as those that a run holds out.

        Returns:
            Number of samples that are left out.

        Raises:
            StoreError: If no sample is left to serve.
        """
        unwanted = set(digests)
        left = [record for record in self._served if not unwanted & self._sources[record.source_hash]]
        count = len(self._served) - len(left)
        if not left:
            msg = (
                f"All {count} samples that store {str(self.store)!r} would serve show images that the run validates or "
                "tests on. Make a store from the training images alone."
            )
            raise StoreError(msg)
        self.kept = left
        vars(self).pop("_by_source", None)
        return count

    @property
    def donor_white(self) -> WhitePoint:
        """White point with which the kept samples' normals were read, as the store's settings have it."""
        return WhitePoint.from_dict(self._opened.settings.get("normals", {}).get("white_point") or {})

    @property
    def files_digest(self) -> str:
        """Digest of the served ids; together with the seed it identifies a sample in its provenance."""
        return hash_bytes("".join(record.id for record in self.kept).encode())

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        """Serve one kept sample for each image; see :meth:`AnomalyGenerator.draw`. The condition is always empty."""
        records = [self._record(seed, None) for seed in seeds]
        sample = AnomalySample.unchanged(images, records, "no kept sample of this image")
        if self.paired:
            sample.source = images.clone()
        for row, seed in enumerate(seeds):
            choices = self.kept if self.paired else self._by_source.get(_hash_image(images[row]), [])
            if choices:
                self._place(sample, row, seed, choices[hash64(seed, "stored") % len(choices)])
        return sample

    def _place(self, sample: AnomalySample, row: int, seed: int, record: Record) -> None:
        """Replace a row by a kept sample, resized to the row's size."""
        like = sample.image[row]
        mask = F.interpolate(_to_tensor(self._opened.read_mask(record), 1)[None], like.shape[-2:], mode="nearest")[0]
        inside = (mask > 0.5).to(like.device)
        image = _fit(_to_tensor(self._opened.read_image(record), like.shape[0]), like)
        source = sample.source[row]
        if self.paired:
            source = _fit(_to_tensor(self._opened.read_source(record), like.shape[0]), like)
        inside &= (image != source).any(0)
        if not bool(inside.any()):
            sample.reason[row] = f"{record.family}: nothing is left of the kept sample at this size"
            return
        if self.paired:
            sample.source[row] = source
        sample.image[row] = torch.where(inside, image, source)
        sample.mask[row] = inside.float()
        sample.quality[row] = record.quality
        sample.caption[row] = record.caption or record.family
        sample.accepted[row] = True
        sample.reason[row] = ""
        sample.provenance[row] = self._record(seed, record, area=float(sample.mask[row].mean()))

    def _record(self, seed: int, kept: Record | None, *, area: float = 0.0) -> Provenance:
        common = self._origin() | {"seed": seed}
        if kept is None:
            return Provenance(**common, attempt=-1, family="")
        names = ("visibility", "agreement", "foreground")
        measured = {"area": area, **{name: getattr(kept, name) for name in names}}
        return Provenance(**common, attempt=0, family=kept.family, params=kept.params, measured=measured)

    @cached_property
    def _opened(self) -> SampleStore:
        return SampleStore.open(self.store)

    @cached_property
    def _sources(self) -> dict[str, set[str]]:
        """For each source's hash in the store, the digests of its pixels and of the files it was read from."""
        rows = read_log(self._opened.path / "normals.jsonl", INPUT).rows
        contents = {row["name"]: row["content"] for _, row in rows}
        records = {record.source_hash: record for record in self._served}
        files = [self._opened.path / record.source_file for record in records.values()]
        found = {source: {digest} for source, digest in zip(records, digest_images(files), strict=True)}
        for record in self._served:
            if content := contents.get(record.source):
                found[record.source_hash].add(content)
        return found

    @cached_property
    def _by_source(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.kept:
            found.setdefault(record.source_hash, []).append(record)
        return found


def _to_tensor(pixels: np.ndarray, channels: int) -> torch.Tensor:
    """Return (channels, H, W) float32 in [0, 1] of uint8 pixels."""
    image = to_tensor(pixels[..., None] if pixels.ndim == 2 else pixels)
    return image if image.shape[0] == channels else image.mean(0, keepdim=True).expand(channels, -1, -1)


def _fit(image: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return an image with the size, type and device of another."""
    if image.shape[-2:] != like.shape[-2:]:
        image = F.interpolate(image[None], like.shape[-2:], mode="bilinear", antialias=True, align_corners=False)[0]
    return image.clamp(0, 1).to(like)


def _hash_image(image: torch.Tensor) -> str:
    """Return the hash of an image (C, H, W) in [0, 1], as a store computes it."""
    levels = (image.float() * 255).round().to(torch.uint8).permute(1, 2, 0)
    return hash_pixels(levels.cpu().numpy())

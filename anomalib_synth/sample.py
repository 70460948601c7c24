"""What every generator returns: a batch of synthetic samples, and where each of them came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Enough to draw one sample again, given its source image and, if there was one, the prepared set.

    Args:
        config: ``{"class_path": ..., "init_args": {...}}`` of the generator: plain data, as in YAML.
        prepare_digest: Digest of the normals the generator was prepared with, or ``""`` when it was not prepared.
        files_digest: Digest of the files the generator reads (a mask of the part, textures), or ``""``.
        seed: The 64-bit seed of the sample.
        attempt: Which draw was kept, from 0; -1 when none passed the checks.
        family: Kind of defect, ``""`` when there is none.
        params: Parameters of the draw that was kept, as plain numbers.
        measured: What the checks measured of the draw that was kept: ``area``, ``visibility``, ``agreement`` and
            ``foreground``, see :class:`anomalib_synth.generators.checks.CheckResult`.
        version: Version of the package.
        prompt: What was drawn, as a text, where the generator draws texts; else ``""``.
        asked: What the call asked for of this sample: ``prompt``, ``prompt_to`` and ``mix``, those that it named. The
            region, where the call named one, is not in it: as the source, it is needed to draw the sample again.
    """

    config: dict[str, Any]
    prepare_digest: str
    files_digest: str
    seed: int
    attempt: int
    family: str
    params: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    version: str = ""
    prompt: str = ""
    asked: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data, ready for JSON."""
        return asdict(self)


@dataclass(kw_only=True)
class AnomalySample:
    """A batch of images with synthetic defects.

    A row whose draws all failed their checks is the source, unchanged: ``accepted`` is False, its mask is empty, its
    quality 1 and ``reason`` says why.

    Shape:
        - ``source``, ``image``: (B, C, H, W) in [0, 1], the dtype and device of the input
        - ``mask``: (B, 1, H, W) float32 in {0, 1}
        - ``quality``: (B,) float32 in [0, 1]
        - ``accepted``: (B,) bool
        - ``caption``, ``reason``, ``provenance``: one entry a row; ``reason`` is ``""`` for an accepted row
    """

    source: torch.Tensor
    image: torch.Tensor
    mask: torch.Tensor
    quality: torch.Tensor
    caption: list[str]
    accepted: torch.Tensor
    reason: list[str]
    provenance: list[Provenance]

    @classmethod
    def unchanged(cls, images: torch.Tensor, provenance: Sequence[Provenance | None], reason: str) -> AnomalySample:
        """Return the sample that changes nothing, for one reason: (B, C, H, W) images, one record each."""
        count, _, height, width = images.shape
        return cls(
            source=images,
            image=images.clone(),
            mask=images.new_zeros((count, 1, height, width), dtype=torch.float32),
            quality=torch.ones(count, device=images.device),
            caption=[""] * count,
            accepted=torch.zeros(count, dtype=torch.bool, device=images.device),
            reason=[reason] * count,
            provenance=cast("list[Provenance]", provenance),  # None: the caller fills it in
        )

    @classmethod
    def concatenate(cls, samples: list[AnomalySample]) -> AnomalySample:
        """Join samples of one image size along the batch."""
        return cls(
            source=torch.cat([sample.source for sample in samples]),
            image=torch.cat([sample.image for sample in samples]),
            mask=torch.cat([sample.mask for sample in samples]),
            quality=torch.cat([sample.quality for sample in samples]),
            accepted=torch.cat([sample.accepted for sample in samples]),
            caption=[caption for sample in samples for caption in sample.caption],
            reason=[reason for sample in samples for reason in sample.reason],
            provenance=[record for sample in samples for record in sample.provenance],
        )

    def place(self, rows: list[int], other: AnomalySample) -> None:
        """Write the rows of another sample over the named rows of this one, in place."""
        if rows and not torch.equal(self.source[rows], other.source):
            self.source = self.source.clone()
            self.source[rows] = other.source
        for name in ("image", "mask", "quality", "accepted"):
            getattr(self, name)[rows] = getattr(other, name)
        for position, row in enumerate(rows):
            self.caption[row] = other.caption[position]
            self.reason[row] = other.reason[position]
            self.provenance[row] = other.provenance[position]

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.image.shape[0]

    @property
    def label(self) -> torch.Tensor:
        """(B,) bool: True where the image carries a defect. Follows the mask."""
        return self.mask.flatten(1).amax(1) > 0

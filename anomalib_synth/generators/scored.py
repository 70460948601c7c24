"""A generator whose samples are scored by how well they show what their captions say."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth.generators.base import AnomalyGenerator, Proposal
from anomalib_synth.generators.encoders import load_encoder
from anomalib_synth.quality import ImageTextEncoder, ImageTextScorer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    import torch

    from anomalib_synth.generators.prepared import PreparedNormals
    from anomalib_synth.sample import AnomalySample


class ScoredGenerator(AnomalyGenerator):
    """Draws with another generator and replaces the quality of its samples by an image-text score.

    The quality-aware weighting of QARAD (arXiv 2508.03539) weights samples by this score; see
    :class:`anomalib_synth.quality.ImageTextScorer`. Nothing else of a sample changes. Rows without a defect keep
    quality 1. Provenance names this generator, and has the score as ``measured["image_text"]`` and the quality by the
    generator's own checks as ``measured["checks"]``.

    Args:
        generator: Draws the samples.
        encoder: Encodes images and captions: None for the one that comes with the package, the folder of a bundle made
            by ``anomalib-synth fit``, or ``open_clip:MODEL:PRETRAINED``, where PRETRAINED is the path of a weight file
            or a tag. Loaded on first use.
        share_of_window: Weight of the mask's window in the score, in [0, 1]; the whole image has the rest.
        seed: Base seed, used when a call names no seeds.

    Raises:
        TypeError: If ``generator`` is none.
        ValueError: If an argument is out of its range; on first use, if the bundle is missing or damaged.

    Example:
        >>> from anomalib_synth.generators import RuleBasedGenerator
        >>> generator = ScoredGenerator(RuleBasedGenerator(["scratch", "stain"]))
    """

    def __init__(
        self,
        generator: AnomalyGenerator,
        *,
        encoder: str | Path | None = None,
        share_of_window: float = 0.75,
        seed: int = 0,
    ) -> None:
        super().__init__(foreground=None, seed=seed)
        if not isinstance(generator, AnomalyGenerator):
            msg = f"`generator` must be a generator of `anomalib_synth.generators`, got {type(generator).__name__}."
            raise TypeError(msg)
        if not 0 <= share_of_window <= 1:
            msg = f"`share_of_window` must be in [0, 1], got {share_of_window}."
            raise ValueError(msg)
        self.generator = generator
        self.encoder = None if encoder is None else str(encoder)
        self.share_of_window = share_of_window
        self.prepared = generator.prepared

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {
            "generator": self.generator.config,
            "encoder": self.encoder,
            "share_of_window": self.share_of_window,
            "seed": self.seed,
        }

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on beside images and weights: those of the generator."""
        return self.generator.files

    @property
    def defect_images(self) -> list[Path]:
        """Images of real defects that the generator's samples show."""
        return self.generator.defect_images

    @property
    def defect_digests(self) -> dict[str, str]:
        """Their files by digest."""
        return self.generator.defect_digests

    @property
    def files_digest(self) -> str:
        """Digest of what the generator reads."""
        return self.generator.files_digest

    @property
    def prepare_digest(self) -> str:
        """Digest of the generator's prepared normals."""
        return self.generator.prepare_digest

    @cached_property
    def weights_hash(self) -> str:
        """Digest of the encoder's weights, and of the generator's where it has any."""
        parts = [getattr(self.generator, "weights_hash", ""), self._loaded[1]]
        return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest() if parts[0] else parts[1]

    def prepare(self, normals: Iterable[torch.Tensor]) -> Self:
        """Prepare the generator."""
        self.generator.prepare(normals)
        self.prepared = self.generator.prepared
        return self

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Share measured normals with the generator."""
        super().use_prepared(prepared)
        self.generator.use_prepared(prepared)

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None
    ) -> Iterator[Proposal]:
        """Not used: the generator proposes, checks and retries for itself."""
        msg = "ScoredGenerator draws through its generator; call it instead of `propose`."
        raise TypeError(msg)

    def score(self, sample: AnomalySample) -> AnomalySample:
        """Return a sample with its quality replaced, for samples that were drawn otherwise, such as with prompts."""
        scores = self._scorer(sample.image, sample.mask, sample.caption)
        listed = zip(sample.provenance, sample.accepted.tolist(), sample.quality.tolist(), scores.tolist(), strict=True)
        provenance = [
            replace(record, measured={**record.measured, "checks": before, "image_text": score}) if accepted else record
            for record, accepted, before, score in listed
        ]
        return replace(sample, quality=scores, provenance=provenance)

    def _draw(self, images: torch.Tensor, seeds: list[int], masks: torch.Tensor | None) -> AnomalySample:
        sample = self.score(self.generator(images, seeds=seeds, masks=masks))
        config, digest = self.config, self.files_digest
        sample.provenance = [replace(record, config=config, files_digest=digest) for record in sample.provenance]
        return sample

    @cached_property
    def _loaded(self) -> tuple[ImageTextEncoder, str]:
        return load_encoder(self.encoder)

    @cached_property
    def _scorer(self) -> ImageTextScorer:
        return ImageTextScorer(self._loaded[0], share_of_window=self.share_of_window)

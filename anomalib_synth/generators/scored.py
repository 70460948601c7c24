"""A generator whose samples are scored by how well they show what their captions say."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.encoders.image_text import load_encoder
from anomalib_synth.generators.wrapping import WrappingGenerator, check_generator
from anomalib_synth.quality import ImageTextEncoder, ImageTextScorer

if TYPE_CHECKING:
    import torch

    from anomalib_synth.generators.base import AnomalyGenerator
    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.sample import AnomalySample


class ScoredGenerator(WrappingGenerator):
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
        super().__init__(seed=seed)
        check_generator("generator", generator)
        if not 0 <= share_of_window <= 1:
            msg = f"`share_of_window` must be in [0, 1], got {share_of_window}."
            raise ValueError(msg)
        self.generator = generator
        self.encoder = None if encoder is None else str(encoder)
        self.share_of_window = share_of_window

    @property
    def wrapped(self) -> list[AnomalyGenerator]:
        """The generator that draws."""
        return [self.generator]

    @property
    def prepare_digest(self) -> str:
        """Digest of what the generator was prepared with."""
        return self.generator.prepare_digest

    @cached_property
    def weights_hash(self) -> str:
        """Digest of the encoder's weights, and of the generator's where it has any."""
        parts = [self.generator.weights_hash, self._loaded[1]]
        return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest() if parts[0] else parts[1]

    def score(self, sample: AnomalySample) -> AnomalySample:
        """Return a sample with its quality replaced, for samples that were drawn otherwise, such as with prompts."""
        scores = self._scorer(sample.image, sample.mask, sample.caption)
        listed = zip(sample.provenance, sample.accepted.tolist(), sample.quality.tolist(), scores.tolist(), strict=True)
        provenance = [
            replace(record, measured={**record.measured, "checks": before, "image_text": score}) if accepted else record
            for record, accepted, before, score in listed
        ]
        return replace(sample, quality=scores, provenance=provenance)

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        """Draw, and score what was drawn; see :meth:`AnomalyGenerator.draw`."""
        sample = self.score(self.generator(images, seeds=seeds, **condition.to_arguments()))
        own = self._origin()
        sample.provenance = [replace(record, **own) for record in sample.provenance]
        return sample

    @cached_property
    def _loaded(self) -> tuple[ImageTextEncoder, str]:
        return load_encoder(self.encoder)

    @cached_property
    def _scorer(self) -> ImageTextScorer:
        return ImageTextScorer(self._loaded[0], share_of_window=self.share_of_window)

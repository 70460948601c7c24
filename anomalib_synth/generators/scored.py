"""A generator that lowers the quality of samples that do not show what their captions say."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.encoders.image_text import find_unknown, load_encoder
from anomalib_synth.generators.wrapping import WrappingGenerator, check_generator
from anomalib_synth.quality import ImageTextEncoder, ImageTextScorer

if TYPE_CHECKING:
    import torch

    from anomalib_synth.generators.base import AnomalyGenerator
    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.sample import AnomalySample

_FULL = 0.75  # median score of right captions on rendered parts, with the package's encoder


class ScoredGenerator(WrappingGenerator):
    """Draws with another generator and lowers the quality of samples that do not show what their captions say.

    QARAD (arXiv 2508.03539) weights samples by the similarity of image and caption; see
    :class:`anomalib_synth.quality.ImageTextScorer`. That score says whether a sample shows what its caption says, but
    not whether the defect is visible. So the quality from the generator's checks is multiplied by
    ``min(1, score / 0.75)``: right captions score about 0.75, and differences above that mean little. Nothing else of a
    sample changes. Rows without a defect keep quality 1.

    A caption with words that the encoder was not trained on gets no score: its sample keeps its quality, and a warning
    names each such word once.

    Provenance names this generator. It has the quality from the generator's checks as ``measured["checks"]`` and, if
    the caption was scored, the score as ``measured["image_text"]``.

    Args:
        generator: The generator that draws the samples.
        encoder: What encodes images and captions: None for the encoder that comes with the package, the folder of a
            bundle made by ``anomalib-synth fit``, or ``open_clip:MODEL:PRETRAINED``, where PRETRAINED is the path of a
            weight file or a tag. Loaded on first use.
        share_of_window: Weight of the mask's window in the score, in [0, 1]; the whole image has the rest.
        seed: Base seed, used when a call names no seeds.

    Raises:
        TypeError: If ``generator`` is not a generator.
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
        self._reported: set[str] = set()

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
        """Return a sample with lowered quality; also for samples that another generator drew.

        Args:
            sample: The sample; it is not changed.
        """
        agreement = self._rate(sample)
        quality, provenance = sample.quality.clone(), list(sample.provenance)
        for row, (record, before) in enumerate(zip(sample.provenance, sample.quality.tolist(), strict=True)):
            if not bool(sample.accepted[row]):
                continue
            measured = {**record.measured, "checks": before}
            if row in agreement:
                measured["image_text"] = agreement[row]
                quality[row] = before * min(1.0, agreement[row] / _FULL)
            provenance[row] = replace(record, measured=measured)
        return replace(sample, quality=quality, provenance=provenance)

    def _rate(self, sample: AnomalySample) -> dict[int, float]:
        """Return the image-text score of each row with a defect whose caption the encoder knows."""
        rows, unknown = [], set()
        for row in sample.accepted.nonzero().flatten().tolist():
            words = find_unknown(self._loaded[0], sample.caption[row])
            unknown |= set(words)
            if not words:
                rows.append(row)
        self._report(unknown)
        if not rows:
            return {}
        captions = [sample.caption[row] for row in rows]
        scores = self._scorer(sample.image[rows], sample.mask[rows], captions)
        return dict(zip(rows, scores.tolist(), strict=True))

    def _report(self, unknown: set[str]) -> None:
        new = unknown - self._reported
        if new:
            self._reported |= new
            msg = (
                f"ScoredGenerator leaves captions with these words unscored, as its encoder does not know them: "
                f"{', '.join(sorted(new))}. Their samples keep the quality of their generator. `anomalib-synth fit` "
                "trains an encoder on the captions of your own defects; `open_clip:MODEL:WEIGHTS` knows more words."
            )
            warnings.warn(msg, stacklevel=2)

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        """Draw, and score the samples; see :meth:`AnomalyGenerator.draw`."""
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

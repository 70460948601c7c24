"""A mixture of generators."""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING

from anomalib_synth.generators.seeding import RandomStream, hash64
from anomalib_synth.generators.wrapping import WrappingGenerator, check_generator
from anomalib_synth.sample import AnomalySample

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from anomalib_synth.generators.base import AnomalyGenerator
    from anomalib_synth.generators.condition import Condition


class MixtureGenerator(WrappingGenerator):
    """Draws each sample with one of several generators.

    The sample's seed decides which one, so a sample does not depend on its batch. Provenance names the generator that
    drew the sample, and that generator checks the sample by its own limits. A call with prompts or masks is drawn with
    those generators that can use them, in proportion to their weights.

    Args:
        generators: The generators to mix, at least one.
        weights: How often each is used, relative to the others; finite and >= 0. None uses all evenly.
        seed: Base seed, used when a call names no seeds.

    Raises:
        TypeError: If one of ``generators`` is not a generator.
        ValueError: If there is no generator, a weight is out of its range, or there are not as many weights.

    Example:
        >>> from anomalib_synth.generators import RuleBasedGenerator
        >>> mixture = MixtureGenerator([RuleBasedGenerator(["nsa"]), RuleBasedGenerator(["scratch"])], weights=[3, 1])
    """

    def __init__(
        self,
        generators: Sequence[AnomalyGenerator],
        weights: Sequence[float] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if not generators:
            msg = "`generators` must hold at least one generator, got none."
            raise ValueError(msg)
        for generator in generators:
            check_generator("generators", generator)
        weights = [1.0] * len(generators) if weights is None else [float(weight) for weight in weights]
        if len(weights) != len(generators) or not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights):
            msg = (
                f"`weights` must be {len(generators)} finite numbers >= 0 with a positive sum, one for each generator, "
                f"got {weights}."
            )
            raise ValueError(msg)
        self.generators = list(generators)
        self.weights = weights
        self._height: int = 1 + max(
            part._height if isinstance(part, MixtureGenerator) else 0 for part in self.generators
        )

    @property
    def wrapped(self) -> list[AnomalyGenerator]:
        """The generators that draw."""
        return self.generators

    @property
    def weights_hash(self) -> str:
        """Digest of the weights of all generators' models, ``""`` if there are none."""
        hashes = [generator.weights_hash for generator in self.generators]
        return blake2b("\n".join(hashes).encode(), digest_size=16).hexdigest() if any(hashes) else ""

    def can_use(self, condition: Condition) -> bool:
        """Return whether a generator of positive weight can use everything that the condition asks for."""
        return any(self._weigh(condition))

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        """Draw each image with the generator that its seed chooses; see :meth:`AnomalyGenerator.draw`."""
        key = ("mixture",) if self._height == 1 else ("mixture", self._height)  # nested mixtures differ
        weights = self._weigh(condition)
        choices = [RandomStream(hash64(seed, *key)).choice(range(len(self.generators)), weights) for seed in seeds]
        sample = AnomalySample.unchanged(images, [None] * len(images), "no draw was made")
        for index, generator in enumerate(self.generators):
            rows = [row for row, choice in enumerate(choices) if choice == index]
            if rows:
                asked = condition.take(rows).to_arguments()
                sample.place(rows, generator(images[rows], seeds=[seeds[row] for row in rows], **asked))
        return sample

    def _weigh(self, condition: Condition) -> list[float]:
        """Return the weights, with 0 for generators that cannot use the condition."""
        pairs = zip(self.generators, self.weights, strict=True)
        return [weight if generator.can_use(condition) else 0.0 for generator, weight in pairs]

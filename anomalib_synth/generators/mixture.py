"""A mixture of generators."""

from __future__ import annotations

import math
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.generators.base import AnomalyGenerator, Proposal
from anomalib_synth.generators.prepared import PreparedNormals
from anomalib_synth.generators.seeding import Draws, hash64
from anomalib_synth.sample import AnomalySample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Self


class MixtureGenerator(AnomalyGenerator):
    """Draws each sample with one of several generators.

    Which one is decided by the sample's seed, so a sample does not depend on the batch it is drawn in. A sample's
    provenance is that of the generator that drew it; each checks its own samples by its own limits.

    Args:
        generators: The generators to mix, at least one.
        weights: How often each is used (need not sum to 1); None uses all evenly.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If there is no generator, or the weights do not fit.

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
        super().__init__(foreground=None, seed=seed)
        if not generators:
            msg = "`generators` must hold at least one generator, got none."
            raise ValueError(msg)
        for generator in generators:
            if not isinstance(generator, AnomalyGenerator):
                msg = (
                    f"`generators` must hold generators of `anomalib_synth.generators`, got {type(generator).__name__}."
                )
                raise TypeError(msg)
        weights = [1.0] * len(generators) if weights is None else [float(weight) for weight in weights]
        if len(weights) != len(generators) or not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights):
            msg = (
                f"`weights` must be {len(generators)} finite numbers >= 0 with a positive sum, one a generator, "
                f"got {weights}."
            )
            raise ValueError(msg)
        self.generators = list(generators)
        if all(generator.prepared is not None for generator in generators):
            self.prepared = generators[0].prepared
        self.weights = weights
        self._height: int = 1 + max(
            part._height if isinstance(part, MixtureGenerator) else 0 for part in self.generators
        )

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {
            "generators": [generator.config for generator in self.generators],
            "weights": list(self.weights),
            "seed": self.seed,
        }

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on beside the images, of all generators."""
        return [file for generator in self.generators for file in generator.files]

    @property
    def defect_images(self) -> list[Path]:
        """Images of real defects that samples of any of the generators show."""
        return [image for generator in self.generators for image in generator.defect_images]

    @property
    def defect_digests(self) -> dict[str, str]:
        """Their files by digest."""
        return {digest: file for generator in self.generators for digest, file in generator.defect_digests.items()}

    @property
    def weights_hash(self) -> str:
        """Digest of the generators' weights, ``""`` when none has any."""
        hashes = [getattr(generator, "weights_hash", "") for generator in self.generators]
        return blake2b("\n".join(hashes).encode(), digest_size=16).hexdigest() if any(hashes) else ""

    def prepare(self, normals: Iterable[torch.Tensor]) -> Self:
        """Prepare every generator with the same normals, measured once."""
        self.use_prepared(PreparedNormals.from_images(normals))
        return self

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Share measured normals with every generator."""
        super().use_prepared(prepared)
        for generator in self.generators:
            generator.use_prepared(prepared)

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None
    ) -> Iterator[Proposal]:
        """Not used: each generator proposes, checks and retries for itself."""
        msg = "A mixture draws through its generators; call it instead of `propose`."
        raise TypeError(msg)

    def _draw(self, images: torch.Tensor, seeds: list[int], masks: torch.Tensor | None) -> AnomalySample:
        key = ("mixture",) if self._height == 1 else ("mixture", self._height)  # mixtures in mixtures choose apart
        choices = [Draws(hash64(seed, *key)).choice(range(len(self.generators)), self.weights) for seed in seeds]
        sample = AnomalySample.unchanged(images, [None] * len(images), "no draw was made")
        for index, generator in enumerate(self.generators):
            rows = [row for row, choice in enumerate(choices) if choice == index]
            if rows:
                region = None if masks is None else masks[rows]
                sample.place(rows, generator(images[rows], seeds=[seeds[row] for row in rows], masks=region))
        return sample

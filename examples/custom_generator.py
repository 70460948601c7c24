"""Write a generator of your own: propose a defect, and the base class checks, retries and composites it.

python examples/custom_generator.py
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from anomalib_synth.generators import Condition, Proposal, ProposingGenerator
from anomalib_synth.generators.seeding import RandomStream


class BrightSpotGenerator(ProposingGenerator):
    """Draws a bright square spot anywhere.

    Args:
        side: Side of the spot in pixels.
        seed: Base seed, used when a call names no seeds.
    """

    def __init__(self, side: int = 8, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.side = side  # every argument is kept by its name: provenance reads it there

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None, condition: Condition
    ) -> Iterator[Proposal]:
        """Propose one spot for each row, from that row's seed alone."""
        del part, condition
        side = min(self.side, *images.shape[-2:])
        draws = [RandomStream(seed) for seed in seeds]
        yield Proposal(
            rows=rows,
            top=[rng.integer(0, images.shape[2] - side) for rng in draws],
            left=[rng.integer(0, images.shape[3] - side) for rng in draws],
            target=images.new_ones(len(rows), images.shape[1], side, side),
            alpha=images.new_full((len(rows), 1, side, side), 0.7),
            support=torch.ones(len(rows), 1, side, side, dtype=torch.bool, device=images.device),
            families=["bright_spot"] * len(rows),
            captions=["a bright square spot"] * len(rows),
            params=[{}] * len(rows),
        )


def main() -> None:
    """Draw a few."""
    sample = BrightSpotGenerator()(torch.full((4, 3, 64, 64), 0.4), seeds=range(4))
    print(sample.caption, sample.accepted.tolist(), sample.quality.tolist())


if __name__ == "__main__":
    main()

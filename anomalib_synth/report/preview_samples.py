"""Draws the samples of a preview, family by family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.families import REGISTRY
from anomalib_synth.generators.seeding import derive_seeds
from anomalib_synth.progress import track
from anomalib_synth.report.preview_tiles import draw_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from PIL import Image

    from anomalib_synth.generators import AnomalyGenerator
    from anomalib_synth.sample import AnomalySample

_MIXED = 8  # a generator without families gets this many times as many samples


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A sample as a preview shows it.

    Args:
        family: The family of the defect or, if it has none, the name of the generator.
        caption: What was drawn, ``""`` if the draw failed.
        reason: Why it failed its checks, ``""`` if it passed.
        quality: The sample's quality.
        tiles: Its pictures by name, see :data:`anomalib_synth.report.preview_tiles.TILES`.
    """

    family: str
    caption: str
    reason: str
    quality: float
    tiles: dict[str, Image.Image]

    @property
    def text(self) -> str:
        """The text beside the sample."""
        if self.reason:
            return f"{self.family}, not drawn: {self.reason}"
        return f"{self.family}: {self.caption} (quality {self.quality:.2f})"


@dataclass(frozen=True, kw_only=True)
class Section:
    """The samples of a family, or of a generator that is not rule-based.

    Args:
        name: The family, or the generator's class.
        about: A description, may be empty.
        drawings: The samples.
    """

    name: str
    about: str
    drawings: list[Drawing]

    @property
    def passed(self) -> int:
        """How many samples passed the checks."""
        return sum(not drawing.reason for drawing in self.drawings)


def draw_sections(
    generator: AnomalyGenerator, images: Sequence[torch.Tensor], *, per_family: int, seed: int, size: int
) -> list[Section]:
    """Draw each family of a rule-based generator in turn, or another generator as a whole.

    Args:
        generator: The generator, prepared.
        images: The normals, each (C, H, W) in [0, 1].
        per_family: Samples of each family; eight times as many of another generator.
        seed: Seed of the samples.
        size: Longer side of each picture in pixels.
    """
    kind = type(generator).__name__
    shown: dict[str, AnomalyGenerator] = {"": generator}
    if isinstance(generator, RuleBasedGenerator):
        shown = {name: generator.only(name) for name in generator.families}
    drawings: dict[str, list[Drawing]] = {name: [] for name in shown}
    count = count_drawings(generator, per_family)
    plan = [(position, name, k) for position, name in enumerate(shown) for k in range(count)]
    seeds = {name: derive_seeds(seed, 0, [f"{name}:{k}" for k in range(count)]) for name in shown}
    for position, name, k in track(plan, "Drawing"):
        image = images[(position * count + k) % len(images)]
        sample = shown[name](image[None], seeds=seeds[name][k][None])
        drawings[name].append(describe(sample, 0, name or kind, size))
    return [
        Section(name=name or kind, about=REGISTRY[name].source if name in REGISTRY else "", drawings=drawn)
        for name, drawn in drawings.items()
    ]


def count_drawings(generator: AnomalyGenerator, per_family: int) -> int:
    """Return how many samples a section has."""
    return per_family if isinstance(generator, RuleBasedGenerator) else _MIXED * per_family


def count_sections(generator: AnomalyGenerator) -> int:
    """Return how many sections a preview has."""
    return len(generator.families) if isinstance(generator, RuleBasedGenerator) else 1


def describe(sample: AnomalySample, row: int, kind: str, size: int) -> Drawing:
    """Return one row of a batch of samples as a drawing.

    Args:
        sample: The batch.
        row: Index of the row.
        kind: Its name if its family is not known.
        size: Longer side of each picture in pixels.
    """
    family = sample.provenance[row].family or kind
    return Drawing(
        family=family,
        caption=sample.caption[row],
        reason=sample.reason[row].removeprefix(f"{family}: "),
        quality=float(sample.quality[row]),
        tiles=draw_tiles(sample, row, size),
    )

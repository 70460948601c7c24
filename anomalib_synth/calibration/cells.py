"""What a calibration scores: normals, and defects of every family at every strength, drawn on the way."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from anomalib_synth.calibration.scoring import Item, Row
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.images import read_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anomalib_synth.generators import AnomalyGenerator
    from anomalib_synth.images import Normal

_DRAW_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One family at one strength.

    Args:
        family: Name of the family; of the generator, where it has none.
        strength: The strength, None where the generator has none.
        generator: Draws it.
        count: How many defects.
    """

    family: str
    strength: float | None
    generator: AnomalyGenerator
    count: int


class KeptImages:
    """Reads images as (3, H, W) float in [0, 1], at the size of their files.

    Args:
        argument: Name of the command's argument, for the message about a file that cannot be read.
        keep_bytes: Memory for images that are asked for again.
    """

    def __init__(self, argument: str, *, keep_bytes: int = 0) -> None:
        self._argument = argument
        self._keep_bytes = keep_bytes
        self._kept: dict[Path, torch.Tensor] = {}
        self._bytes = 0

    def __call__(self, path: Path) -> torch.Tensor:
        """Return the image of a file."""
        if path in self._kept:
            return self._kept[path]
        image = read_tensor(path, self._argument)
        if self._bytes + image.nbytes <= self._keep_bytes:
            self._kept[path] = image
            self._bytes += image.nbytes
        return image


def split_normals(normals: Sequence[Normal], seed: int) -> tuple[list[Normal], list[Normal]]:
    """Split normals into those that choose the threshold and those it is measured on.

    The halves depend on the seed and on the contents, not on names or order; an odd one is for measuring.
    """
    ordered = sorted(normals, key=lambda normal: hash64(seed, "calibrate", normal.content))
    return ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]


def plan_cells(generator: AnomalyGenerator, strengths: Sequence[float], per_cell: int) -> list[Cell]:
    """Return what is drawn: every family of a RuleBasedGenerator at every strength, else one kind, as much in sum."""
    if not isinstance(generator, RuleBasedGenerator):
        name = type(generator).__name__
        return [Cell(family=name, strength=None, generator=generator, count=per_cell * len(strengths))]
    return [
        Cell(
            family=family,
            strength=strength,
            generator=generator.replace(families={family: 1.0}, strength=(strength, strength)),
            count=per_cell,
        )
        for family in generator.families
        for strength in strengths
    ]


def draw_cell(
    cell: Cell, normals: Sequence[Normal], read: KeptImages, *, seed: int
) -> Iterator[tuple[Row, Item | None]]:
    """Draw the defects of a cell, each on a held-out normal; a draw that fails the checks has a row and no image.

    Seed and normal of a defect depend on the family and the repeat, not on the strength: the cells of a family show the
    same defects on the same normals, fainter and stronger. Families start at different normals, so that one odd normal
    does not shift them all.

    Raises:
        ValueError: If the generator gives a sample of another image than the one it was asked to draw on.
    """
    turns: Counter[str] = Counter()
    drawn = []
    start = hash64(seed, "start", cell.family)
    for n in range(cell.count):
        normal = normals[(start + n) % len(normals)]
        drawn.append((normal, hash64(seed, "defect", cell.family, normal.content, turns[normal.content])))
        turns[normal.content] += 1
    read_all = ((normal, defect_seed, read(normal.path)) for normal, defect_seed in drawn)
    for _, same_size in groupby(read_all, key=lambda entry: entry[2].shape):
        group: list[tuple[Normal, int, torch.Tensor]] = []
        for entry in same_size:
            group.append(entry)
            if len(group) == _DRAW_AT_ONCE:
                yield from _draw(cell, group)
                group = []
        if group:
            yield from _draw(cell, group)


def _draw(cell: Cell, group: list[tuple[Normal, int, torch.Tensor]]) -> Iterator[tuple[Row, Item | None]]:
    images = torch.stack([image for _, _, image in group])
    names = cell.generator.name_images([normal.path for normal, _, _ in group])
    sample = cell.generator(images, seeds=[seed for _, seed, _ in group], **names)
    for n, (normal, _, image) in enumerate(group):
        accepted = bool(sample.accepted[n])
        if accepted and not torch.equal(sample.source[n].cpu(), image):
            msg = (
                f"`generator` {type(cell.generator).__name__} gave a sample of another image than the held-out normal "
                f"{str(normal.path)!r}, which could be a training image. Use one that draws on the image it is given."
            )
            raise ValueError(msg)
        measured = sample.provenance[n].measured
        row = Row(
            role="synthetic",
            path=str(normal.path),
            family=cell.family,
            strength=cell.strength,
            visibility=measured.get("visibility", math.nan),
            area=float(sample.mask[n].mean()) if accepted else math.nan,
            visible=accepted,
        )
        yield row, Item(row=row, image=sample.image[n].cpu(), mask=sample.mask[n].cpu()) if accepted else None

"""The images that a calibration scores: normals, and defects of every family at every strength, drawn on the way."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from anomalib_synth.calibration.scoring import Item, Row
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.generators.validation import check_drawn_on
from anomalib_synth.images import read_tensor
from anomalib_synth.images.batching import batch_by_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from anomalib_synth.generators import AnomalyGenerator
    from anomalib_synth.images import Normal

_DRAW_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class DefectSet:
    """One family at one strength.

    Args:
        family: Name of the family, or of the generator's class where it has no families.
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
        keep_bytes: Memory in bytes for images that are asked for again.
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


def halve_normals(
    normals: Sequence[Normal], seed: int, groups: Mapping[Path, str] | None = None
) -> tuple[list[Normal], list[Normal]]:
    """Split normals into those that choose the threshold and those it is measured on.

    The halves depend on the seed and on the contents, not on names or order; an odd one is for measuring.

    Args:
        normals: The normals.
        seed: Seed of the halves.
        groups: Which normals must stay in one half, by file; then the larger half chooses. None: each for itself, as
            where all are of one group.
    """
    ordered = sorted(normals, key=lambda normal: hash64(seed, "calibrate", normal.content))
    if groups is None or len({groups[normal.path] for normal in normals}) < 2:
        return ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]
    together: dict[str, list[Normal]] = defaultdict(list)
    for normal in ordered:
        together[groups[normal.path]].append(normal)
    halves: tuple[list[Normal], list[Normal]] = ([], [])
    for group in sorted(together.values(), key=len, reverse=True):
        min(halves, key=len).extend(group)
    return (halves[0], halves[1]) if len(halves[0]) >= len(halves[1]) else (halves[1], halves[0])


def plan_defect_sets(generator: AnomalyGenerator, strengths: Sequence[float], per_cell: int) -> list[DefectSet]:
    """Return what is drawn: every family of a RuleBasedGenerator at every strength, else one set of as many in all."""
    if not isinstance(generator, RuleBasedGenerator):
        name = type(generator).__name__
        return [DefectSet(family=name, strength=None, generator=generator, count=per_cell * len(strengths))]
    return [
        DefectSet(
            family=family,
            strength=strength,
            generator=generator.replace(families={family: 1.0}, strength=(strength, strength)),
            count=per_cell,
        )
        for family in generator.families
        for strength in strengths
    ]


def draw_defect_set(
    defect_set: DefectSet, normals: Sequence[Normal], read: KeptImages, *, seed: int
) -> Iterator[tuple[Row, Item | None]]:
    """Draw the defects of a set, each on a held-out normal; a draw that fails the checks has a row and no image.

    Seed and normal of a defect depend on the family and the repeat, not on the strength: the sets of a family show
    the same defects on the same normals, fainter and stronger. Families start at different normals, so that one odd
    normal does not shift them all.

    Raises:
        ValueError: If the generator gives a sample of another image than the one it was asked to draw on.
    """
    turns: Counter[str] = Counter()
    drawn = []
    start = hash64(seed, "start", defect_set.family)
    for n in range(defect_set.count):
        normal = normals[(start + n) % len(normals)]
        drawn.append((normal, hash64(seed, "defect", defect_set.family, normal.content, turns[normal.content])))
        turns[normal.content] += 1
    read_all = ((normal, defect_seed, read(normal.path)) for normal, defect_seed in drawn)
    for group in batch_by_size(read_all, lambda entry: entry[2].shape, count=_DRAW_AT_ONCE):
        yield from _draw(defect_set, group)


def _draw(defect_set: DefectSet, group: list[tuple[Normal, int, torch.Tensor]]) -> Iterator[tuple[Row, Item | None]]:
    images = torch.stack([image for _, _, image in group])
    names = defect_set.generator.name_images([normal.path for normal, _, _ in group])
    sample = defect_set.generator(images, seeds=[seed for _, seed, _ in group], **names)
    check_drawn_on(
        sample, images, defect_set.generator, [f"the held-out normal {str(normal.path)!r}" for normal, *_ in group],
        "It could be a training image: use one that draws on the image it is given.",
    )  # fmt: skip
    for n, (normal, _, _) in enumerate(group):
        accepted = bool(sample.accepted[n])
        measured = sample.provenance[n].measured
        row = Row(
            role="synthetic",
            path=str(normal.path),
            family=defect_set.family,
            strength=defect_set.strength,
            visibility=measured.get("visibility", math.nan),
            area=float(sample.mask[n].mean()) if accepted else math.nan,
            visible=accepted,
        )
        yield row, Item(row=row, image=sample.image[n].cpu(), mask=sample.mask[n].cpu()) if accepted else None

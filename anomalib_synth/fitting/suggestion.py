"""Which families of drawn defects, of what sizes and strengths, resemble some real ones."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestNeighbors

from anomalib_synth.fitting.defect_measures import measure_defect, to_vector
from anomalib_synth.generators import MixtureGenerator, RuleBasedGenerator
from anomalib_synth.generators.seeding import hash64

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anomalib_synth.generators import AnomalyGenerator
    from anomalib_synth.generators.prepared import PreparedNormals

SIZES = (0.015, 0.03, 0.06, 0.12, 0.24, 0.48)
_STRENGTH = (0.25, 1.0)
_NEAREST = 9
_LEAST_SHARE = 0.08
_USUAL = 0.95


@dataclass(frozen=True, kw_only=True)
class DrawnDefect:
    """A drawn defect, and what it was drawn with.

    Args:
        family: Its family.
        size: Smallest and largest size it was drawn from.
        strength: Its strength.
        vector: Its measures.
    """

    family: str
    size: tuple[float, float]
    strength: float
    vector: np.ndarray


@dataclass(frozen=True, kw_only=True)
class FamilySuggestion:
    """A family that real defects resemble.

    Args:
        family: Its name.
        share: Share of the real defects that resemble it, in (0, 1].
        size: Smallest and largest size to draw it in.
        strength: Smallest and largest strength.
    """

    family: str
    share: float
    size: tuple[float, float]
    strength: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What resembles some real defects.

    Args:
        families: The families, the commonest first.
        unlike: How many of the real defects are farther from all drawn ones than drawn ones are from each other.
        nearest: For each real defect the family that most of its nearest drawn ones have.
    """

    families: list[FamilySuggestion]
    unlike: int
    nearest: list[str]

    def build(self) -> AnomalyGenerator:
        """Return the generator that draws the families as often, of the sizes and strengths."""
        each = [RuleBasedGenerator([found.family], size=found.size, strength=found.strength) for found in self.families]
        return each[0] if len(each) == 1 else MixtureGenerator(each, [round(found.share, 2) for found in self.families])


def draw_references(
    normals: Sequence[torch.Tensor],
    prepared: PreparedNormals,
    families: Sequence[str],
    *,
    per_family: int,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> list[DrawnDefect]:
    """Draw each family on normals, in all sizes and strengths, and measure what was drawn.

    Args:
        normals: Images (3, H, W) in [0, 1].
        prepared: What was measured of them.
        families: Names of the families.
        per_family: Draws of each, evenly over the sizes; those that fail their checks are left out.
        seed: Seed of the draws.
        advance: Called once a family.
    """
    drawn = []
    for family in families:
        for size in pairwise(SIZES):
            generator = RuleBasedGenerator([family], size=size, strength=_STRENGTH)
            generator.use_prepared(prepared)
            for number in range(-(-per_family // (len(SIZES) - 1))):
                key = hash64(seed, family, SIZES.index(size[0]), number)
                image = normals[key % len(normals)]
                sample = generator(image[None], seeds=[key])
                if bool(sample.accepted[0]):
                    measured = _measure(sample.image[0], sample.mask[0, 0] > 0, prepared)
                    strength = sample.provenance[0].params["strength"]
                    drawn.append(DrawnDefect(family=family, size=size, strength=strength, vector=measured))
        advance()
    return drawn


def _measure(image: torch.Tensor, mask: torch.Tensor, prepared: PreparedNormals) -> np.ndarray:
    return to_vector(measure_on_part(image.permute(1, 2, 0).numpy(), mask.numpy(), prepared))


def measure_on_part(image: np.ndarray, mask: np.ndarray, prepared: PreparedNormals) -> dict[str, float]:
    """Measure a defect (H, W) bool of an image (H, W, 3) of the product that was prepared."""
    cells = prepared.foreground.segment(torch.from_numpy(image).permute(2, 0, 1)[None])
    part = None
    if cells is not None:
        rows, columns = (np.arange(n) * grid // n for n, grid in zip(mask.shape, cells.shape[-2:], strict=True))
        part = cells[0, 0].cpu().numpy()[rows][:, columns]
    return measure_defect(image, mask, part)


def suggest_families(real: Sequence[np.ndarray], drawn: Sequence[DrawnDefect]) -> Suggestion:
    """Say which drawn defects resemble real ones: the nearest, where families differ most from one another.

    Measures are scaled by linear discriminant analysis of the families. Each real defect has one vote, split among the
    families of its nearest drawn ones.

    Args:
        real: Measures of the real defects, at least one.
        drawn: The drawn defects, of at least one family.

    Raises:
        ValueError: If nothing was drawn.
    """
    if not drawn:
        msg = "No drawn defect passed the checks, so nothing can be compared. Give other `normals`, or more of them."
        raise ValueError(msg)
    vectors, names = np.stack([each.vector for each in drawn]), np.array([each.family for each in drawn])
    project = _fit_projection(vectors, names)
    places = project(vectors)
    count = min(_NEAREST, len(drawn))
    search = NearestNeighbors(n_neighbors=count).fit(places)
    distances, rows = search.kneighbors(project(np.stack(real)))
    usual = np.quantile(search.kneighbors()[0][:, 0], _USUAL) if len(drawn) > count else math.inf
    votes: Counter[str] = Counter()
    nearest = []
    for near in rows:
        own = Counter(names[near].tolist())
        nearest.append(own.most_common(1)[0][0])
        votes.update({family: number / count / len(real) for family, number in own.items()})
    kept = [(name, share) for name, share in votes.most_common() if share >= _LEAST_SHARE] or votes.most_common(1)
    total = sum(share for _, share in kept)
    close = [drawn[row] for near in rows for row in near]
    return Suggestion(
        families=[_describe(name, share / total, [one for one in close if one.family == name]) for name, share in kept],
        unlike=int((distances[:, 0] > usual).sum()),
        nearest=nearest,
    )


def _fit_projection(vectors: np.ndarray, names: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what scales measures so that a step is as long as a family's own spread."""
    middle = vectors.mean(0)
    scale = vectors.std(0).clip(1e-6)
    if len(set(names.tolist())) < 2:
        return lambda rows: (rows - middle) / scale
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.05).fit((vectors - middle) / scale, names)
    return lambda rows: analysis.transform((rows - middle) / scale)


def _describe(family: str, share: float, close: list[DrawnDefect]) -> FamilySuggestion:
    """Return a family with the middle four fifths of the sizes and strengths that are close to real defects."""
    strengths = [each.strength for each in close]
    return FamilySuggestion(
        family=family,
        share=share,
        size=(
            float(np.quantile([each.size[0] for each in close], 0.1, method="lower")),
            float(np.quantile([each.size[1] for each in close], 0.9, method="higher")),
        ),
        strength=(round(float(np.quantile(strengths, 0.1)), 2), round(float(np.quantile(strengths, 0.9)), 2)),
    )


def make_overlay(generator: AnomalyGenerator) -> dict[str, Any]:
    """Return the overlay for training with a generator, as it stands in YAML."""
    callback = "anomalib_synth.callbacks.SynthesisCallback"
    init_args = {"generator": generator.config, "probability": 0.5}
    return {"trainer": {"callbacks+": [{"class_path": callback, "init_args": init_args}]}}

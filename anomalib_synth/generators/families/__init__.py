"""The registry of rule-based families, by name."""

from anomalib_synth.generators.families import literature, physical
from anomalib_synth.generators.families.family import Family, Frame

REGISTRY: dict[str, Family] = {family.name: family for family in [*literature.FAMILIES, *physical.FAMILIES]}

__all__ = ["REGISTRY", "Family", "Frame"]

"""The registry of rule-based families, by name."""

from anomalib_synth.generators.families.family import Family, Frame
from anomalib_synth.generators.families.registry import PHYSICAL, REGISTRY, register_family

__all__ = ["PHYSICAL", "REGISTRY", "Family", "Frame", "register_family"]

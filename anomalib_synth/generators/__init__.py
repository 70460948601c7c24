"""Generators of synthetic defects."""

from anomalib_synth.generators.base import AnomalyGenerator, build_generator
from anomalib_synth.generators.checks import SampleChecks
from anomalib_synth.generators.mixture import MixtureGenerator
from anomalib_synth.generators.rule_based import RuleBasedGenerator
from anomalib_synth.generators.stored import StoredGenerator

__all__ = [
    "AnomalyGenerator",
    "MixtureGenerator",
    "RuleBasedGenerator",
    "SampleChecks",
    "StoredGenerator",
    "build_generator",
]

"""Generators of synthetic defects."""

from anomalib_synth.generators.autoregressive import AutoregressiveGenerator
from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.generators.checks import SampleChecks
from anomalib_synth.generators.condition import Condition
from anomalib_synth.generators.diffusion import DiffusionGenerator, DiffusionRetrievalGenerator
from anomalib_synth.generators.families import Family, Frame, register_family
from anomalib_synth.generators.filtered import FilteredGenerator
from anomalib_synth.generators.from_config import build_generator
from anomalib_synth.generators.look_alike import LookAlikeGenerator
from anomalib_synth.generators.mixture import MixtureGenerator
from anomalib_synth.generators.proposal import Proposal
from anomalib_synth.generators.proposing import ProposingGenerator
from anomalib_synth.generators.real_defect import RealDefectGenerator
from anomalib_synth.generators.rule_based import RuleBasedGenerator
from anomalib_synth.generators.scored import ScoredGenerator
from anomalib_synth.generators.stored import StoredGenerator
from anomalib_synth.generators.wrapping import WrappingGenerator

__all__ = [
    "AnomalyGenerator",
    "AutoregressiveGenerator",
    "Condition",
    "DiffusionGenerator",
    "DiffusionRetrievalGenerator",
    "Family",
    "FilteredGenerator",
    "Frame",
    "LookAlikeGenerator",
    "MixtureGenerator",
    "Proposal",
    "ProposingGenerator",
    "RealDefectGenerator",
    "RuleBasedGenerator",
    "SampleChecks",
    "ScoredGenerator",
    "StoredGenerator",
    "WrappingGenerator",
    "build_generator",
    "register_family",
]

"""Per-sample weights, and the losses of anomalib's models split so that they can be weighted."""

from anomalib_synth.losses.patches import GlassPatches
from anomalib_synth.losses.per_sample import SPLITS
from anomalib_synth.losses.reduction import MeanOverSamples
from anomalib_synth.losses.weighted import WeightedLoss
from anomalib_synth.losses.weights import QualityWeights, WeightMode, measure_effective_share

__all__ = [
    "SPLITS",
    "GlassPatches",
    "MeanOverSamples",
    "QualityWeights",
    "WeightMode",
    "WeightedLoss",
    "measure_effective_share",
]

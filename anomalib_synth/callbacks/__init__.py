"""Lightning callbacks: one entry under ``trainer.callbacks`` each."""

from anomalib_synth.callbacks.learning_rate_decay import LearningRateDecayCallback
from anomalib_synth.callbacks.quality_weighting import QualityWeightingCallback
from anomalib_synth.callbacks.real_defects import RealDefectsCallback
from anomalib_synth.callbacks.synthesis import SynthesisCallback
from anomalib_synth.callbacks.two_stage import TwoStageTrainingCallback

__all__ = [
    "LearningRateDecayCallback",
    "QualityWeightingCallback",
    "RealDefectsCallback",
    "SynthesisCallback",
    "TwoStageTrainingCallback",
]

"""Lightning callbacks: one entry under ``trainer.callbacks`` each."""

from anomalib_synth.callbacks.synthesis import SynthesisCallback

__all__ = ["SynthesisCallback"]

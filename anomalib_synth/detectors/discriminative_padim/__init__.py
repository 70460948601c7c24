"""DiscriminativePadim: a Gaussian a position says what is normal, two small heads say what a defect is."""

from anomalib_synth.detectors.discriminative_padim.lightning_model import DiscriminativePadim

__all__ = ["DiscriminativePadim"]

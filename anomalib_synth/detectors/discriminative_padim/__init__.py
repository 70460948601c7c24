"""DiscriminativePadim: one Gaussian per position describes what is normal, two small heads learn what a defect is."""

from anomalib_synth.detectors.discriminative_padim.lightning_model import DiscriminativePadim

__all__ = ["DiscriminativePadim"]

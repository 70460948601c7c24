"""RealNet (arXiv 2403.05897) as a model of anomalib."""

from anomalib_synth.detectors.realnet.lightning_model import RealNet

__all__ = ["RealNet"]

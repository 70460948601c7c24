"""RealNet (arXiv 2403.05897) as a model of anomalib."""

from anomalib_synth.models.realnet.lightning_model import RealNet

__all__ = ["RealNet"]

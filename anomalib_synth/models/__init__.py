"""Networks, the backbone that needs no hub, and the public names of the detectors."""

from importlib import import_module
from typing import Any

_DETECTORS = {
    "DiscriminativePadim": "anomalib_synth.detectors.discriminative_padim",
    "RealNet": "anomalib_synth.detectors.realnet",
}
__all__ = ["DiscriminativePadim", "RealNet"]


def __getattr__(name: str) -> Any:
    """Import a detector on first use: detectors import anomalib, which `import anomalib_synth` must not do."""
    if name in _DETECTORS:
        return getattr(import_module(_DETECTORS[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

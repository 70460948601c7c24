"""Networks, and the backbone that needs no hub."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_synth.models.realnet import RealNet

__all__ = ["RealNet"]


def __getattr__(name: str) -> Any:
    """Import RealNet on first use: it imports anomalib, which `import anomalib_synth` must not."""
    if name == "RealNet":
        from anomalib_synth.models.realnet import RealNet

        return RealNet
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

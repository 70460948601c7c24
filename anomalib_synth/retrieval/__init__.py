"""Does a sample still look like the product? Its window against the windows of real normals."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_synth.encoders.embedders import Embedder, load_embedder
    from anomalib_synth.retrieval.filter import Judgement, RetrievalFilter
    from anomalib_synth.retrieval.index import WindowIndex
    from anomalib_synth.retrieval.settings import FilterSettings

__all__ = ["Embedder", "FilterSettings", "Judgement", "RetrievalFilter", "WindowIndex", "load_embedder"]
_HOMES = {
    "Embedder": "encoders.embedders", "FilterSettings": "retrieval.settings", "Judgement": "retrieval.filter",
    "RetrievalFilter": "retrieval.filter", "WindowIndex": "retrieval.index", "load_embedder": "encoders.embedders",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: the command line reads the settings without torch."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"anomalib_synth.{_HOMES[name]}"), name)

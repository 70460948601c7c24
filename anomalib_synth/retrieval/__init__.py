"""Does a sample still look like the product? Its window against the windows of real normals."""

from anomalib_synth.retrieval.embedders import Embedder, load_embedder
from anomalib_synth.retrieval.filter import FilterSettings, Judgement, RetrievalFilter
from anomalib_synth.retrieval.index import WindowIndex

__all__ = ["Embedder", "FilterSettings", "Judgement", "RetrievalFilter", "WindowIndex", "load_embedder"]

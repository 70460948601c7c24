"""How good a synthetic sample is."""

from anomalib_synth.quality.image_text import ImageTextEncoder, ImageTextScorer
from anomalib_synth.quality.open_clip import OpenClipDualEncoder

__all__ = ["ImageTextEncoder", "ImageTextScorer", "OpenClipDualEncoder"]

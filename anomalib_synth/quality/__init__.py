"""How good a synthetic sample is."""

from anomalib_synth.encoders.image_text import ImageTextEncoder
from anomalib_synth.encoders.open_clip import OpenClipDualEncoder
from anomalib_synth.quality.image_text import ImageTextScorer

__all__ = ["ImageTextEncoder", "ImageTextScorer", "OpenClipDualEncoder"]

"""Synthetic defects for anomalib: rule-based synthesis inside ``anomalib train --config``.

Importing the package, or naming any of its classes in a config, registers the timm backbone
``efficientnet_lite0_bundled``, so that every anomalib model can name it.
"""

from anomalib_synth._version import __version__
from anomalib_synth.registration import BACKBONE_NAME, register_backbone

__all__ = ["BACKBONE_NAME", "__version__"]

register_backbone()

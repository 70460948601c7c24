"""Real defects: which there are, and how each is marked: by pixels, boxes, lines, clicks, or not at all."""

from anomalib_synth.defects.image_files import is_store, list_defect_images
from anomalib_synth.defects.listing import list_defects
from anomalib_synth.defects.marks import DEFECT, GOOD, UNKNOWN
from anomalib_synth.defects.real_defect import RealDefect

__all__ = ["DEFECT", "GOOD", "UNKNOWN", "RealDefect", "is_store", "list_defect_images", "list_defects"]

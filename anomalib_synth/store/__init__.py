"""Kept samples on disk: images, masks, a manifest that standard tools open, and what people decided about them."""

from anomalib_synth.store.cost import Cost, describe_costs, measure_costs
from anomalib_synth.store.errors import OutdatedDecisionError, StoreError
from anomalib_synth.store.export import ExportSummary
from anomalib_synth.store.export_coco import export_coco
from anomalib_synth.store.export_mvtec import export_mvtec
from anomalib_synth.store.export_yolo import export_yolo
from anomalib_synth.store.identity import decode_png, encode_png, hash_bytes, hash_pixels, sample_id
from anomalib_synth.store.record import Record
from anomalib_synth.store.store import SampleStore

__all__ = [
    "Cost",
    "ExportSummary",
    "OutdatedDecisionError",
    "Record",
    "SampleStore",
    "StoreError",
    "decode_png",
    "describe_costs",
    "encode_png",
    "export_coco",
    "export_mvtec",
    "export_yolo",
    "hash_bytes",
    "hash_pixels",
    "measure_costs",
    "sample_id",
]

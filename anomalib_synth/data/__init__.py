"""Data: synthetic defects for any anomalib datamodule, and demo parts to try them on."""

from anomalib_synth.data.datamodule import SyntheticDataModule
from anomalib_synth.data.items import SyntheticImageBatch, SyntheticImageItem
from anomalib_synth.demo import DemoParts

__all__ = ["DemoParts", "SyntheticDataModule", "SyntheticImageBatch", "SyntheticImageItem"]

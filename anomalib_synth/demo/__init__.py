"""Demo data: four kinds of parts, rendered offline, with held-out defects and exact masks."""

from anomalib_synth.demo.datamodule import DemoParts

__all__ = ["DemoParts"]

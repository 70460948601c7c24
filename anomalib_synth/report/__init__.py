"""Pages for people: look at what was made, and throw out the bad ones."""

from anomalib_synth.report.review import review

__all__ = ["review"]

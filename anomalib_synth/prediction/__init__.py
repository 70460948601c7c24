"""Judges images by a detector: score, threshold, verdict and the place of what it found."""

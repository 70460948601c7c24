"""Judges images by a trained detector: score, threshold, verdict, and where the most anomalous region is."""

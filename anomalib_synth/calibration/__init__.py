"""Calibrates one detector: its thresholds, its false alarms with intervals, and the faintest defects it finds."""

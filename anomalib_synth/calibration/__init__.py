"""What one detector can be shown to do: thresholds with intervals, and the faintest defect it finds."""

"""From a folder of good images to a detector that can be deployed: looks, splits, trains, chooses, exports."""

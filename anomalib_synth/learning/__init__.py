"""Teaches a trained DiscriminativePadim what it missed, in seconds: from features that are kept."""

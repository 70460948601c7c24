"""Teaches a trained DiscriminativePadim the defects that it missed, in seconds, from features that are kept."""

"""DiscriminativePadim: a Gaussian a position says what is normal, two small heads say what a defect is."""

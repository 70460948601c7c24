"""Models of anomalib that learn from synthetic defects; their public names are in :mod:`anomalib_synth.models`."""

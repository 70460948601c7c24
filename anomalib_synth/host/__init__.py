"""The only room that names private parts of anomalib, Lightning and PyTorch; all other rooms call its functions."""

"""The only room that uses private names of anomalib, Lightning and PyTorch; all other rooms call its functions."""

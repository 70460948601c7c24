"""Settings of a fit that is over in seconds."""

from __future__ import annotations

from anomalib_synth.fitting.settings import FitSettings

SMALL = FitSettings(
    autoencoder_steps=12, token_steps=8, dual_steps=6, width=16, dim=32, depth=1, codebook_size=16, held_out=0.2
)

"""Where ``anomalib-synth generate`` runs: in this process, in local processes, on Ray."""

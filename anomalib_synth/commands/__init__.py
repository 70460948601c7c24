"""The commands of ``anomalib-synth``, one file each. Importing one is cheap: what it needs, it imports when it runs."""

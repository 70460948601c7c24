"""The commands of ``anomalib-synth``, one file each. Importing a command is cheap; heavy imports wait until it runs."""

"""Which images of a batch SynthesisCallback draws on."""

from __future__ import annotations

import torch

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.seeding import derive_seeds, gets_defect


def test_images_get_a_defect_as_their_seeds_say_when_a_batch_is_drawn() -> None:
    callback = SynthesisCallback(RuleBasedGenerator(families=["noise"], strength=(0.9, 1.0)), probability=0.4)
    seeds = derive_seeds(3, 1, range(24)).tolist()
    callback._seeds, callback._names = seeds, [str(n) for n in range(24)]  # as `on_train_batch_start` leaves them
    sample = callback._draw(torch.full((24, 3, 32, 32), 0.5))
    assert [reason != "not chosen" for reason in sample.reason] == [gets_defect(seed, 0.4) for seed in seeds]
    drawn = [record for record in sample.provenance if record is not None]
    assert len(drawn) > 4
    assert all(gets_defect(record.seed, 0.4) for record in drawn)

"""What a run of a comparison reports beside its metrics."""

from __future__ import annotations

from lightning.pytorch import Callback

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.comparison.trial import _seconds_per_sample
from anomalib_synth.report.compare_files import show_number


def test_seconds_per_sample_is_over_all_that_was_drawn() -> None:
    first, second = SynthesisCallback(), SynthesisCallback()
    first.drawing_seconds, first.accepted_samples = 3.0, 1
    second.drawing_seconds, second.accepted_samples = 1.0, 3
    assert _seconds_per_sample([Callback(), first, second]) == 1.0


def test_seconds_per_sample_is_unknown_when_none_was_accepted() -> None:
    assert _seconds_per_sample([Callback()]) is None
    failing = SynthesisCallback()
    failing.drawing_seconds = 3.0
    assert _seconds_per_sample([failing]) is None


def test_small_numbers_keep_their_digits() -> None:
    assert [show_number(value) for value in (93.26, 0.0, 0.0234, -0.5, float("nan"), None)] == [
        "93.3", "0.0", "0.023", "-0.5", "n/a", "n/a"
    ]  # fmt: skip

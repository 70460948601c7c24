"""What is said of look-alikes once a detector has looked at them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from anomalib_synth.learning.look_alikes import print_look_alikes


@pytest.mark.parametrize(
    ("threshold", "scores", "said"), [(0.5, (0.9, 0.8), True), (0.5, (0.9, 0.1), False), (None, (0.9, 0.8), False)]
)
def test_it_is_said_that_none_is_missed_when_the_detector_finds_all_that_are_kept(
    capsys, threshold, scores, said
) -> None:
    record = SimpleNamespace(family="stain")
    scored = [SimpleNamespace(record=record, score=score) for score in scores]
    trained = SimpleNamespace(threshold=threshold, finds=lambda score: threshold is not None and score > threshold)
    print_look_alikes([record] * 2, scored, scored, trained)
    assert ("finds all that are kept, so it misses none" in capsys.readouterr().out) == said

"""When a comparison may end."""

from __future__ import annotations

from anomalib_synth.report.compare_progress import estimate_left


def test_time_left_counts_each_arm_by_its_own_runs() -> None:
    assert estimate_left(["a"], {}, workers=1) is None
    assert estimate_left(["a", "b", "new"], {"a": [10.0], "b": [30.0]}, workers=1) == 10 + 30 + 20
    assert estimate_left(["a", "a", "a"], {"a": [10.0]}, workers=2, spent=[4.0, 6.0]) == 10
    assert estimate_left(["a"], {"a": [10.0]}, workers=8, spent=[25.0]) == 0
    assert estimate_left([], {"a": [10.0]}, workers=2) == 0

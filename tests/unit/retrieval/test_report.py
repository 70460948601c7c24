"""The acceptance report."""

from __future__ import annotations

from PIL import Image

from anomalib_synth.retrieval.report import count_by_family, describe_counts, draw_scores

OUTCOMES = [
    ("stain", ""),
    ("stain", "similarity 0.9123 below 0.9500"),
    ("stain", "similarity 0.8000 below 0.9500"),
    ("", "scratch: smoothed visibility 0.20 below 0.60"),
    ("scratch", ""),
]


def test_samples_are_counted_by_family_and_reason() -> None:
    scratch, stain = count_by_family(OUTCOMES)
    assert (scratch.family, scratch.drawn, scratch.accepted) == ("scratch", 2, 1)
    assert scratch.reasons == {"smoothed visibility … below …": 1}
    assert (stain.family, stain.drawn, stain.accepted) == ("stain", 3, 1)
    assert stain.reasons == {"similarity … below …": 2}


def test_the_table_has_a_row_for_all() -> None:
    lines = describe_counts(count_by_family(OUTCOMES)).splitlines()
    assert lines[0].split()[:4] == ["family", "drawn", "accepted", "share"]
    assert lines[-1].split() == ["all", "5", "2", "40%", "2", "1"]
    assert describe_counts([]).splitlines()[-1].split() == ["all", "0", "0", "-"]


def test_the_picture_is_drawn(tmp_path) -> None:
    out = tmp_path / "new" / "scores.png"
    draw_scores([-1.1, 0.0, 0.5], {"kept": [0.2], "refused": [-3.0, -60.0], "none": []}, out=out)
    with Image.open(out) as picture:
        assert picture.width > 500
    draw_scores([], {}, out=out)

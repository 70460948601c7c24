"""What a detector misses most is kept, and not all of it of one defect or at one place."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from anomalib_synth.learning.choosing import choose_missed, judge
from anomalib_synth.learning.look_alikes import print_look_alikes
from anomalib_synth.learning.missed_samples import ScoredSample


def make(
    number: int, score: float, *, image: int = 0, place: tuple[int, int] = (0, 0), in_view: bool = True
) -> ScoredSample:
    params = {"image": float(image), "region": 0.0}
    record = SimpleNamespace(id=f"{number:032x}", family="stain", params=params, reason="")
    return ScoredSample(record=record, score=score, place=place, in_view=in_view)


def test_the_lowest_scores_are_kept_when_nothing_else_tells_them_apart() -> None:
    scored = [make(n, score=float((7 * n) % 20)) for n in range(20)]
    assert [each.score for each in choose_missed(scored, 5)] == [0, 1, 2, 3, 4]


def test_one_defect_gets_half_as_much_again_as_its_share_when_it_has_all_the_lowest_scores() -> None:
    scored = [make(n, score=n, image=n // 30) for n in range(90)]  # of three defects, the first the lowest
    chosen = Counter(each.defect for each in choose_missed(scored, 30))
    assert sorted(chosen.values()) == [0 + 15, 15]
    scored = [make(n, score=n, image=n // 10) for n in range(30)]
    assert sorted(Counter(each.defect for each in choose_missed(scored, 20)).values()) == [10, 10]


def test_one_place_gets_half_as_much_again_as_its_share_when_it_has_all_the_lowest_scores() -> None:
    scored = [make(n, score=n, place=(0, n // 40)) for n in range(120)]
    chosen = Counter(each.place for each in choose_missed(scored, 30))
    assert chosen == {(0, 0): 15, (0, 1): 15}


def test_what_is_left_over_is_filled_with_the_lowest_scores_when_others_are_few() -> None:
    scored = [make(n, score=n, image=0) for n in range(20)] + [make(99, score=50, image=1)]
    chosen = choose_missed(scored, 10)
    assert sorted(each.score for each in chosen) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 50]
    assert len(choose_missed(scored, 100)) == 21
    assert choose_missed([], 5) == []


def test_a_sample_is_left_out_when_the_detector_does_not_look_there() -> None:
    scored = [make(0, score=-5, in_view=False), make(1, score=3)]
    assert [each.score for each in choose_missed(scored, 2)] == [3]


@pytest.mark.parametrize("threshold", [2.5, None])
def test_each_sample_has_its_score_and_a_reason_when_it_is_left_out(threshold) -> None:
    scored = [make(n, score=float(n)) for n in range(5)] + [make(5, score=-1, in_view=False)]
    chosen = choose_missed(scored, 2)
    failed = SimpleNamespace(id="f" * 32, reason="stain: visibility 0.1 below 1")
    late = SimpleNamespace(id="e" * 32, reason="")
    verdicts = judge(scored, chosen, [failed, late], SimpleNamespace(threshold=threshold))
    said = [verdicts[each.record.id] for each in scored]
    assert [verdict["reason"] == "" for verdict in said] == [True, True, False, False, False, False]
    assert said[4]["reason"] == "the detector misses 2 others more"
    assert said[5]["reason"] == "the detector does not look there"
    assert verdicts["f" * 32] == {"reason": "stain: visibility 0.1 below 1"}
    assert verdicts["e" * 32] == {"reason": "no candidate of the last run"}
    assert [verdict["detector_score"] for verdict in said] == [0, 1, 2, 3, 4, -1]
    if threshold is None:
        assert [verdict["detector_rank"] for verdict in said] == [0.2, 0.4, 0.6, 0.8, 1.0, 0.0]
    else:
        assert [verdict["detector_margin"] for verdict in said] == [-2.5, -1.5, -0.5, 0.5, 1.5, -3.5]


def test_a_type_is_printed_as_it_is_called_when_it_looks_like_markup(capsys) -> None:
    record = SimpleNamespace(id="0" * 32, family="[bold]oil", params={}, reason="")
    scored = [ScoredSample(record=record, score=1.0, place=(0, 0))]
    print_look_alikes([record], scored, scored, SimpleNamespace(threshold=2.0, finds=lambda score: score > 2.0))
    assert "[bold]oil" in capsys.readouterr().out

"""Examples on disk, how often each comes, and what changed between two readings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache, KeptFeatures
from anomalib_synth.detectors.discriminative_padim.targets import Targets
from anomalib_synth.learning.changes import DetectorScores, LearningChanges, print_changes
from anomalib_synth.learning.examples import Example, pack_targets, stack_targets
from anomalib_synth.learning.scoring import Score
from anomalib_synth.learning.training import weigh

GRIDS = [(2, 3), (4, 6)]


def make_example(**options) -> Example:
    return Example(**{"role": "defect", "name": "dent.png", "key": b"\x01\x02", **options})


def make_targets() -> list[Targets]:
    generator = torch.Generator().manual_seed(0)
    return [
        Targets(
            torch.rand(1, 1, *grid, generator=generator).round(),
            torch.randint(0, 255, (1, 1, *grid), generator=generator, dtype=torch.uint8),
        )
        for grid in GRIDS
    ]


def test_an_example_is_the_same_when_it_is_read_back() -> None:
    targets = make_targets()
    example = make_example(behind=b"\xff", targets=pack_targets(targets), certain=False)
    again = Example.from_line(example.to_line().decode(), GRIDS)
    assert (again.role, again.name, again.key, again.behind, again.certain) == (
        "defect", "dent.png", b"\x01\x02", b"\xff", False,
    )  # fmt: skip
    for found, expected in zip(stack_targets([again], GRIDS), targets, strict=True):
        torch.testing.assert_close(found.cover, expected.cover)
        assert torch.equal(found.boxes, expected.boxes)


def test_a_cell_that_is_hardly_touched_stays_touched() -> None:
    cover = torch.full((1, 1, 2, 3), 1e-4)
    kept = pack_targets([Targets(cover, torch.zeros(1, 1, 2, 3, dtype=torch.uint8))])
    assert (kept[0][0] > 0).all()


def test_an_example_without_targets_is_good() -> None:
    stacked = stack_targets([make_example(role="normal")], GRIDS)
    assert all(not bool(each.cover.any()) and not bool(each.boxes.any()) for each in stacked)


@pytest.mark.parametrize(
    "line",
    ["{}", "[]", "3", "nonsense", '{"role": "defect"}', make_example(role="defect").to_line().decode()[:-20]],
)
def test_a_line_that_is_no_example_is_refused(line) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Example.from_line(line, GRIDS)


def test_cells_of_another_grid_are_refused() -> None:
    line = make_example(targets=pack_targets(make_targets())).to_line().decode()
    with pytest.raises(ValueError, match="another grid"):
        Example.from_line(line, [(2, 3), (4, 5)])


def test_pasted_defects_come_as_often_as_photographs_when_half_are_asked_for() -> None:
    photographs = [make_example(), make_example()]
    pasted = [make_example(behind=b"\x09") for _ in range(16)]
    weights, share = weigh([*photographs, *pasted], 0.5)
    assert share == 1
    assert weights[:2].tolist() == [1, 1]
    assert float(weights[2:].sum()) == pytest.approx(2)


def test_defects_without_a_mask_come_a_quarter_as_often() -> None:
    weights, share = weigh([make_example(), make_example(certain=False)], 0.5)
    assert weights.tolist() == [1, 0.25]
    assert share == pytest.approx(0.625)


def test_kept_features_are_there_in_the_next_run(tmp_path) -> None:
    first, second = torch.arange(5).half(), torch.arange(3).half()
    kept = KeptFeatures(tmp_path / "kept")
    kept.put(b"a", first)
    kept.put(b"b", second)
    again = KeptFeatures(tmp_path / "kept")
    assert len(again) == 2
    assert torch.equal(again.get(b"a"), first)
    assert torch.equal(again.get(b"b"), second)
    assert again.get(b"c") is None


def test_a_vector_that_was_cut_off_is_not_there(tmp_path) -> None:
    kept = KeptFeatures(tmp_path)
    kept.put(b"a", torch.arange(5).half())
    kept.put(b"b", torch.arange(5).half())
    file = tmp_path / "features.f16"
    file.write_bytes(file.read_bytes()[:-2])
    again = KeptFeatures(tmp_path)
    assert b"a" in again
    assert b"b" not in again
    again.put(b"b", torch.ones(5).half())
    assert torch.equal(KeptFeatures(tmp_path).get(b"a"), torch.arange(5).half())
    assert torch.equal(KeptFeatures(tmp_path).get(b"b"), torch.ones(5).half())


def test_two_writers_keep_out_of_each_others_way(tmp_path) -> None:
    first, second = KeptFeatures(tmp_path), KeptFeatures(tmp_path)
    for number in range(4):
        (first, second)[number % 2].put(bytes([number]), torch.full((3,), number).half())
    for kept, numbers in ((first, (0, 2)), (second, (1, 3)), (KeptFeatures(tmp_path), range(4))):
        for number in numbers:
            assert torch.equal(kept.get(bytes([number])), torch.full((3,), number).half())


def test_raw_features_are_kept_for_good_and_others_are_not(tmp_path) -> None:
    cache = FeatureCache(memory=100, disk=0, kept=KeptFeatures(tmp_path))
    cache.put(b"raw1", torch.ones(4).half())
    cache.put(b"residual1", torch.zeros(4).half())
    assert b"raw1" in cache
    assert b"residual1" in cache
    again = FeatureCache(memory=100, disk=0, kept=KeptFeatures(tmp_path))
    assert torch.equal(again.get(b"raw1"), torch.ones(4).half())
    assert b"residual1" not in again


def test_changes_tell_what_was_lost_and_where_recall_moved() -> None:
    examples = [
        make_example(role="defect", key=b"\x01"), make_example(role="defect", key=b"\x02", name="lost.png"),
        make_example(role="probe", key=b"\x03", name="stain"), make_example(role="probe", key=b"\x04", name="stain"),
        make_example(role="good", key=b"\x05"), make_example(role="good", key=b"\x06"),
    ]  # fmt: skip
    before = DetectorScores(threshold=1.0, scores=[Score(v, v) for v in (0.5, 1.5, 2.0, 0.5, 0.0, 1.5)])
    after = DetectorScores(threshold=2.0, scores=[Score(v, v) for v in (3.0, 1.9, 1.0, 2.5, 0.0, 1.5)])
    changes = LearningChanges(examples=examples, before=before, after=after, new=frozenset([b"\x01"]), rate=0.05)
    assert [(example.key, was, now) for example, was, now in changes.of_new()] == [(b"\x01", -0.5, 1.0)]
    was, now = changes.false_alarms(frozenset([b"\x06"]))
    assert (was.count, was.of, now.count) == (1, 1, 0)
    was, now = changes.families()["stain"]
    assert (was.count, now.count, now.of) == (1, 1, 2)
    assert [example.name for example in changes.lost()] == ["lost.png", "stain"]
    assert np.isfinite(changes.to_dict(frozenset([b"\x06"]))["threshold"]["after"])


@pytest.mark.parametrize(("alarmed", "said"), [(9, True), (1, False)])
def test_the_reason_is_said_when_the_threshold_had_been_too_low(capsys, alarmed, said) -> None:
    """A detector that was never calibrated finds less once it keeps its false-alarm rate."""
    good = [make_example(role="good", name=f"{n}.png", key=bytes([n])) for n in range(10)]
    examples = [*good, make_example(role="probe", name="stain", key=b"\xff")]
    before = DetectorScores(
        threshold=1.0, scores=[Score(v, v) for v in [2.0] * alarmed + [0.0] * (10 - alarmed) + [2.0]]
    )
    after = DetectorScores(threshold=3.0, scores=before.scores)
    changes = LearningChanges(examples=examples, before=before, after=after, new=frozenset(), rate=0.2)
    print_changes(changes, frozenset(each.key for each in good))
    printed = " ".join(capsys.readouterr().out.split())
    assert "LOST 1 drawn defects" in printed
    assert ("the price of fewer false alarms; `false_alarm_rate` sets how many" in printed) == said


def test_names_are_printed_as_they_are_when_they_hold_brackets(capsys) -> None:
    examples = [make_example(role="defect", name="part[left].png", key=b"\x01")]
    before = DetectorScores(threshold=1.0, scores=[Score(2.0, 2.0)])
    after = DetectorScores(threshold=1.0, scores=[Score(0.5, 0.5)])
    changes = LearningChanges(examples=examples, before=before, after=after, new=frozenset([b"\x01"]), rate=0.2)
    print_changes(changes, frozenset())
    assert capsys.readouterr().out.count("part[left].png") == 2

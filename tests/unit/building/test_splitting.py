"""Which images are for what: by content, never the same on two sides, and no more promised than there is."""

from __future__ import annotations

import pytest

from anomalib_synth.building.splitting import (
    count_held_out,
    reachable_rate,
    split_defects,
    split_images,
    warn_of_few,
)

GROUPS = [[f"c{n}"] for n in range(90)] + [["a0", "a1", "a2"], ["b0", "b1"]]


def test_no_group_is_on_two_sides_when_images_are_split() -> None:
    split = split_images(GROUPS, 0.05, 0)
    place = {content: part for part in ("train", "validation", "calibration") for content in getattr(split, part)}
    assert len(place) == 95
    assert len(split.calibration), len(split.validation) == count_held_out(92, 0.05)
    assert len({place[content] for content in ("a0", "a1", "a2")}) == 1
    assert len({place[content] for content in ("b0", "b1")}) == 1


def test_split_is_the_same_when_the_order_changes_and_another_with_another_seed() -> None:
    assert split_images(GROUPS, 0.05, 0) == split_images([group[::-1] for group in GROUPS[::-1]], 0.05, 0)
    assert split_images(GROUPS, 0.05, 0) != split_images(GROUPS, 0.05, 1)


def test_one_of_a_group_is_held_out_when_there_is_little_else() -> None:
    split = split_images([[f"{n}a", f"{n}b"] for n in range(20)], 0.05, 0)
    for part in (split.validation, split.calibration):
        for content in part:
            twin = content[:-1] + ("b" if content.endswith("a") else "a")
            assert all(twin not in each for each in (split.train, split.validation, split.calibration))


@pytest.mark.parametrize("count", [0, 19])
def test_folder_is_refused_when_it_has_too_few_images(count) -> None:
    with pytest.raises(ValueError, match=f"`normals` must hold at least 20 different images, got {count}"):
        count_held_out(count, 0.05)


@pytest.mark.parametrize(
    ("count", "rate"), [(20, 0.05), (60, 0.05), (109, 0.05), (300, 0.05), (300, 0.01), (5000, 0.1)]
)
def test_rate_is_kept_by_the_calibration_half_when_it_is_reachable(count, rate) -> None:
    calibration, validation = count_held_out(count, rate)
    assert calibration >= 10
    assert calibration + validation < count
    reached = reachable_rate(calibration, rate)
    assert 1 / (calibration // 2 + 1) <= reached
    assert bool(warn_of_few(count, calibration, rate)) == (reached > rate or count < 60)


def test_rates_are_in_per_cent_when_they_cannot_be_promised() -> None:
    assert warn_of_few(40, 14, 0.05)[0].startswith("5 % false alarms cannot be promised with 40 good images: 7 of them")
    assert "can promise 12.5 % at best" in warn_of_few(40, 14, 0.05)[0]


def test_five_per_cent_are_reached_when_there_are_as_many_images_as_the_help_says() -> None:
    assert reachable_rate(count_held_out(109, 0.05)[0], 0.05) == 0.05
    assert reachable_rate(count_held_out(108, 0.05)[0], 0.05) > 0.05
    assert reachable_rate(count_held_out(566, 0.01)[0], 0.01) == 0.01
    assert reachable_rate(count_held_out(565, 0.01)[0], 0.01) > 0.01


def test_real_defects_all_judge_when_they_are_few_and_half_do_when_not() -> None:
    few = [f"d{n}" for n in range(9)]
    assert split_defects([[each] for each in few], 0) == ([], few)
    learned, judged = split_defects([[each] for each in [*few, "d9"]], 0)
    assert (len(learned), len(judged)) == (5, 5)
    assert not set(learned) & set(judged)


@pytest.mark.parametrize("seed", range(8))
def test_near_copies_of_real_defects_stay_together_when_half_are_learned(seed) -> None:
    learned, judged = split_defects([[f"d{n}"] for n in range(8)] + [["a0", "a1"], ["b0", "b1", "b2"]], seed)
    assert len(learned) + len(judged) == 13
    assert {len({"a0", "a1"} & set(part)) for part in (learned, judged)} == {0, 2}
    assert {len({"b0", "b1", "b2"} & set(part)) for part in (learned, judged)} == {0, 3}


def place(split) -> dict[str, str]:
    return {content: part for part in ("train", "validation", "calibration") for content in getattr(split, part)}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("sizes", [[30] * 8, [3] * 60, [150, 20, 20, 20, 20], [12, 1, 1, 1, 40, 9, 80, 3, 3]])
def test_no_part_is_on_two_sides_when_parts_are_named(sizes, seed) -> None:
    parts = [f"part{n}" for n, size in enumerate(sizes) for _ in range(size)]
    groups = [[f"c{n}"] for n in range(len(parts))]
    split = split_images(groups, 0.05, seed, parts)
    where = place(split)
    sides = {part: {where[f"c{n}"] for n, each in enumerate(parts) if each == part} for part in set(parts)}
    assert all(len(side) == 1 for side in sides.values())
    assert len({parts[int(content[1:])] for content in split.calibration}) >= 2
    assert len(where) == len(groups)
    assert min(len(split.calibration), len(split.train), len(split.validation)) > 0


def test_as_many_are_held_out_as_without_names_when_parts_are_small() -> None:
    parts = [str(n // 3) for n in range(300)]
    split = split_images([[f"c{n}"] for n in range(300)], 0.05, 0, parts)
    calibration, validation = count_held_out(300, 0.05)
    assert len(split.calibration) == pytest.approx(calibration, abs=3)
    assert len(split.validation) == pytest.approx(validation, abs=3)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [([50, 50, 50], "at least 4 parts from each other, got 3"), ([2, 2, 2, 94], "at least 10 images in all")],
)
def test_parts_are_refused_when_they_are_too_few_to_tell(sizes, said) -> None:
    parts = [str(n) for n, size in enumerate(sizes) for _ in range(size)]
    with pytest.raises(ValueError, match=f"`group_by` must .*{said}"):
        split_images([[f"c{n}"] for n in range(len(parts))], 0.05, 0, parts)

"""Seeds are the same everywhere and for ever, and what is drawn from them has the distributions it says."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from anomalib_synth.generators.seeding import RandomStream, derive_seeds, gets_defect, hash64, image_key


def test_hash_is_the_same_for_ever_and_fits_a_signed_integer() -> None:
    assert hash64(0, 3, "part_017.png") == 9159036995832358997
    assert all(0 <= hash64(n, "x") < 2**63 for n in range(200))


def test_hash_differs_when_type_order_or_cut_differs() -> None:
    keys = [(1, "a"), ("1", "a"), (1.0, "a"), ("a", 1), ("1a",), ("1", "", "a"), (True, "a")]
    assert len({hash64(*key) for key in keys}) == len(keys)


def test_seeds_depend_on_run_epoch_image_and_repeat_and_on_no_neighbour() -> None:
    seeds = derive_seeds(7, 2, ["a", "b"])
    assert seeds.dtype == torch.int64
    assert seeds[1:].tolist() == derive_seeds(7, 2, ["b"]).tolist()
    others = [derive_seeds(8, 2, ["a"]), derive_seeds(7, 3, ["a"]), derive_seeds(7, 2, ["a"], 1)]
    assert len({int(seed) for seed in (*seeds, *torch.cat(others))}) == 5


def test_key_of_an_image_stays_when_its_data_set_is_moved() -> None:
    assert image_key("/data/cap/train/good/0.png") == image_key("moved/train/good/0.png") == "train/good/0.png"
    assert image_key("/data/train/good/0.png") != image_key("/data/test/good/0.png")


def test_stream_repeats_and_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    first, second = RandomStream(5), RandomStream(5)
    assert [first.unit() for _ in range(200)] == [second.unit() for _ in range(200)]
    assert torch.equal(before, torch.get_rng_state())


def test_draws_keep_their_ranges_and_reach_both_ends() -> None:
    rng = RandomStream(1)
    integers = Counter(rng.integer(2, 4) for _ in range(3000))
    assert set(integers) == {2, 3, 4}
    assert min(integers.values()) > 900
    assert {rng.sign() for _ in range(50)} == {-1.0, 1.0}
    values = [rng.uniform(-1.0, 3.0) for _ in range(3000)]
    assert -1 <= min(values) < -0.98
    assert 2.98 < max(values) < 3
    skewed = sorted(rng.skewed(0.0, 1.0) for _ in range(3000))
    assert skewed[1500] == pytest.approx(0.25, abs=0.03)  # the median of the square of a uniform number
    assert all(0 <= rng.noise_seed() < 2**24 for _ in range(100))


def test_choice_follows_its_weights() -> None:
    rng = RandomStream(2)
    counted = Counter(rng.choice("abc", [1, 0, 3]) for _ in range(4000))
    assert set(counted) == {"a", "c"}
    assert counted["c"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert set(Counter(rng.choice("abc") for _ in range(100))) == {"a", "b", "c"}


def test_images_get_a_defect_as_often_as_the_probability_says() -> None:
    seeds = derive_seeds(0, 0, range(4000)).tolist()
    assert sum(gets_defect(seed, 0.3) for seed in seeds) / 4000 == pytest.approx(0.3, abs=0.025)
    assert not any(gets_defect(seed, 0.0) for seed in seeds)
    assert all(gets_defect(seed, 1.0) for seed in seeds)


def test_images_with_a_defect_keep_it_when_the_probability_grows() -> None:
    seeds = derive_seeds(1, 0, range(300)).tolist()
    assert all(gets_defect(seed, 0.6) for seed in seeds if gets_defect(seed, 0.4))


def test_the_choice_tells_nothing_of_the_draw_that_follows() -> None:
    seeds = derive_seeds(2, 0, range(4000)).tolist()
    first = [RandomStream(seed).unit() for seed in seeds if gets_defect(seed, 0.5)]
    assert sum(first) / len(first) == pytest.approx(0.5, abs=0.03)

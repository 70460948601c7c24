"""Weights from qualities, by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import softmax

from anomalib_synth.losses import QualityWeights, measure_effective_share
from anomalib_synth.losses.weights import LEAST_SEEN, MIN_TEMPERATURE


def weigh(quality: list[float], synthetic: list[bool] | None = None, *, step: int = 0, **options) -> list[float]:
    """The weights of a batch in a run that saw nothing but this batch, often: its qualities are the run's."""
    synthetic = [True] * len(quality) if synthetic is None else synthetic
    return repeat(QualityWeights(**options), torch.tensor(quality), torch.tensor(synthetic), step=step).tolist()


def repeat(weights: QualityWeights, quality: torch.Tensor, synthetic: torch.Tensor, *, step: int) -> torch.Tensor:
    for _ in range(-(-LEAST_SEEN // max(1, int(synthetic.sum())))):
        found = weights(quality, synthetic, step=step)
    return found


def test_softmax_by_hand() -> None:
    # two samples, w = (1 + x, 1 - x): the share is 4 / (2 * (2 + 2 x^2)) = 1 / (1 + x^2), so 0.8 gives x = 1/2
    assert weigh([0.9, 0.3], effective_share=0.8) == pytest.approx([1.5, 0.5], abs=1e-6)


def test_linear_by_hand() -> None:
    # (0.75 - 0.5) / 0.5 = 0.5, (1 - 0.5) / 0.5 = 1, the floor 0.3 for 0.2; their mean is 0.6
    found = weigh([0.75, 1.0, 0.2], mode="linear", linear_floor=0.3, linear_threshold=0.5)
    assert found == pytest.approx([0.5 / 0.6, 1 / 0.6, 0.3 / 0.6], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_softmax_agrees_with_scipy(seed, share) -> None:
    quality = np.random.default_rng(seed).uniform(size=12)

    def excess(temperature: float) -> float:
        p = softmax(quality / temperature)
        return 1 / (len(p) * (p**2).sum()) - share

    expected = len(quality) * softmax(quality / brentq(excess, MIN_TEMPERATURE, 1e3, xtol=1e-12))
    found = weigh(quality.tolist(), effective_share=share)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_linear_agrees_with_numpy(seed) -> None:
    quality = np.random.default_rng(seed).uniform(size=9)
    expected = np.maximum(0.2, (quality - 0.4) / 0.6)
    found = weigh(quality.tolist(), mode="linear", linear_floor=0.2, linear_threshold=0.4)
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-5)


@pytest.mark.parametrize("mode", ["softmax", "linear"])
def test_synthetic_weights_have_mean_one_and_real_ones_are_one(mode) -> None:
    generator = torch.Generator().manual_seed(0)
    quality = torch.rand(64, generator=generator)
    synthetic = torch.rand(64, generator=generator) < 0.6
    weights = repeat(QualityWeights(mode=mode), quality, synthetic, step=3)
    assert bool((weights[~synthetic] == 1).all())
    assert float(weights[synthetic].mean()) == pytest.approx(1, abs=1e-6)
    assert weights[synthetic].unique().numel() > 10


def test_effective_share_is_the_one_asked_for() -> None:
    quality = torch.rand(20, generator=torch.Generator().manual_seed(0))
    for share in (0.1, 0.5, 0.99):
        weights = repeat(QualityWeights(effective_share=share), quality, torch.ones(20, dtype=torch.bool), step=0)
        assert measure_effective_share(weights) == pytest.approx(share, abs=1e-4)


def test_better_samples_weigh_more() -> None:
    for mode in ("softmax", "linear"):
        weights = weigh([0.1, 0.5, 0.4, 0.9], mode=mode)
        assert np.argsort(weights).tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize("mode", ["softmax", "linear", "none", "shuffled"])
@pytest.mark.parametrize("quality", [0.0, 0.1, 0.3, 1 / 3, 1.0])
@pytest.mark.parametrize("count", [1, 3, 7, 49])
def test_equal_qualities_weigh_exactly_one(mode, quality, count) -> None:
    assert weigh([quality] * count, mode=mode) == [1.0] * count


def test_noise_of_the_quality_does_not_decide() -> None:
    quality = [0.5, 0.5 + 1e-5, 0.5 - 1e-5, 0.5 + 2e-5]
    weights = weigh(quality, effective_share=0.3)
    expected = softmax(np.array(quality) / MIN_TEMPERATURE) * 4
    assert weights == pytest.approx(expected.tolist(), abs=1e-5)
    assert max(weights) < 1.005


def test_a_full_share_weighs_all_alike() -> None:
    assert weigh([0.1, 0.5, 0.9], effective_share=1.0) == [1.0] * 3


def run(weights: QualityWeights, count: int, size: int, *, seed: int = 0, first: int = 0) -> list[torch.Tensor]:
    """The weights of the batches of a run, each of ``size`` synthetic samples and a real one."""
    rng = torch.Generator().manual_seed(seed)
    qualities = torch.rand(count, size + 1, generator=rng)
    synthetic = torch.arange(size + 1) < size
    return [weights(qualities[step], synthetic, step=step)[:size] for step in range(first, count)]


@pytest.mark.parametrize("mode", ["softmax", "linear", "none", "shuffled"])
def test_the_first_samples_weigh_one_when_few_were_seen(mode) -> None:
    early = torch.cat(run(QualityWeights(mode=mode), (LEAST_SEEN - 1) // 2, 2))
    assert early.tolist() == [1.0] * len(early)
    assert weigh([0.2, 0.9, 1.0], [False] * 3, mode=mode) == [1.0] * 3


@pytest.mark.parametrize("mode", ["softmax", "linear", "shuffled"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_weights_have_mean_one_over_the_run_whatever_the_batch(mode, size) -> None:
    late = torch.cat(run(QualityWeights(mode=mode), 1200, size)[200:])
    assert float(late.mean()) == pytest.approx(1, abs=0.05)
    if mode != "linear":
        assert measure_effective_share(late) == pytest.approx(0.7, abs=0.03)


def test_a_sample_weighs_the_same_when_others_stand_beside_it() -> None:
    first, second = QualityWeights(), QualityWeights()
    run(first, 400, 2)
    run(second, 400, 2)
    both = torch.tensor([True, True])
    beside_a_worse = first(torch.tensor([0.5, 0.1]), both, step=0)
    beside_a_better = second(torch.tensor([0.5, 0.9]), both, step=0)
    assert float(beside_a_worse[0]) == pytest.approx(float(beside_a_better[0]), rel=0.01)
    assert float(beside_a_better.mean()) > 1.2 * float(beside_a_worse.mean())


def test_old_qualities_are_forgotten_when_the_history_is_full() -> None:
    weights = QualityWeights(history=64)
    low, high = torch.linspace(0.0, 0.3, 64), torch.linspace(0.6, 0.9, 64)
    own = torch.ones(64, dtype=torch.bool)
    before = weights(low, own, step=0)
    torch.testing.assert_close(weights(high, own, step=1), before)


@pytest.mark.parametrize("mode", ["softmax", "linear", "shuffled"])
def test_a_resumed_run_has_the_weights_of_the_whole(mode) -> None:
    whole = run(QualityWeights(mode=mode, history=64), 60, 3)
    half = QualityWeights(mode=mode, history=64)
    run(half, 40, 3)
    resumed = QualityWeights(mode=mode, history=64)
    resumed.load_state_dict(half.state_dict())
    again = run(resumed, 60, 3, first=40)
    assert all(torch.equal(*pair) for pair in zip(whole[40:], again, strict=True))
    resumed.forget()
    assert torch.cat(run(resumed, 5, 3)).tolist() == [1.0] * 15


def test_none_weighs_one() -> None:
    assert weigh([0.1, 0.9, 0.4], mode="none") == [1.0] * 3


def test_shuffled_draws_softmax_weights_of_the_run_whatever_the_quality() -> None:
    quality = torch.rand(16, generator=torch.Generator().manual_seed(1)).tolist()
    synthetic = [index % 4 > 0 for index in range(16)]
    straight = weigh(quality, synthetic)
    state = torch.random.get_rng_state()
    orders = [weigh(quality, synthetic, mode="shuffled", seed=5, step=step) for step in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != weigh(quality, synthetic, mode="shuffled", seed=6)
    for order in orders:
        assert order != straight
        assert {round(weight, 5) for weight in order} <= {round(weight, 5) for weight in straight}
        assert all(weight == 1 for weight, drawn in zip(order, synthetic, strict=True) if not drawn)
    lone = [weigh([0.9], mode="shuffled", step=step)[0] for step in range(3)]
    assert lone == [1.0] * 3
    many = QualityWeights(mode="shuffled")
    run(many, 200, 1)
    single = [float(many(torch.tensor([0.9]), torch.tensor([True]), step=step)) for step in range(20)]
    assert len(set(single)) > 10  # a batch of one is shuffled, too


def test_inputs_are_left_alone() -> None:
    quality, synthetic = torch.tensor([0.1, 0.9], dtype=torch.float64), torch.tensor([True, True])
    QualityWeights()(quality, synthetic, step=0)
    assert quality.tolist() == [0.1, 0.9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "mean"}, r"`mode` must be one of softmax, linear, none, shuffled, got 'mean'"),
        ({"effective_share": 0.0}, r"`effective_share` must be in \(0, 1\], got 0.0"),
        ({"effective_share": 1.1}, r"`effective_share` must be in \(0, 1\], got 1.1"),
        ({"linear_floor": 0}, r"`linear_floor` must be in \(0, 1\], got 0"),
        ({"linear_floor": 1.01}, r"`linear_floor` must be in \(0, 1\], got 1.01"),
        ({"linear_threshold": -0.01}, r"`linear_threshold` must be in \[0, 1\), got -0.01"),
        ({"linear_threshold": 1.0}, r"`linear_threshold` must be in \[0, 1\), got 1.0"),
        ({"linear_threshold": float("nan")}, r"`linear_threshold` must be in \[0, 1\), got nan"),
        ({"history": 31}, "`history` must be a whole number >= 32, got 31"),
        ({"history": 64.0}, "`history` must be a whole number >= 32, got 64.0"),
    ],
)
def test_bad_arguments_are_named(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        QualityWeights(**options)


def test_limits_of_the_ranges_are_allowed() -> None:
    assert weigh([0.2, 0.9], mode="linear", linear_floor=1.0, linear_threshold=0.0) == [1.0, 1.0]
    assert weigh([0.0, 1.0], effective_share=1.0) == [1.0, 1.0]


def test_linear_weight_is_the_floor_at_the_threshold_and_below() -> None:
    low, at, above, best = weigh([0.1, 0.5, 0.55, 1.0], mode="linear", linear_floor=0.1, linear_threshold=0.5)
    assert low == at == pytest.approx(above)
    assert best == pytest.approx(10 * low)


def test_weights_are_single_precision_on_the_cpu_whatever_the_qualities() -> None:
    quality = torch.tensor([0.1, 0.9], dtype=torch.float16)
    weights = repeat(QualityWeights(), quality, torch.tensor([1, 1]), step=0)  # 0 and 1 for False and True
    assert (weights.dtype, weights.device.type) == (torch.float32, "cpu")
    assert float(weights[0]) < float(weights[1])


def test_share_is_larger_when_the_temperature_would_be_too_low() -> None:
    weights = torch.tensor(weigh([0.5, 0.505, 0.51], effective_share=0.4))
    assert weights.tolist() == pytest.approx((3 * softmax(np.array([0.5, 0.505, 0.51]) / 0.01)).tolist(), abs=1e-5)
    assert measure_effective_share(weights) > 0.5


def test_more_than_one_entry_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B,\), got \(2, 2\) and \(2, 2\)"):
        QualityWeights()(torch.ones(2, 2), torch.ones(2, 2, dtype=torch.bool), step=0)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan"), float("inf")])
def test_qualities_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"`quality` must be in \[0, 1\] for every sample, got"):
        weigh([0.5, wrong])


def test_quality_and_origin_must_agree_in_length() -> None:
    with pytest.raises(ValueError, match=r"one entry a sample, \(B,\), got \(3,\) and \(2,\)"):
        weigh([0.1, 0.2, 0.3], [True, False])

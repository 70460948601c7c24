"""The filter: bounds from normals alone, what they refuse and why, and an index that is kept."""

from __future__ import annotations

import sys
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.retrieval import FilterSettings, RetrievalFilter
from anomalib_synth.retrieval.visibility import make_null_edit, measure_smoothed_visibility
from tests import contract
from tests.unit.retrieval.small import Thumbnail

NORMALS = contract.render_normals(30, 3, 64, 64, seed=1)
HELD_OUT = contract.render_normals(12, 3, 64, 64, seed=2)


def make_filter(folder=None, normals=NORMALS, **settings) -> RetrievalFilter:
    keeper = RetrievalFilter(FilterSettings(**settings), folder=folder)
    keeper.embedder = Thumbnail()
    return keeper.fit(normals)


@pytest.fixture(scope="module")
def keeper() -> RetrievalFilter:
    return make_filter()


def plant(
    change, source: torch.Tensor = HELD_OUT, share: float = 5 / 12
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Change a square of each normal, as long as a share of the side: source, image, mask."""
    size = source.shape[-1]
    side = round(share * size)
    place = (..., slice(size // 4, size // 4 + side), slice(size // 6, size // 6 + side))
    image, mask = source.clone(), torch.zeros(len(source), 1, size, size)
    image[place] = change(source[place]).clamp(0, 1)
    mask[place] = 1
    return source, image, mask


def render_asphalt(count: int, seed: int) -> torch.Tensor:
    """Textures of which no two are alike: grains on patches, each image lit differently."""
    rng = torch.Generator().manual_seed(seed)
    fine = torch.nn.functional.avg_pool2d(torch.rand(count, 1, 98, 98, generator=rng), 3, 1)
    coarse = torch.nn.functional.interpolate(torch.rand(count, 1, 7, 7, generator=rng), (96, 96), mode="bicubic")
    light = 0.9 + 0.2 * torch.rand(count, 1, 1, 1, generator=rng)
    return (light * (0.15 + 0.5 * fine + 0.15 * coarse)).clamp(0, 1).expand(-1, 3, -1, -1).contiguous()


def test_the_bounds_of_a_size_are_quantiles_of_its_normals_against_all_others() -> None:
    keeper = make_filter(quantile=0.1, top_k=3, reference=None)
    for side in (32, 45):
        sized = keeper.size(side)
        places = [(number, place) for number in range(30) for place in keeper.plan.scatter(side, number, 256 // 30)]
        windows = torch.stack([keeper.plan.cut(NORMALS[number], place, 16) for number, place in places])
        vectors = Thumbnail().embed(windows).double()
        image = torch.tensor([number for number, _ in places])
        cosines = (vectors @ vectors.T).masked_fill(image[:, None] == image[None], -1)
        scores = cosines.topk(3, dim=1).values.mean(1)
        np.testing.assert_allclose(sized.scores, scores.numpy(), atol=2e-6)
        assert (sized.scores < sized.lower).mean() <= 0.1 <= (sized.scores <= sized.lower).mean()
        assert sized.upper == float("inf")
        assert sized.spread == pytest.approx(float(scores.median()) - sized.lower, abs=1e-3)
        assert sized.stand(sized.median) == 0
        assert sized.stand(sized.lower) == pytest.approx((sized.lower - sized.median) / sized.spread, abs=1e-5)
    assert list(keeper.sizes) == [32, 45]


@pytest.fixture(scope="module")
def asphalt() -> RetrievalFilter:
    return RetrievalFilter(FilterSettings(max_windows=96)).fit(render_asphalt(12, seed=1))  # the default embedder


@pytest.mark.parametrize("share", [0.11, 5 / 12])
def test_bad_edits_of_any_size_are_refused(asphalt, share) -> None:
    held_out = render_asphalt(12, seed=2)
    rng = torch.Generator().manual_seed(0)
    bad = {
        "noise": lambda w: torch.rand(w.shape, generator=rng),
        "recolour": lambda w: w * torch.tensor([0.5, 1.0, 1.3]).view(3, 1, 1),
        "wrong object": lambda w: contract.render_normals(12, 3, 64, 64)[..., : w.shape[-2], : w.shape[-1]],
        "geometry": lambda w: torch.nn.functional.interpolate(w[..., :5, :5], w.shape[-2:], mode="bilinear"),
    }
    for name, change in bad.items():
        judgements = asphalt.judge(*plant(change, held_out, share))
        assert sum(not judgement.kept for judgement in judgements) >= 11, name


def test_mild_defects_are_kept(asphalt) -> None:
    held_out = render_asphalt(12, seed=2)
    mild = RuleBasedGenerator(["scratch", "stain", "hole"], strength=(0.3, 0.6)).prepare(render_asphalt(12, seed=1))
    sample = mild(held_out, seeds=range(12))
    rows = sample.accepted
    judgements = asphalt.judge(sample.source[rows], sample.image[rows], sample.mask[rows])
    assert np.mean([judgement.kept for judgement in judgements]) >= 0.8


def test_a_sample_may_lose_what_reference_defects_lose() -> None:
    keeper = make_filter()
    sized = keeper.size(45)
    lost = sorted(sized.rate_loss(*pair) for pair in sized.references.tolist())
    assert len(lost) == 40
    assert sized.most_lost == lost[32], "four in five lose no more"
    assert sized.lower <= np.quantile(sized.scores, 0.01, method="lower")
    assert make_filter(reference=0.4).size(45).most_lost > sized.most_lost
    assert make_filter(reference=None).size(45).most_lost == float("inf")


def test_what_an_edit_takes_is_measured_against_the_window_before_it(keeper) -> None:
    (judgement,) = keeper.judge(*(each[:1] for each in plant(lambda w: w.flip(-1) * 0.8)))
    before = keeper.score(HELD_OUT[:1], HELD_OUT[:1], plant(lambda w: w)[2][:1])[0]
    wanted = (before - judgement.similarity) / max(1 - before, keeper.size(judgement.side).spread)
    assert judgement.drop == pytest.approx(wanted, abs=1e-5)


def test_an_edit_that_takes_too_much_is_refused_when_its_window_still_passes(asphalt) -> None:
    sample = plant(lambda w: w * 0.9, render_asphalt(12, seed=2))
    passing = asphalt.judge(*sample)
    assert np.mean([judgement.kept for judgement in passing]) > 0.5
    strict, loose = copy(asphalt), copy(asphalt)
    strict._sizes, loose._sizes = dict(asphalt._sizes), dict(asphalt._sizes)
    side = passing[0].side
    strict._sizes[side] = replace(asphalt.size(side), references=np.array([[0.9, 0.89999]] * 20))
    loose._sizes[side] = replace(asphalt.size(side), references=np.zeros((0, 2)))
    for judgement, refused in zip(passing, strict.judge(*sample), strict=True):
        if judgement.kept and judgement.drop > 1e-4:
            assert refused.reason == f"loss of similarity {judgement.drop:.2f} above 0.00"
    assert not all(judgement.kept for judgement in strict.judge(*sample))
    assert sum(judgement.kept for judgement in loose.judge(*sample)) >= sum(judgement.kept for judgement in passing)


@pytest.mark.parametrize("name", ["nothing", "noise of a grey level", "null edit"])
def test_edits_that_show_nothing_are_refused(keeper, name) -> None:
    rng = torch.Generator().manual_seed(0)
    change = {
        "nothing": lambda w: w,
        "noise of a grey level": lambda w: (w + torch.randn(w.shape, generator=rng) / 255).clamp(0, 1),
        "null edit": make_null_edit,
    }[name]
    for judgement in keeper.judge(*plant(change)):
        assert judgement.reason.startswith("smoothed visibility")
        assert judgement.reason.endswith(f"below {keeper.floor:.2f}")


def test_the_floor_is_set_by_null_edits_of_normals_but_never_below_its_least() -> None:
    colourful = NORMALS * 0.5
    colourful[:, 0, :, ::8] += 0.5  # thin red lines, which a codec smears
    assert make_filter(normals=colourful).floor > make_filter().floor >= 0.6
    assert make_filter(min_visibility=5.0).floor == 5.0
    assert make_filter(min_visibility=0.0).floor == 0.0


def test_visibility_is_the_smoothed_change_over_noise_and_two_levels() -> None:
    source, mask = torch.full((1, 3, 20, 20), 0.5), torch.zeros(1, 1, 20, 20)
    mask[..., 5:15, 5:15] = 1
    assert measure_smoothed_visibility(source, source + 10 / 255, mask) == pytest.approx([5.0], abs=1e-3)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(10, 10) * 10 / 255
    assert measure_smoothed_visibility(source, source + checks, mask) == pytest.approx([5 / 9], abs=1e-3)
    both = [torch.cat([each, each]) for each in (source, source + checks, mask)]
    assert measure_smoothed_visibility(*both) == 2 * measure_smoothed_visibility(source, source + checks, mask)


def test_an_upper_bound_refuses_what_is_too_close() -> None:
    keeper = make_filter(upper_quantile=0.5, min_visibility=0.0)
    judgements = keeper.judge(*plant(lambda w: w))
    upper = keeper.size(judgements[0].side).upper
    similar = [judgement for judgement in judgements if judgement.similarity > upper]
    assert similar
    assert all(judgement.reason.endswith(f"above {upper:.4f}") for judgement in similar)


def test_a_sample_is_not_compared_with_its_own_source(keeper) -> None:
    side, top, left = keeper.plan.scatter(45, 4, 30)[0]
    middle = torch.zeros(1, 1, 64, 64)
    middle[..., top + 8 : top + side - 8, left + 8 : left + side - 8] = 1  # 29 px: a window of 45
    (own,) = keeper.score(NORMALS[4:5], NORMALS[4:5], middle)
    sized = keeper.size(45)
    assert own == sized.scores[np.flatnonzero(sized.index.images == 4)[0]]
    (other,) = keeper.score(HELD_OUT[:1], NORMALS[4:5], middle)
    assert other > own


def test_scores_do_not_depend_on_the_batch(keeper) -> None:
    source, image, mask = plant(lambda w: w.flip(-1))
    whole = keeper.judge(source, image, mask)
    for row in (0, 5):
        assert keeper.judge(source[row : row + 1], image[row : row + 1], mask[row : row + 1])[0] == whole[row]


def test_a_batch_is_embedded_at_once_and_only_the_sizes_it_has() -> None:
    keeper = make_filter()
    calls = []
    embed = keeper.embedder.embed
    keeper.embedder.embed = lambda windows: calls.append(len(windows)) or embed(windows)
    keeper.judge(*plant(lambda w: w * 0.5))
    assert list(keeper.sizes) == [45]
    calls.clear()
    keeper.judge(*plant(lambda w: w * 0.5))
    assert calls == [4] * 6, "twelve samples, before and after"


def test_the_index_is_kept_and_found_by_what_it_depends_on(tmp_path) -> None:
    sample = plant(lambda w: w * 0.5)
    first, again = make_filter(tmp_path), make_filter(tmp_path)
    assert first.judge(*sample) == again.judge(*sample)
    assert again.embedder.count == 24, "twelve samples, before and after"
    assert first.embedder.count == padded(4) * 30 + 40 + 24, "every third has a reference defect, too"
    assert (first.size(45).lower, first.floor) == (again.size(45).lower, again.floor)
    assert first.size(45).most_lost == again.size(45).most_lost
    assert count_embedded(make_filter(tmp_path, NORMALS.flip(-1)), sample) == first.embedder.count
    assert count_embedded(make_filter(tmp_path, window_share=1.0), sample) == padded(1) * 30 + padded(10) + 24
    assert len(list(tmp_path.iterdir())) == 3
    levels = (NORMALS * 255).round().to(torch.uint8)
    few = make_filter(tmp_path, levels, max_normals=8, reference=None)
    assert count_embedded(few, sample) == padded(4) * 8 + 24
    assert count_embedded(make_filter(tmp_path, max_windows=60, reference=None), sample) == padded(2) * 30 + 24


def padded(count: int) -> int:
    """Windows are embedded four at a time."""
    return -(-count // 4) * 4


def count_embedded(keeper: RetrievalFilter, sample: tuple) -> int:
    keeper.judge(*sample)
    return keeper.embedder.count


def test_a_missing_faiss_is_told_before_anything_is_embedded(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    keeper = RetrievalFilter(FilterSettings())
    keeper.embedder = Thumbnail()
    with pytest.raises(ImportError, match=r"needs faiss, which is not installed"):
        keeper.fit(NORMALS)
    assert keeper.embedder.count == 0


def test_grey_images_are_compared(tmp_path) -> None:
    grey = make_filter(normals=NORMALS[:, :1], reference=None)
    source = HELD_OUT[:, :1]
    image, mask = source.clone(), torch.zeros(12, 1, 64, 64)
    image[..., 8:40, 8:40] = torch.rand(12, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    mask[..., 8:40, 8:40] = 1
    assert not any(judgement.kept for judgement in grey.judge(source, image, mask))


def test_it_says_what_it_misses() -> None:
    with pytest.raises(ValueError, match="has none yet"):
        RetrievalFilter(FilterSettings(min_visibility=0)).judge(HELD_OUT[:1], HELD_OUT[:1], torch.ones(1, 1, 64, 64))
    with pytest.raises(ValueError, match="N >= 2"):
        RetrievalFilter().fit(NORMALS[:1])
    keeper = make_filter()
    with pytest.raises(ValueError, match="`mask` must mark the defect of every sample"):
        keeper.judge(HELD_OUT[:1], HELD_OUT[:1], torch.zeros(1, 1, 64, 64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_share": 0}, r"`window_share` must be in \(0, 1\] or None, got 0"),
        ({"context": 0.5}, "`context` must be >= 1, got 0.5"),
        ({"reference": 0}, r"`reference` must be in \(0, 1\] or None, got 0"),
        ({"max_windows": 1}, "`max_windows` must be >= 2, got 1"),
        ({"top_k": 0}, "`top_k` must be >= 1"),
        ({"quantile": 1}, r"`quantile` must be in \(0, 1\)"),
        ({"upper_quantile": 0.005}, r"`upper_quantile` must be > `quantile` \(0.01\)"),
        ({"min_visibility": -1}, "`min_visibility` must be >= 0"),
        ({"max_normals": 1}, "`max_normals` must be >= 2"),
        ({"embedder": "lite0"}, "`embedder` must be"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        FilterSettings(**arguments)

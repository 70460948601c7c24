"""The filter: bounds from normals alone, what they refuse and why, and an index that is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.retrieval import FilterSettings, RetrievalFilter
from anomalib_synth.retrieval.filter import make_null_edit, measure_smoothed_visibility
from anomalib_synth.retrieval.windows import WindowGrid
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


def plant(change, source: torch.Tensor = HELD_OUT) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Change a window of each normal: source, image, mask."""
    size = source.shape[-1]
    place = (..., slice(size // 4, size * 2 // 3), slice(size // 6, size // 6 + size * 2 // 3 - size // 4))
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


def test_the_bound_is_the_quantile_of_normals_against_all_others() -> None:
    keeper = make_filter(quantile=0.1, top_k=3)
    grid = WindowGrid(height=64, width=64, share=0.5)
    windows = torch.stack([grid.cut(one, corner, 16) for one in NORMALS for corner in grid.corners])
    vectors = Thumbnail().embed(windows).double()
    image = torch.arange(30).repeat_interleave(len(grid.corners))
    cosines = (vectors @ vectors.T).masked_fill(image[:, None] == image[None], -1)
    scores = cosines.topk(3, dim=1).values.mean(1)
    np.testing.assert_allclose(keeper.normal_scores, scores.numpy(), atol=2e-6)
    below = (keeper.normal_scores < keeper.lower).mean()
    assert 0.08 < below < 0.11
    assert keeper.upper == float("inf")


def test_bad_edits_are_refused_and_mild_defects_kept() -> None:
    normals = render_asphalt(12, seed=1)
    held_out = render_asphalt(12, seed=2)
    keeper = RetrievalFilter().fit(normals)  # with the default embedder
    rng = torch.Generator().manual_seed(0)
    bad = {
        "noise": lambda w: torch.rand(w.shape, generator=rng),
        "recolour": lambda w: w * torch.tensor([0.5, 1.0, 1.3]).view(3, 1, 1),
        "wrong object": lambda w: contract.render_normals(12, 3, *w.shape[-2:]),
        "geometry": lambda w: torch.nn.functional.interpolate(w[..., :10, :10], w.shape[-2:], mode="bilinear"),
    }
    for name, change in bad.items():
        judgements = keeper.judge(*plant(change, held_out))
        assert sum(not judgement.kept for judgement in judgements) >= 11, name
        assert all(
            judgement.reason.endswith(f"below {keeper.lower:.4f}") for judgement in judgements if not judgement.kept
        )
    mild = RuleBasedGenerator(["scratch", "stain", "hole"], strength=(0.3, 0.6)).prepare(normals)
    sample = mild(held_out, seeds=range(12))
    rows = sample.accepted
    judgements = keeper.judge(sample.source[rows], sample.image[rows], sample.mask[rows])
    assert np.mean([judgement.kept for judgement in judgements]) >= 0.8


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
    assert measure_smoothed_visibility(source, source + 10 / 255, mask) == pytest.approx(5.0, abs=1e-3)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(10, 10) * 10 / 255
    assert measure_smoothed_visibility(source, source + checks, mask) == pytest.approx(5 / 9, abs=1e-3)


def test_an_upper_bound_refuses_what_is_too_close() -> None:
    keeper = make_filter(upper_quantile=0.5, min_visibility=0.0)
    similar = [judgement for judgement in keeper.judge(*plant(lambda w: w)) if judgement.similarity > keeper.upper]
    assert similar
    assert all(judgement.reason.endswith(f"above {keeper.upper:.4f}") for judgement in similar)


def test_a_sample_is_not_compared_with_its_own_source(keeper) -> None:
    corner = torch.zeros(1, 1, 64, 64)
    corner[..., :20, :20] = 1
    (own,) = keeper.score(NORMALS[4:5], NORMALS[4:5], corner)
    assert own == keeper.normal_scores.reshape(30, -1)[4, 0]
    (other,) = keeper.score(HELD_OUT[:1], NORMALS[4:5], corner)
    assert other > own


def test_scores_do_not_depend_on_the_batch(keeper) -> None:
    source, image, mask = plant(lambda w: w.flip(-1))
    whole = keeper.judge(source, image, mask)
    for row in (0, 5):
        assert keeper.judge(source[row : row + 1], image[row : row + 1], mask[row : row + 1])[0] == whole[row]


def test_the_index_is_kept_and_found_by_what_it_depends_on(tmp_path) -> None:
    first, again = make_filter(tmp_path), make_filter(tmp_path)
    assert (first.embedder.count, again.embedder.count) == (30 * 9, 0)
    assert (first.lower, first.floor) == (again.lower, again.floor)
    sample = plant(lambda w: w * 0.5)
    assert first.judge(*sample) == again.judge(*sample)
    assert make_filter(tmp_path, NORMALS.flip(-1)).embedder.count == 30 * 9
    assert make_filter(tmp_path, window_share=1.0).embedder.count == 30
    assert len(list(tmp_path.iterdir())) == 3
    levels = (NORMALS * 255).round().to(torch.uint8)
    assert make_filter(tmp_path, levels, max_normals=8).embedder.count == 8 * 9


def test_grey_images_are_compared(tmp_path) -> None:
    grey = make_filter(normals=NORMALS[:, :1])
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
        ({"window_share": 0}, r"`window_share` must be in \(0, 1\], got 0"),
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

"""Features, scales, heads, score, cache and schedule, each against an independent implementation."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.stats import chi2
from torch import nn
from torch.nn import functional as F

from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache, digest_pixels
from anomalib_synth.detectors.discriminative_padim.features import GridFeatures, bring_to_grid, draw_projection
from anomalib_synth.detectors.discriminative_padim.heads import Head
from anomalib_synth.detectors.discriminative_padim.normals import TrainingNormals, hold_out
from anomalib_synth.detectors.discriminative_padim.scales import (
    blur_matrix,
    make_resize,
    make_upsampling,
    resize_matrix,
    scaled_size,
)
from anomalib_synth.detectors.discriminative_padim.schedule import OneCycle
from anomalib_synth.detectors.discriminative_padim.score import deviation_bound, measure_scale, trust_in_heads
from anomalib_synth.detectors.discriminative_padim.targets import Targets, cover_cells, focal_losses


class Pyramid(nn.Module):
    """A backbone of three maps at strides 4, 8 and 16, without weights."""

    channels = [3, 3, 3]  # noqa: RUF012
    strides = [4, 8, 16]  # noqa: RUF012

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [F.avg_pool2d(images, stride) for stride in self.strides]


def test_features_are_local_means_on_the_grid_of_stride_8() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = GridFeatures(Pyramid(), channels=99)(images)
    assert found.shape == (2, 9, 4, 4)
    middle = F.avg_pool2d(images, 8).numpy()
    for row, column in ((0, 0), (1, 2), (3, 3)):
        around = middle[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        np.testing.assert_allclose(found[:, 3:6, row, column], around.mean((2, 3)), rtol=1e-5)
    fine = F.avg_pool2d(F.avg_pool2d(images, 4), 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(found[:, :3], F.adaptive_avg_pool2d(fine, 4))


def test_wide_features_are_projected_by_an_orthogonal_matrix_of_a_seed() -> None:
    state = torch.get_rng_state()
    network = GridFeatures(Pyramid(), channels=4, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(network.projection @ network.projection.T, torch.eye(4))
    assert torch.equal(network.projection, draw_projection(9, 4, 3))
    assert not torch.equal(network.projection, draw_projection(9, 4, 4))
    images = torch.rand(1, 3, 32, 32)
    every = GridFeatures(Pyramid(), channels=9)(images)
    torch.testing.assert_close(network(images), torch.einsum("dc,bchw->bdhw", network.projection, every))


@pytest.mark.parametrize(("size", "grid"), [((6, 6), (3, 3)), ((5, 7), (2, 3)), ((2, 2), (4, 4))])
def test_maps_come_to_the_grid(size, grid) -> None:
    features = torch.rand(1, 2, *size)
    expected = (
        F.interpolate(features, grid, mode="bilinear") if size[0] < grid[0] else F.adaptive_avg_pool2d(features, grid)
    )
    torch.testing.assert_close(bring_to_grid(features, grid), expected)


@pytest.mark.parametrize("target", [(20, 12), (40, 48), (32, 32)])
def test_resize_is_torchs_antialiased_one(target) -> None:
    images = torch.rand(2, 3, 32, 32)
    shrinks = target[0] < 32
    expected = F.interpolate(images, target, mode="bilinear", antialias=shrinks)
    torch.testing.assert_close(make_resize((32, 32), target)(images), expected, atol=1e-5, rtol=1e-5)


def test_blur_is_scipys_away_from_the_border_and_keeps_a_constant() -> None:
    signal = np.random.default_rng(0).random(64)
    found = blur_matrix(64, 2.0).double().numpy() @ signal
    np.testing.assert_allclose(found[8:-8], gaussian_filter1d(signal, 2.0, truncate=4.0)[8:-8], rtol=1e-5)
    np.testing.assert_allclose(blur_matrix(64, 2.0).sum(1), 1, rtol=1e-5)
    assert torch.equal(blur_matrix(5, 0.0), torch.eye(5))


def test_maps_are_interpolated_then_blurred() -> None:
    maps = torch.rand(1, 1, 4, 6)
    found = make_upsampling((4, 6), (32, 48), 0.05)(maps)
    large = F.interpolate(maps, (32, 48), mode="bilinear")
    expected = blur_matrix(32, 1.6) @ large @ blur_matrix(48, 2.4).T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert resize_matrix(4, 32).shape == (32, 4)


def test_scaled_sizes_keep_the_shape_and_fit_all_strides() -> None:
    assert scaled_size((256, 256), 160) == (160, 160)
    assert scaled_size((208, 512), 256) == (96, 256)
    assert scaled_size((30, 1000), 64) == (32, 64)


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0, 3.0], [1.0, -2.0, 0.5, 0.0]]).view(2, 1, 2, 2)
    cover = torch.tensor([[0.0, 0.25, 0.2, 1.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)

    def one(logit: float, *, positive: bool) -> float:
        p = 1 / (1 + math.exp(-logit))
        p = p if positive else 1 - p
        return -((1 - p) ** 2) * math.log(p)

    first = one(0.0, positive=False) + one(2.0, positive=True) + one(3.0, positive=True)  # 20 % is ignored
    second = sum(one(logit, positive=False) for logit in (1.0, -2.0, 0.5, 0.0))
    positive, negative = Targets(cover, torch.zeros_like(cover, dtype=torch.uint8)).split()
    losses = focal_losses(logits, positive, positive | negative)
    torch.testing.assert_close(losses, torch.tensor([first, second]) * 2 / (2 + 1))
    torch.testing.assert_close(losses.mean(), torch.tensor((first + second) / 3))


def test_cover_is_the_share_of_a_cell() -> None:
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, :4, :8] = True
    assert torch.equal(cover_cells(mask, (2, 2)), torch.tensor([[[[0.5, 0.0], [0.0, 0.0]]]]))


def test_head_scores_cells_and_repeats_the_border() -> None:
    head = Head(6, 8).eval()
    logits = head(torch.ones(2, 6, 5, 7))
    assert logits.shape == (2, 1, 5, 7)
    torch.testing.assert_close(logits, logits[:, :, :1, :1].expand_as(logits))  # zeros around would show


def test_maps_are_standardised_twice_and_so_are_their_maxima() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(6, 3, 8, 8, generator=generator) * torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1) + 2
    reference[:, 1] += reference[:, 0]  # maps that go together
    tested = torch.randn(2, 3, 8, 8, generator=generator)
    scale = measure_scale([reference[:1], reference[1:]])
    found = (tested * scale.weights.view(1, 3, 1, 1)).sum(1) + scale.offset

    values, new = reference.double().numpy(), tested.double().numpy()
    mean, deviation = values.mean((0, 2, 3)), values.std((0, 2, 3))
    ours, theirs = (((x - mean[:, None, None]) / deviation[:, None, None]).mean(1) for x in (new, values))
    np.testing.assert_allclose(found, (ours - theirs.mean()) / theirs.std(), rtol=1e-4, atol=1e-4)
    largest = ((theirs - theirs.mean()) / theirs.std()).max((1, 2))
    assert scale.maximum_mean == pytest.approx(largest.mean())
    assert scale.bound == pytest.approx(np.sqrt(5 / chi2.ppf(0.05, 5)))
    assert scale.maximum_deviation == pytest.approx(largest.std(ddof=1) * scale.bound)


def test_cache_goes_from_memory_to_disk_and_then_forgets() -> None:
    cache = FeatureCache(memory=40, disk=20)
    vectors = [torch.randn(10, generator=torch.Generator().manual_seed(seed)).half() for seed in range(4)]
    for number, vector in enumerate(vectors):
        cache.put(bytes([number]), vector)
    assert len(cache) == 3
    for number in (2, 0, 1):
        assert torch.equal(cache.get(bytes([number])), vectors[number])
    assert cache.get(b"\x03") is None
    cache.close()
    assert len(cache) == 0
    assert cache.get(b"\x00") is None


def test_full_disk_ends_keeping_and_says_so(caplog) -> None:
    class Full(io.BytesIO):
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    cache = FeatureCache(memory=0, disk=2**16)
    cache._file = Full()
    for number in range(3):
        cache.put(bytes([number]), torch.zeros(10).half())
    assert len(cache) == 0
    assert caplog.text.count("no longer kept") == 1


def test_vectors_on_disk_keep_their_places() -> None:
    cache = FeatureCache(memory=0, disk=2**16)
    vectors = {bytes([n]): torch.full((n + 1,), float(n)).half() for n in range(20)}
    for key, vector in vectors.items():
        cache.put(key, vector)
    for key, vector in reversed(vectors.items()):
        assert torch.equal(cache.get(key), vector)


def test_normals_are_found_again_by_content() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 64, 64, generator=generator) * 2 - 1
    normals = TrainingNormals()
    assert [normals.add(image, digest_pixels(image)) for image in images] == [True] * 5
    assert not normals.add(images[2].clone(), digest_pixels(images[2]))  # a copy under another name
    assert len(normals) == 5
    assert normals.find(images[3].clone(), digest_pixels(images[3])) == 3
    stored = ((images[4] + 1) * 127.5).round() / 127.5 - 1  # through an 8-bit file
    assert not torch.equal(stored, images[4])
    assert normals.find(stored, digest_pixels(stored)) == 4
    other = torch.rand(3, 64, 64, generator=generator) * 2 - 1
    assert normals.find(other, digest_pixels(other)) == -1


def test_normals_are_told_apart_by_names_or_content() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    named, same, other, bare = (TrainingNormals() for _ in range(4))
    for normals, names in ((named, "ab"), (same, "ba"), (other, "ac"), (bare, (None, None))):
        for image, name in zip(images, names, strict=True):
            normals.add(image, digest_pixels(image), name)
    assert named.find_name("b") == 1
    assert (named.find_name("c"), named.find_name(None)) == (-1, -1)
    assert named.fingerprint() == same.fingerprint()
    assert len({named.fingerprint(), other.fingerprint(), bare.fingerprint()}) == 3


@pytest.mark.parametrize(("count", "expected"), [(3, 1), (4, 2), (9, 2), (100, 20)])
def test_a_fifth_is_held_out_by_content_whatever_the_order(count, expected) -> None:
    keys = [digest_pixels(torch.tensor([float(number)])) for number in range(count)]
    held = hold_out(keys, share=0.2)
    assert int(held.sum()) == expected
    assert torch.equal(held.flip(0), hold_out(keys[::-1], share=0.2))


def test_one_cycle_is_torchs() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=101)
    ours = OneCycle(100)
    for step in range(100):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], abs=0.03)
        optimiser.step()
        theirs.step()


def test_heads_count_more_in_the_map_when_they_learned_real_masks() -> None:
    distances, heads = (measure_scale([torch.randn(n, 2, 8, 8)]) for n in (40, 10))
    plain = trust_in_heads(distances, heads, 0)
    assert plain == pytest.approx(deviation_bound(40) / deviation_bound(10))
    assert trust_in_heads(distances, heads, 5) == pytest.approx(2 * plain)

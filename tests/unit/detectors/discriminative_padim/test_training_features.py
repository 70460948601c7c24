"""Features and residuals are computed once, in full micro-batches, and are the same however they came to be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache, digest_values
from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel
from anomalib_synth.detectors.discriminative_padim.training_features import Request, TrainingFeatures
from tests.unit.detectors.discriminative_padim.pyramid import Pyramid

COUNT = 30  # normals that the Gaussians would be fitted to


class Backbone(Pyramid):
    """A pyramid that lies on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1))


@pytest.fixture(scope="module")
def model() -> DiscriminativePadimModel:
    """A network whose Gaussians are some."""
    network = DiscriminativePadimModel(Backbone(), scales=[32], channels=9, head_width=4)
    network.make_room((32, 32))
    generator = torch.Generator().manual_seed(0)
    gaussian = network.branches[0].gaussian
    gaussian.whitening.copy_(torch.randn(gaussian.whitening.shape, generator=generator).tril())
    gaussian.mean.copy_(torch.randn(gaussian.mean.shape, generator=generator))
    network.mark_fitted()
    return network


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """Twenty images; every other one was drawn on the one before."""
    images = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    keys = [digest_values(image) for image in images]
    return [
        Request(image, key, images[n - n % 2], keys[n - n % 2])
        for n, (image, key) in enumerate(zip(images, keys, strict=True))
    ]


def _watch(features: TrainingFeatures, monkeypatch) -> list[int]:
    """Return a list to which the number of images in each micro-batch is added."""
    sizes: list[int] = []
    compute = features._residuals
    monkeypatch.setattr(features, "_residuals", lambda raw, behind: sizes.append(len(raw)) or compute(raw, behind))
    return sizes


def _views(features: TrainingFeatures, requests: list[Request], **options: object) -> list[torch.Tensor]:
    return [part for view in features.views(requests, count=COUNT, **options) for part in view]


def test_a_micro_batch_is_filled_when_more_images_are_wanted_later(model, requests, monkeypatch) -> None:
    features = TrainingFeatures(model, FeatureCache(memory=2**20, disk=0))
    sizes = _watch(features, monkeypatch)
    plan = [requests[start : start + 2] for start in range(0, 20, 2)]
    for step, rows in enumerate(plan):
        ahead = (each for later in plan[step + 1 :] for each in later)
        features.views(rows, count=COUNT, ahead=ahead)
    assert sizes == [8, 8, 4]  # ten without


def test_views_are_the_same_when_they_were_computed_ahead(model, requests) -> None:
    filled = TrainingFeatures(model, FeatureCache(memory=2**20, disk=0))
    filled.views(requests[:1], count=COUNT, ahead=iter(requests))
    for chosen in (requests[:3], requests[5:13], [requests[4], requests[4], requests[19]]):
        alone = TrainingFeatures(model, FeatureCache(memory=2**20, disk=0))
        pairs = zip(_views(filled, chosen), _views(alone, chosen), strict=True)
        assert all(torch.equal(found, expected) for found, expected in pairs)


def test_nothing_is_computed_ahead_when_it_could_not_be_kept(model, requests, monkeypatch) -> None:
    features = TrainingFeatures(model, FeatureCache(memory=0, disk=0))
    features.views(requests[:1], count=COUNT)
    sizes = _watch(features, monkeypatch)
    features.views(requests[:2], count=COUNT, ahead=iter(requests))
    assert sizes == [2]

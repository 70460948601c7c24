"""The cache of features: memory, then disk, then nothing."""

from __future__ import annotations

import io

import torch

from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache


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

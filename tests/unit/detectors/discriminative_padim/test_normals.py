"""The normals behind a run are told apart by content."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.detectors.discriminative_padim.cache import digest_values
from anomalib_synth.detectors.discriminative_padim.normals import TrainingNormals, hold_out


def test_normals_are_found_again_by_content() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 64, 64, generator=generator) * 2 - 1
    normals = TrainingNormals()
    assert [normals.add(image, digest_values(image)) for image in images] == [True] * 5
    assert not normals.add(images[2].clone(), digest_values(images[2]))  # a copy under another name
    assert len(normals) == 5
    assert normals.find(images[3].clone(), digest_values(images[3])) == 3
    stored = ((images[4] + 1) * 127.5).round() / 127.5 - 1  # through an 8-bit file
    assert not torch.equal(stored, images[4])
    assert normals.find(stored, digest_values(stored)) == 4
    other = torch.rand(3, 64, 64, generator=generator) * 2 - 1
    assert normals.find(other, digest_values(other)) == -1


def test_normals_are_told_apart_by_names_or_content() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    named, same, other, bare = (TrainingNormals() for _ in range(4))
    for normals, names in ((named, "ab"), (same, "ba"), (other, "ac"), (bare, (None, None))):
        for image, name in zip(images, names, strict=True):
            normals.add(image, digest_values(image), name)
    assert named.find_name("b") == 1
    assert (named.find_name("c"), named.find_name(None)) == (-1, -1)
    assert named.fingerprint() == same.fingerprint()
    assert len({named.fingerprint(), other.fingerprint(), bare.fingerprint()}) == 3


@pytest.mark.parametrize(("count", "expected"), [(3, 1), (4, 2), (9, 2), (100, 20)])
def test_a_fifth_is_held_out_by_content_whatever_the_order(count, expected) -> None:
    keys = [digest_values(torch.tensor([float(number)])) for number in range(count)]
    held = hold_out(keys, share=0.2)
    assert int(held.sum()) == expected
    assert torch.equal(held.flip(0), hold_out(keys[::-1], share=0.2))

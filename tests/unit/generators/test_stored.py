"""Kept samples are served as they were kept, and only those that are kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from anomalib_synth.generators import MixtureGenerator, StoredGenerator, build_generator
from anomalib_synth.images import digest_image
from anomalib_synth.store import SampleStore, StoreError
from tests import contract
from tests.unit.store.samples import make_record, make_store

SEEDS = [3, 14, 15, 92, 65, 35, 89, 79]


def images(size: int = 16, channels: int = 3) -> torch.Tensor:
    return contract.render_normals(len(SEEDS), channels, size, size)


@pytest.mark.parametrize(("size", "channels"), [(16, 3), (16, 1), (24, 3), (11, 3)])
def test_samples_keep_the_contract(tmp_path, size, channels) -> None:
    make_store(tmp_path / "s", 8)
    batch = images(size, channels)
    sample = StoredGenerator(tmp_path / "s")(batch, seeds=SEEDS)
    contract.check_shapes_and_types(sample, batch)
    contract.check_locality(sample)
    contract.check_honest_mask(sample)
    contract.check_labels_follow_masks(sample)
    assert bool(sample.accepted.all())


def test_purity_and_replay(tmp_path) -> None:
    make_store(tmp_path / "s", 8)
    batch = images()
    contract.check_purity(lambda: StoredGenerator(tmp_path / "s"), batch, SEEDS)
    whole = StoredGenerator(tmp_path / "s")(batch, seeds=SEEDS)
    for row in (0, 5):
        alone = StoredGenerator(tmp_path / "s")(batch[row : row + 1], seeds=[SEEDS[row]])
        contract.assert_row_equal(contract.pick(alone, 0), contract.pick(whole, row))
    again = build_generator(whole.provenance[0].config)(batch, seeds=SEEDS)
    contract.assert_same(again, whole)


def test_pixels_are_those_of_the_store_when_sizes_agree(tmp_path) -> None:
    store = make_store(tmp_path / "s", 1)
    sample = StoredGenerator(tmp_path / "s")(images()[:1], seeds=[0])
    record = store.records[0]
    kept = {"image": store.read_image(record), "source": store.read_source(record)}
    for name, pixels in kept.items():
        served = (getattr(sample, name)[0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
        assert np.array_equal(served, pixels)
    assert np.array_equal(sample.mask[0, 0].numpy() > 0, store.read_mask(record) > 0)
    assert float(sample.quality[0]) == pytest.approx(record.quality)
    assert sample.provenance[0].family == "scratch"


def served_families(generator: StoredGenerator) -> set[str]:
    sample = generator(images(), seeds=SEEDS)
    return {provenance.family for provenance in sample.provenance}


def test_only_kept_samples_are_served(tmp_path) -> None:
    store = make_store(tmp_path / "s", 8)
    assert served_families(StoredGenerator(store.path)) == {"scratch", "stain"}
    assert served_families(StoredGenerator(store.path, families=["stain"])) == {"stain"}
    good = StoredGenerator(store.path, min_quality=0.65)
    assert {record.index for record in good.kept} == {7}
    store.decide([record.id for record in store.records if record.family == "stain"], accepted=False)
    assert served_families(StoredGenerator(store.path)) == {"scratch"}


def test_splits_never_mix(tmp_path) -> None:
    store = make_store(tmp_path / "s", 4)
    with store.writing():
        store.append(make_record(store, 4, split="test"))
    assert {record.split for record in StoredGenerator(store.path).kept} == {"train"}
    assert [record.index for record in StoredGenerator(store.path, split="test").kept] == [4]
    with pytest.raises(StoreError, match=r"none of split 'val'.*--split val`"):
        StoredGenerator(store.path, split="val")(images(), seeds=SEEDS)


def test_unpaired_serves_only_samples_of_the_very_image(tmp_path) -> None:
    store = make_store(tmp_path / "s", 4)
    own = torch.from_numpy(store.read_source(store.records[2])).permute(2, 0, 1).float() / 255
    batch = torch.stack([images()[0], own])
    sample = StoredGenerator(store.path, paired=False)(batch, seeds=[1, 2])
    assert sample.accepted.tolist() == [False, True]
    assert sample.reason == ["no kept sample of this image", ""]
    assert torch.equal(sample.source, batch)
    contract.check_locality(sample)
    contract.check_honest_mask(sample)


def test_other_decisions_are_other_provenance(tmp_path) -> None:
    store = make_store(tmp_path / "s", 4)
    before = StoredGenerator(store.path)(images(), seeds=SEEDS).provenance[0]
    store.decide([store.records[0].id], accepted=False)
    assert StoredGenerator(store.path)(images(), seeds=SEEDS).provenance[0].files_digest != before.files_digest


def test_a_sample_too_small_for_the_size_comes_back_unchanged(tmp_path) -> None:
    store = SampleStore.create(tmp_path / "s", {})
    with store.writing():
        store.append(make_record(store, 5, size=64))
    sample = StoredGenerator(tmp_path / "s")(images(8)[:1, :, :1, :1], seeds=[0])
    assert not bool(sample.accepted[0])
    assert "nothing is left" in sample.reason[0]
    contract.check_honest_mask(sample)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_quality": 1.5}, r"`min_quality` must be in \[0, 1\], got 1.5"),
        ({"split": "all"}, "`split` must be one of"),
    ],
)
def test_bad_arguments_are_errors(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        StoredGenerator("store", **arguments)


def test_bad_calls_are_errors(tmp_path) -> None:
    make_store(tmp_path / "s", 2)
    batch = images()
    with pytest.raises(ValueError, match="`masks` must be left out for StoredGenerator"):
        StoredGenerator(tmp_path / "s")(batch, seeds=SEEDS, masks=torch.ones(len(batch), 1, 16, 16))
    with pytest.raises(StoreError, match="is no store"):
        StoredGenerator(tmp_path / "none")(batch, seeds=SEEDS)


def test_no_sample_of_a_normal_is_served_when_a_run_holds_it_out(tmp_path) -> None:
    store = make_store(tmp_path / "s", 4)
    pixels = digest_image(store.path / store.records[0].source_file)
    row = {"name": store.records[2].source, "content": "ab" * 16, "reason": ""}
    (store.path / "normals.jsonl").write_text(json.dumps(row) + "\n")
    generator = MixtureGenerator([StoredGenerator(tmp_path / "s", paired=False)])
    (served,) = generator.wrapped
    assert {pixels, "ab" * 16} < generator.normal_digests
    assert generator.leave_normals_out({pixels}) == 1
    assert [record.index for record in served.kept] == [1, 2, 3]
    assert pixels not in generator.normal_digests
    assert generator.leave_normals_out({"ab" * 16}) == 1  # of another run: the first is served again
    assert [record.index for record in served.kept] == [0, 1, 3]
    with pytest.raises(StoreError, match=r"All 4 samples .* validates or tests on"):
        generator.leave_normals_out(generator.normal_digests | {"ab" * 16})

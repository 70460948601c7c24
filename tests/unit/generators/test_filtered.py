"""Filtered samples: the invariants, what is drawn again and what is given back, and the control."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch

from anomalib_synth.generators import (
    FilteredGenerator,
    MixtureGenerator,
    RuleBasedGenerator,
    build_generator,
)
from anomalib_synth.generators.prepared import PreparedNormals
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.retrieval import FilterSettings, RetrievalFilter
from tests import contract
from tests.unit.retrieval.small import write_bundle

FAMILIES = ["scratch", "hole", "noise", "cutout"]
SEEDS = [3, 1, 4, 1, 5, 9, 2, 6]
NORMALS = contract.render_normals(8, 3, 64, 64, seed=1)
IMAGES = contract.render_normals(8, 3, 64, 64, seed=2)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> FilterSettings:
    embedder = write_bundle(tmp_path_factory.mktemp("bundles") / "small")
    return FilterSettings(embedder=embedder, quantile=0.5)  # half of the normals would fail: a mixture of outcomes


@pytest.fixture
def make(settings):
    def build(**arguments) -> FilteredGenerator:
        return FilteredGenerator(RuleBasedGenerator(FAMILIES), **{"retrieval": settings, "budget": 2, **arguments})

    return build


@pytest.fixture(params=["filter", "random_keep"])
def make_mode(make, request):
    keep = {"keep_share": 0.5} if request.param == "random_keep" else {}
    return lambda: make(mode=request.param, **keep)


def test_some_pass_and_some_do_not(make_mode) -> None:
    sample = make_mode().prepare(NORMALS)(IMAGES[[0, 1, 2, 3] * 8], seeds=range(32))
    assert 0 < int(sample.accepted.sum()) < 32
    assert {record.attempt for record in sample.provenance} == {-1, 0, 1}


def test_replay(make_mode) -> None:
    seeds = [13, 14, 15, 17, 20]
    contract.check_replay(make_mode, IMAGES[[seed % 4 for seed in seeds]], seeds, NORMALS)
    seeds = [0, 2, 4, 11]
    wide = contract.render_normals(48, 3, 48, 70)[seeds]
    contract.check_replay(make_mode, wide, seeds, contract.render_normals(8, 3, 48, 70, seed=1))


def test_purity(make_mode) -> None:
    contract.check_purity(make_mode, IMAGES[:4], SEEDS[:4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("channels", "size"), [(3, (64, 64)), (1, (33, 80)), (3, (12, 40)), (1, (1, 1))])
def test_invariants(make_mode, dtype, channels, size) -> None:
    images = contract.render_normals(4, channels, *size).to(dtype)
    contract.check_all(make_mode, images, SEEDS[:4], prepare_with=contract.render_normals(3, channels, *size, seed=7))


def test_batch_of_none_is_returned_empty(make) -> None:
    assert make().prepare(NORMALS)(torch.zeros(0, 3, 64, 64), seeds=[]).image.shape == (0, 3, 64, 64)


def test_unprepared_it_raises(make_mode) -> None:
    generator = make_mode()
    assert generator.prepare_digest == ""
    with pytest.raises(ValueError, match=r"compares samples with real normals and has none. Call `prepare`"):
        generator(IMAGES[:1], seeds=[1])
    with pytest.raises(ValueError, match="N >= 2"):
        make_mode().prepare(NORMALS[:1])


def test_what_passes_at_once_is_what_the_generator_draws_alone(make, settings) -> None:
    sample = make().prepare(NORMALS)(IMAGES, seeds=SEEDS)
    plain = RuleBasedGenerator(FAMILIES).prepare(NORMALS)(IMAGES, seeds=SEEDS)
    prepared = PreparedNormals.from_images(NORMALS)
    judgements = RetrievalFilter(settings).fit(prepared.donors).judge(plain.source, plain.image, plain.mask)
    assert plain.accepted.all()
    assert [judgement.kept for judgement in judgements] == [record.attempt == 0 for record in sample.provenance]
    for row, judgement in enumerate(judgements):
        if judgement.kept:
            assert torch.equal(sample.image[row], plain.image[row])
            assert sample.caption[row] == plain.caption[row]
            measured = sample.provenance[row].measured
            assert measured["similarity"] == judgement.similarity
            assert measured["loss_of_similarity"] == judgement.drop
            assert measured["smoothed_visibility"] == judgement.visibility
            assert measured["area"] == plain.provenance[row].measured["area"]


def test_what_is_refused_is_drawn_again_with_another_seed(make, settings) -> None:
    sample = make().prepare(NORMALS)(IMAGES, seeds=SEEDS)
    plain = RuleBasedGenerator(FAMILIES).prepare(NORMALS)
    for row, record in enumerate(sample.provenance):
        if record.attempt == 1:
            again = plain(IMAGES[row : row + 1], seeds=[hash64(SEEDS[row], "retrieval", 1)])
            assert torch.equal(again.image[0], sample.image[row])
        assert record.seed == SEEDS[row]
    once, often = (make(budget=n).prepare(NORMALS)(IMAGES, seeds=SEEDS) for n in (1, 6))
    assert int(once.accepted.sum()) < int(often.accepted.sum())
    refused = [reason for reason in once.reason if reason]
    assert all(any(word in reason for word in (": similarity", ": loss", ": smoothed vis")) for reason in refused)
    assert {reason.partition(":")[0] for reason in refused} <= set(FAMILIES)


def test_draws_that_fail_the_generators_checks_keep_its_reason(make) -> None:
    masks = torch.zeros(2, 1, 64, 64)
    masks[:, :, 0, 0] = 1  # no defect is as small as this region
    sample = make().prepare(NORMALS)(IMAGES[:2], seeds=[1, 2], masks=masks)
    assert not sample.accepted.any()
    assert all("foreground share" in reason or "nothing changed" in reason for reason in sample.reason)


def test_the_digest_covers_normals_weights_and_settings(make, settings, tmp_path) -> None:
    generator = make().prepare(NORMALS)
    record = generator(IMAGES[:1], seeds=[1]).provenance[0]
    assert record.prepare_digest == generator.prepare_digest != generator.generator.prepare_digest
    assert record.config == generator.config
    other = FilterSettings(embedder=write_bundle(tmp_path / "other", 1), quantile=0.5)
    looser = FilterSettings(embedder=settings.embedder, quantile=0.4)
    digests = {make(retrieval=each).prepare(NORMALS).prepare_digest for each in (other, looser)}
    digests |= {generator.prepare_digest, make().prepare(NORMALS.flip(-1)).prepare_digest}
    assert len(digests) == 4
    assert make(retrieval=other).weights_hash != make().weights_hash != ""


def test_a_batch_is_judged_at_once_when_draws_are_refused_too(make, monkeypatch) -> None:
    judged = []
    judge = RetrievalFilter.judge
    monkeypatch.setattr(
        RetrievalFilter, "judge", lambda self, *tensors: judged.append(len(tensors[0])) or judge(self, *tensors)
    )
    sample = make(budget=3).prepare(NORMALS)(IMAGES, seeds=SEEDS)
    attempts = [record.attempt for record in sample.provenance]
    assert judged[0] == 8
    assert len(judged) <= 3
    assert sum(judged) == sum(3 if attempt < 0 else attempt + 1 for attempt in attempts)


def test_a_missing_faiss_is_told_before_the_normals_are_measured(make, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)

    def read():
        pytest.fail("the normals were read")
        yield

    with pytest.raises(ImportError, match="needs faiss, which is not installed"):
        make().prepare(read())
    with pytest.raises(ImportError, match="needs faiss, which is not installed"):
        make().use_prepared(PreparedNormals.from_images(NORMALS))


def test_prepared_normals_can_be_shared_and_are_indexed_when_needed(make, tmp_path) -> None:
    prepared = PreparedNormals.from_images(NORMALS)
    generator = make(index_folder=tmp_path / "index")
    generator.use_prepared(prepared)
    assert not (tmp_path / "index").exists()
    contract.assert_same(
        generator(IMAGES, seeds=SEEDS), make(index_folder=tmp_path / "index").prepare(NORMALS)(IMAGES, seeds=SEEDS)
    )
    assert len(list((tmp_path / "index").iterdir())) == 1
    inner = RuleBasedGenerator(FAMILIES).prepare(NORMALS)
    assert FilteredGenerator(inner).prepared is inner.prepared
    generator.use_prepared(PreparedNormals.from_images(NORMALS.flip(-1)))
    generator(IMAGES, seeds=SEEDS)
    assert len(list((tmp_path / "index").iterdir())) == 2


def test_a_config_builds_an_equal_generator(make) -> None:
    generator = make(budget=3, mode="random_keep", keep_share=0.5, seed=9)
    twin = build_generator(copy.deepcopy(generator.config))
    assert twin.config == generator.config
    contract.assert_same(*(each.prepare(NORMALS)(IMAGES, seeds=SEEDS) for each in (generator, twin)))


def test_it_works_in_a_mixture(make) -> None:
    contract.check_replay(
        lambda: MixtureGenerator([make(), RuleBasedGenerator(["nsa"])]), IMAGES[:5], SEEDS[:5], NORMALS
    )


def test_random_keep_keeps_the_share_whatever_it_looks_like(make) -> None:
    generator = make(mode="random_keep", keep_share=0.3, budget=1).prepare(NORMALS)
    seeds = list(range(200))
    kept = generator(IMAGES[[0] * 200], seeds=seeds).accepted
    assert 0.2 < float(kept.float().mean()) < 0.4
    assert torch.equal(generator(IMAGES[[1] * 200], seeds=seeds).accepted, kept)
    reason = next(filter(None, generator(IMAGES, seeds=SEEDS).reason))
    assert reason.endswith("left out at random, 30% are kept")


def test_random_keep_measures_the_share_of_the_filter(make) -> None:
    control = make(mode="random_keep", budget=1).prepare(NORMALS)
    share = control.share
    donors = control.prepared.donors.float() / 255
    filtered = make(budget=1).prepare(NORMALS)
    kept = [bool(filtered(donors[[n % 8]], seeds=[hash64(0, "keep_share", n)]).accepted) for n in range(64)]
    assert share == pytest.approx(np.mean(kept))
    assert 0 < share < 1
    assert make(mode="random_keep", budget=1).prepare(NORMALS).share == share


def test_arguments_that_do_not_fit_are_refused(make, settings) -> None:
    with pytest.raises(TypeError, match="`generator` must be a generator"):
        FilteredGenerator("scratch")
    with pytest.raises(ValueError, match="`budget` must be >= 1, got 0"):
        make(budget=0)
    with pytest.raises(ValueError, match="`mode` must be one of filter, random_keep, got 'keep'"):
        make(mode="keep")
    with pytest.raises(ValueError, match=r"`keep_share` must be in \(0, 1\] and needs mode 'random_keep', got 0.5"):
        make(keep_share=0.5)
    strict = FilterSettings(embedder=settings.embedder, min_visibility=1e6)
    with pytest.raises(ValueError, match=r"cannot be measured: the filter kept none of \d+ trial samples"):
        _ = make(retrieval=strict, mode="random_keep").prepare(NORMALS).share

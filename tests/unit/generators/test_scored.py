"""Scored samples: the invariants, what changes of a sample and what does not, and where weights come from."""

from __future__ import annotations

import warnings

import pytest
import torch

from anomalib_synth.encoders.image_text import LocalDualEncoder, load_encoder
from anomalib_synth.generators import (
    MixtureGenerator,
    RuleBasedGenerator,
    ScoredGenerator,
    build_generator,
)
from anomalib_synth.models import bundle as bundles
from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.dual_encoder import DualEncoder
from anomalib_synth.quality import ImageTextScorer
from tests import contract

FAMILIES = ["scratch", "stain", "hole"]
SEEDS = [3, 1, 4, 1, 5]
NORMALS = contract.render_normals(6, 3, 64, 72, seed=1)


def write_bundle(folder, seed: int) -> str:
    sample = RuleBasedGenerator(FAMILIES)(contract.render_normals(64, 3, 64, 64), seeds=range(64))
    vocabulary = CaptionVocabulary.from_captions(sample.caption)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = DualEncoder(vocabulary_size=len(vocabulary), width=8, dim=16)
    bundles.save_bundle(folder, {"dual_encoder": encoder}, vocabulary, {})
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "first", 0)


@pytest.fixture
def make(folder):
    return lambda: ScoredGenerator(RuleBasedGenerator(FAMILIES), encoder=folder)


@pytest.mark.parametrize("prepare_with", [None, NORMALS], ids=["unprepared", "prepared"])
def test_replay(make, prepare_with) -> None:
    contract.check_replay(make, contract.render_normals(5, 3, 65, 70), SEEDS, prepare_with)


def test_purity(make) -> None:
    contract.check_purity(make, contract.render_normals(4, 3, 40, 40), SEEDS[:4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize(("channels", "size"), [(3, (64, 64)), (1, (33, 80)), (3, (5, 90)), (1, (1, 1))])
def test_invariants(make, dtype, channels, size) -> None:
    images = contract.render_normals(4, channels, *size).to(dtype)
    contract.check_all(make, images, SEEDS[:4])
    contract.check_all(make, images, SEEDS[:4], prepare_with=contract.render_normals(3, channels, *size, seed=7))


def test_batch_of_none_is_returned_empty(make) -> None:
    assert make()(torch.zeros(0, 3, 32, 32), seeds=[]).image.shape == (0, 3, 32, 32)


def test_only_quality_and_provenance_change(make, folder) -> None:
    images = contract.render_normals(5, 3, 64, 64)
    scored, plain = make()(images, seeds=SEEDS), RuleBasedGenerator(FAMILIES)(images, seeds=SEEDS)
    for name in ("source", "image", "mask", "accepted"):
        assert torch.equal(getattr(scored, name), getattr(plain, name))
    assert scored.caption == plain.caption
    assert plain.accepted.all()
    wanted = ImageTextScorer(load_encoder(folder)[0])(plain.image, plain.mask, plain.caption)
    torch.testing.assert_close(scored.quality, plain.quality * (wanted / 0.75).clamp(max=1), rtol=1e-6, atol=0)
    assert len(set(wanted.tolist())) > 1
    for row, record in enumerate(scored.provenance):
        assert record.config == make().config
        assert record.family == plain.provenance[row].family
        assert record.measured["image_text"] == pytest.approx(float(wanted[row]))
        assert record.measured["checks"] == pytest.approx(float(plain.quality[row]))


def test_rows_without_a_defect_keep_quality_one(make) -> None:
    images = contract.render_normals(3, 3, 64, 64)
    masks = torch.ones(3, 1, 64, 64)
    masks[1] = 0
    masks[1, :, 0, 0] = 1  # no defect is as small as this region
    sample = make()(images, seeds=[1, 2, 3], masks=masks)
    assert sample.accepted.tolist() == [True, False, True]
    assert float(sample.quality[1]) == 1
    assert bool((sample.quality[[0, 2]] < 1).all())
    assert sample.provenance[1].measured == {}


def test_a_region_reaches_the_generator(make) -> None:
    masks = torch.zeros(4, 1, 64, 64)
    masks[:, :, :32, :32] = 1
    sample = make()(contract.render_normals(4, 3, 64, 64), seeds=SEEDS[:4], masks=masks)
    inside = (sample.mask * masks).sum((1, 2, 3)) / sample.mask.sum((1, 2, 3))
    assert bool((inside[sample.accepted] >= 0.6).all())


def test_preparing_reaches_the_generator(make) -> None:
    generator = make().prepare(NORMALS)
    assert generator.prepare_digest == generator.generator.prepare_digest != ""
    twin = make()
    twin.use_prepared(generator.prepared)
    assert twin.prepare_digest == generator.prepare_digest
    inner = RuleBasedGenerator(FAMILIES).prepare(NORMALS)
    assert ScoredGenerator(inner).prepare_digest == inner.prepare_digest


def test_a_config_builds_an_equal_generator(folder, tmp_path) -> None:
    generator = ScoredGenerator(
        MixtureGenerator([RuleBasedGenerator(["scratch"]), RuleBasedGenerator(["stain"])], [2, 1]),
        encoder=folder,
        share_of_window=0.75,
        seed=9,
    )
    twin = build_generator(generator.config)
    assert twin.config == generator.config
    images = contract.render_normals(5, 3, 64, 64)
    contract.assert_same(generator(images), twin(images))


def test_it_works_in_a_mixture(make) -> None:
    contract.check_replay(
        lambda: MixtureGenerator([make(), RuleBasedGenerator(["nsa"])]), contract.render_normals(5, 3, 64, 64), SEEDS
    )


def test_the_digest_of_weights_follows_the_weights(make, folder, tmp_path) -> None:
    digest = make().weights_hash
    assert digest == bundles.load_bundle(folder).weights_hash
    other = ScoredGenerator(RuleBasedGenerator(FAMILIES), encoder=write_bundle(tmp_path / "second", 1))
    assert other.weights_hash not in {digest, ""}
    twice = ScoredGenerator(make(), encoder=folder)
    assert twice.weights_hash not in {digest, ""}
    assert MixtureGenerator([RuleBasedGenerator(), make()]).weights_hash not in {digest, ""}
    assert MixtureGenerator([RuleBasedGenerator(), RuleBasedGenerator()]).weights_hash == ""


def test_files_are_those_of_the_generator(tmp_path) -> None:
    part = tmp_path / "part.png"
    part.write_bytes(b"any")
    inner = RuleBasedGenerator(FAMILIES, foreground=part)
    assert ScoredGenerator(inner).files == [part]
    assert ScoredGenerator(inner).files_digest == inner.files_digest != ""


def test_no_encoder_means_the_one_of_the_package(folder, monkeypatch) -> None:
    monkeypatch.setattr(bundles, "DEFAULT", folder)
    images = contract.render_normals(2, 3, 64, 64)
    default = ScoredGenerator(RuleBasedGenerator(FAMILIES))
    assert default.config["init_args"]["encoder"] is None
    named = ScoredGenerator(RuleBasedGenerator(FAMILIES), encoder=folder)
    assert torch.equal(default(images, seeds=[1, 2]).quality, named(images, seeds=[1, 2]).quality)


def test_nothing_is_read_before_it_is_used(tmp_path) -> None:
    generator = ScoredGenerator(RuleBasedGenerator(FAMILIES), encoder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is no bundle"):
        generator(contract.render_normals(1, 3, 32, 32), seeds=[1])


def test_an_open_clip_model_is_asked_for_by_its_name() -> None:
    with pytest.raises(ValueError, match="`pretrained` must name weights for 'ViT-B-32'"):
        _ = ScoredGenerator(RuleBasedGenerator(FAMILIES), encoder="open_clip:ViT-B-32").weights_hash


def test_unknown_words_are_reported_once(folder) -> None:
    encoder, _ = load_encoder(folder)
    assert isinstance(encoder, LocalDualEncoder)
    with pytest.warns(UserWarning, match="does not know these words of captions: purple, zigzag"):
        encoder.encode_captions(["a zigzag scratch", "a purple scratch"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_captions(["a zigzag scratch"])


def test_captions_with_unknown_words_are_left_out_and_said_so(folder) -> None:
    images = contract.render_normals(4, 3, 64, 64)
    generator = ScoredGenerator(RuleBasedGenerator(["burn", "stain"]), encoder=folder)  # no burn is in its vocabulary
    seeds = [1, 2, 3, 4]
    plain = RuleBasedGenerator(["burn", "stain"])(images, seeds=seeds)
    with pytest.warns(UserWarning, match="ScoredGenerator leaves captions with these words unscored.*burn"):
        sample = generator(images, seeds=seeds)
    families = [record.family for record in sample.provenance]
    assert set(families) == {"burn", "stain"}
    for row, (family, record) in enumerate(zip(families, sample.provenance, strict=True)):
        assert ("image_text" in record.measured) == (family == "stain")
        assert record.measured["checks"] == float(plain.quality[row])
        if family == "burn":
            assert float(sample.quality[row]) == float(plain.quality[row])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator(images, seeds=seeds)


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TypeError, match="`generator` must be a generator"):
        ScoredGenerator("scratch")
    with pytest.raises(ValueError, match=r"`share_of_window` must be in \[0, 1\], got 2"):
        ScoredGenerator(RuleBasedGenerator(FAMILIES), share_of_window=2)

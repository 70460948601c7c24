"""Training the dual encoder: what it sees, what it learns, and going on after a stop."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from anomalib_synth.fitting.dual_encoder import (
    GOOD_CAPTIONS,
    WindowViews,
    auroc,
    make_views,
    measure,
    score_retrieval,
    train_dual_encoder,
)
from anomalib_synth.fitting.windows import WindowBatch, WindowSampler
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.seeding import RandomStream
from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.dual_encoder import DualEncoder
from anomalib_synth.quality import ImageTextScorer
from tests.contract import render_normals

FAMILIES = ["scratch", "stain", "hole", "dent"]
GENERATOR = RuleBasedGenerator(FAMILIES, size=(0.3, 0.6), strength=(0.8, 1.0), foreground=None)
HELD_OUT = 2**50


def make_sampler(seed: int = 0) -> WindowSampler:
    return WindowSampler(list(render_normals(8, 3, 96, 96, seed=seed)), GENERATOR, seed=seed)


def make_vocabulary() -> CaptionVocabulary:
    captions = [caption for step in range(4) for caption in make_sampler().draw(step, 64).captions]
    return CaptionVocabulary.from_captions([*captions, *GOOD_CAPTIONS])


def make_encoder(vocabulary: CaptionVocabulary, width: int = 8) -> DualEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DualEncoder(vocabulary_size=len(vocabulary), width=width, dim=32)


class Oracle:
    """An encoder that is shown the answer: the first pixel of an image names its caption."""

    caption_length = 1

    def eval(self) -> Oracle:
        return self

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return F.one_hot((images[:, 0, 0, 0] * 10).round().long(), 8).float()

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.one_hot(tokens[:, 0], 8).float()


def make_answers(count: int) -> tuple[CaptionVocabulary, WindowBatch]:
    vocabulary = CaptionVocabulary(["crack", "dent", "hole", "stain"])
    captions = (vocabulary.words * count)[:count]
    index = vocabulary.encode(captions, length=1)[:, 0]
    image = (index / 10).view(-1, 1, 1, 1).expand(-1, 3, 64, 64).contiguous()
    mask = torch.ones(count, 1, 64, 64)
    batch = WindowBatch(source=image * 0, image=image, mask=mask, captions=captions, families=captions)
    return vocabulary, batch


def test_it_learns_families_and_what_nothing_looks_like() -> None:
    vocabulary, state = make_vocabulary(), torch.get_rng_state()
    encoder, losses = make_encoder(vocabulary, width=16), []
    outcome = train_dual_encoder(
        encoder, vocabulary, make_sampler(), steps=100, batch_size=24, advance=lambda *told: losses.append(told)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert len(losses) == outcome.steps == 100
    found = score_retrieval(encoder, vocabulary, [make_sampler(1).draw(HELD_OUT + step, 64) for step in range(4)])
    assert found["chance"] == 0.25
    assert found["accuracy"] > 0.7
    assert found["caption_auroc"] > 0.8
    assert found["defect_auroc"] > 0.85
    assert set(found["accuracy_by_family"]) == set(FAMILIES)


def test_a_stopped_training_ends_with_the_same_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("anomalib_synth.fitting.training._SAVE_SECONDS", 0.0)
    vocabulary = make_vocabulary()

    def fit(checkpoint=None, stop: int = 0) -> DualEncoder:
        def advance(step: int, _: str) -> None:
            if step == stop:
                raise KeyboardInterrupt

        encoder = make_encoder(vocabulary)
        train_dual_encoder(
            encoder, vocabulary, make_sampler(), steps=8, batch_size=8, checkpoint=checkpoint, advance=advance
        )
        return encoder

    whole, before = fit().state_dict(), make_encoder(vocabulary).state_dict()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "state.pt", stop=5)
    again = fit(tmp_path / "state.pt").state_dict()
    for name, value in whole.items():
        assert torch.equal(value, again[name]), name
    assert any(not torch.equal(value, before[name]) for name, value in whole.items())


def test_equal_captions_are_not_negatives_of_each_other() -> None:
    vocabulary = CaptionVocabulary(["crack", "dent"])
    encoder = make_encoder(vocabulary)
    images, masks = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 1, 64, 64)

    def loss(captions: list[str]) -> float:
        tokens = vocabulary.encode(captions, length=1)
        with torch.no_grad():
            return float(measure(encoder, WindowViews(images=images, masks=masks, captions=captions, tokens=tokens))[0])

    # all are positives: the text side is even whatever the images, and so is the target
    rows = (
        encoder.logit_scale.detach()
        * encoder.encode_image(images).detach()
        @ encoder.encode_text(vocabulary.encode(["crack"], length=1)).detach().T
    )
    by_hand = (0 + (math.log(4) * 0 - rows.log_softmax(0).mean() - math.log(4))) / 2
    assert loss(["crack"] * 4) == pytest.approx(float(by_hand), abs=1e-4)
    assert loss(["crack"] * 4) < loss(["crack", "dent", "crack", "dent"])


def test_the_places_count_scratches_of_one_pixel() -> None:
    vocabulary = CaptionVocabulary(["crack"])
    encoder = make_encoder(vocabulary)
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 0, :] = 1  # an eighth of the upper row of places
    views = WindowViews(
        images=torch.full((1, 3, 64, 64), 0.5),
        masks=masks,
        captions=["crack"],
        tokens=vocabulary.encode(["crack"], length=1),
    )
    with torch.no_grad():
        places = encoder.look(views.images)[1]
        wanted = torch.zeros_like(places)
        wanted[..., 0, :] = 1
        by_hand = 4 * F.binary_cross_entropy(places.sigmoid(), wanted)
        assert float(measure(encoder, views)[1]) == pytest.approx(float(by_hand), rel=1e-4)


def test_half_of_the_views_are_what_the_score_looks_at() -> None:
    batch, vocabulary = make_sampler().draw(0, 24), make_vocabulary()
    views = make_views(batch, GOOD_CAPTIONS, vocabulary, 16, RandomStream(1))
    count = len(batch.captions)
    assert views.images.shape == (2 * count, 3, 64, 64)
    assert torch.equal(views.tokens, vocabulary.encode(views.captions, length=16))

    class Recorder:
        image_size = 64

        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images[0])
            return torch.ones(len(images), 1)

        def encode_captions(self, captions) -> torch.Tensor:
            return torch.ones(len(captions), 1)

    is_good = [caption in GOOD_CAPTIONS for caption in views.captions]
    assert 0 < sum(is_good) < count
    for row in range(count):
        for images, good in ((batch.image, False), (batch.source, True)):
            seen: list[torch.Tensor] = []
            ImageTextScorer(Recorder())(images[row : row + 1], batch.mask[row : row + 1], [""])
            for view in (0, 1):
                place = 2 * row + view
                if is_good[place] == good:
                    assert torch.equal(views.images[place], seen[view])
                    assert views.masks[place].any() == (not good)
                    assert views.captions[place] == batch.captions[row] or good


def test_a_vocabulary_without_words_for_good_parts_is_refused() -> None:
    vocabulary = CaptionVocabulary(["a", "scratch"])
    with pytest.raises(ValueError, match="`vocabulary` must have the words of one of 'a good part', 'no defect'"):
        train_dual_encoder(make_encoder(vocabulary), vocabulary, make_sampler(), steps=1)


def test_an_oracle_recognises_everything() -> None:
    vocabulary, batch = make_answers(12)
    found = score_retrieval(Oracle(), vocabulary, [batch])
    assert found["windows"] == 12
    assert found["accuracy"] == 1
    assert found["accuracy_by_family"] == dict.fromkeys(["crack", "dent", "hole", "stain"], 1.0)
    assert found["chance"] == 0.25
    assert found["caption_auroc"] == found["defect_auroc"] == found["whole"]["caption_auroc"] == 1


def test_an_encoder_that_sees_nothing_is_at_chance() -> None:
    vocabulary, batch = make_answers(12)
    blind = WindowBatch(**{**vars(batch), "image": batch.source})
    found = score_retrieval(Oracle(), vocabulary, [blind])
    assert found["accuracy"] == pytest.approx(0.25)
    assert found["defect_auroc"] == 0.5


def test_auroc_counts_pairs_and_halves_ties() -> None:
    assert auroc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])) == (1 + 1 + 1 + 0.5) / 4

"""The bundle that comes with the package: there, small, licensed, and it does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.fitting.vocabulary import caption_families
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from anomalib_synth.models.bundle import DEFAULT, load_bundle
from anomalib_synth.models.editing import edit_window
from tests.contract import render_normals


@pytest.fixture(scope="module")
def generator() -> AutoregressiveGenerator:
    return AutoregressiveGenerator()


def test_it_is_small_and_says_what_it_was_made_of() -> None:
    assert sum(file.stat().st_size for file in DEFAULT.iterdir()) <= 8 * 2**20
    card = load_bundle().card
    assert set(card["inputs"].values()) <= {"Apache-2.0", "public domain or CC0"}
    assert card["reconstruction_psnr_db"]["tokens"] > 26
    assert card["token_model"]["best"] < 5.2
    assert len(card["normals_hash"]) == 32


def test_it_knows_every_word_of_the_captions_and_draws_from_what_is_around() -> None:
    bundle = load_bundle()
    assert {word for caption in caption_families() for word in bundle.vocabulary.find_unknown(caption)} == set()
    assert bundle.token_model().context_only
    assert bundle.token_model().mask_cells == bundle.tokenizer().patch


def test_another_noun_changes_more_than_another_seed(generator) -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:44, 20:44] = 1
    inside = mask.expand(1, 3, -1, -1) > 0
    nouns, seeds = 0.0, 0.0
    for seed in range(10):
        window, options = render_normals(1, 3, 64, 64, seed=seed), {"sampling": generator.sampling}
        first, noun, again = (
            edit_window(generator.backend, window, mask, text, seed=number, **options).image.clamp(0, 1)[inside]
            for text, number in (("a dark stain", seed), ("a dark hole", seed), ("a dark stain", 100 + seed))
        )
        nouns += float((first - noun).abs().mean())
        seeds += float((first - again).abs().mean())
    assert nouns > seeds


@pytest.mark.parametrize("family", ["scratch", "fibre", "misprint", "thread_pull"])
def test_a_thin_type_is_about_as_visible_as_by_rules(family) -> None:
    images = render_normals(6, 3, 192, 192)
    options = {"strength": (1.0, 1.0), "size": (0.15, 0.25), "foreground": None}
    rules = RuleBasedGenerator([family], **options)(images, seeds=list(range(6)))
    prompts = [caption.rpartition(",")[0] or "a scratch" for caption in rules.caption]
    edits = AutoregressiveGenerator(**options)(images, seeds=list(range(6)), prompts=prompts)
    assert edits.accepted.all()
    seen = [np.median([each.measured["visibility"] for each in sample.provenance]) for sample in (edits, rules)]
    assert seen[0] > 0.7 * seen[1]


def test_dark_is_darker_than_bright(generator) -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 22:42, 22:42] = 1
    inside = mask.expand(1, 3, -1, -1) > 0
    right = 0
    for seed in range(12):
        window = render_normals(1, 3, 64, 64, seed=seed)
        means = [
            float(
                edit_window(generator.backend, window, mask, text, seed=seed, sampling=generator.sampling)
                .image[inside]
                .mean()
            )
            for text in ("a dark scratch, high contrast", "a bright scratch, high contrast")
        ]
        right += means[0] < means[1]
    assert right >= 11


def test_it_draws_without_any_argument(generator) -> None:
    images = render_normals(8, 3, 128, 128)
    sample = generator(images, seeds=list(range(8)))
    assert int(sample.accepted.sum()) >= 6
    assert all(sample.caption[row] for row in sample.accepted.nonzero().flatten().tolist())

"""The words that a bundle knows."""

from __future__ import annotations

import pytest

from anomalib_synth.fitting.vocabulary import caption_families, find_vocabulary
from anomalib_synth.fitting.windows import WindowSampler
from anomalib_synth.generators import AutoregressiveGenerator, RuleBasedGenerator
from anomalib_synth.generators.families import PHYSICAL
from anomalib_synth.generators.windows import find_shape
from anomalib_synth.models.captions import CaptionVocabulary, split_words
from tests.contract import render_normals


def test_every_word_that_a_draw_may_have_is_known_when_the_windows_have_few() -> None:
    sampler = WindowSampler(list(render_normals(2, 3, 64, 64)), RuleBasedGenerator(["dent"], foreground=None), size=64)
    known = find_vocabulary(sampler, windows=64)
    for family in PHYSICAL:
        for size in ((0.01, 0.05), (0.04, 0.25), (0.3, 1.0)):
            shapes = RuleBasedGenerator([family], size=size, strength=(0.1, 1.0))
            for seed in range(60):
                drawn, params = shapes.make_params(seed, 256, 200)
                assert known.find_unknown(drawn.caption(params)) == []
    assert {"small", "short", "thin", "large", "long", "low", "medium", "high", "contrast", "good"} <= set(known.words)


def test_every_caption_of_the_generator_is_known_when_it_draws_by_itself() -> None:
    known = CaptionVocabulary.from_captions([*caption_families()])
    shapes = AutoregressiveGenerator().shapes
    for seed in range(200):
        for side in (64, 256, 1000):
            family, params = find_shape(shapes, None, seed, side, side)
            assert known.find_unknown(f"{family.caption(params)}, high contrast") == []


@pytest.mark.parametrize("family", PHYSICAL)
def test_a_familys_captions_say_more_than_its_name(family) -> None:
    captions = [caption for caption in caption_families() if split_words(family)[0] in caption.replace("pulled ", "")]
    assert len(set(captions)) > 3 or family in {"thread_pull", "corrosion"}

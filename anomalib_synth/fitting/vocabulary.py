"""Collects the words that captions use, for the vocabulary of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anomalib_synth.fitting.dual_encoder import GOOD_CAPTIONS
from anomalib_synth.fitting.tokenizer import HELD_OUT_STEP
from anomalib_synth.generators.families import PHYSICAL, REGISTRY
from anomalib_synth.generators.families.family import Frame, contrast_word
from anomalib_synth.generators.seeding import RandomStream, hash64
from anomalib_synth.models.captions import CaptionVocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anomalib_synth.fitting.windows import WindowSampler

_WINDOWS = 4096
_DRAWS = 400
_SIDES = (32, 64, 128, 256, 512, 1024)
_SIZES = ((0.01, 0.1), (0.05, 0.3), (0.2, 1.0))
_STRENGTHS = (0.3, 0.6, 0.9)


def find_vocabulary(
    sampler: WindowSampler, *, windows: int = _WINDOWS, advance: Callable[[int, str], None] = lambda step, text: None
) -> CaptionVocabulary:
    """Return the words of the captions of ``windows`` drawn windows and of the physical families at many sizes."""
    captions = [*GOOD_CAPTIONS, *caption_families()]
    for step in range(0, windows, 64):
        captions += sampler.draw(HELD_OUT_STEP + step, 64).captions
        advance(step + 64, "")
    return CaptionVocabulary.from_captions(captions)


def caption_families() -> Iterator[str]:
    """Yield captions of all physical families, for defects and images of many sizes."""
    for family in map(REGISTRY.__getitem__, PHYSICAL):
        for number in range(_DRAWS):
            rng = RandomStream(hash64("caption", family.name, number))
            side = rng.choice(_SIDES)
            params = family.draw(rng, Frame(height=side, width=side, size=rng.choice(_SIZES)))
            yield f"{family.caption(params)}, {contrast_word(rng.choice(_STRENGTHS))}"

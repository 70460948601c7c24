"""A bundle of tiny models with random weights, for tests of everything but what they learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models.bundle import Bundle, save_bundle
from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.dual_encoder import DualEncoder
from anomalib_synth.models.token_transformer import TokenTransformer
from anomalib_synth.models.tokenizer import WindowTokenizer

if TYPE_CHECKING:
    from pathlib import Path


def make_models(seed: int = 0) -> dict[str, torch.nn.Module]:
    """Return tokenizer, token transformer and dual encoder, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = WindowTokenizer(channels=8, width=16, depth=1, codebook_size=32)
        tokenizer.codebooks.normal_(std=0.5)
        model = TokenTransformer(
            channels=8, codebook_size=32, num_scales=7, vocabulary_size=len(vocabulary()), dim=32, depth=2, heads=2
        )
        dual = DualEncoder(vocabulary_size=len(vocabulary()), dim=16, width=8)
    return {"tokenizer": tokenizer.eval(), "token_model": model.eval(), "dual_encoder": dual.eval()}


def vocabulary() -> CaptionVocabulary:
    """Return the words of a few hundred captions of the physical families."""
    generator = RuleBasedGenerator(["scratch", "stain", "dent"])
    draws = [generator.make_params(seed, 128, 128) for seed in range(200)]
    captions = [f"{family.caption(params)}, high contrast" for family, params in draws]
    return CaptionVocabulary.from_captions([*captions, "a good part"])


def make_bundle(path: Path, seed: int = 0) -> Bundle:
    """Write the models to a folder."""
    return save_bundle(path, make_models(seed), vocabulary(), {"note": "random weights"}, half=False)

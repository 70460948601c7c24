"""A Janus checkpoint of random weights in the format of transformers: 64 pixels, 4 x 4 image tokens, 32 of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["A", "close", "-", "up", "photo", "of", "a", "surface", "with", "dark", "bright", "thin", "scratch", "."]
SPECIAL = {
    "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
    "image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>",
}  # fmt: skip


def make_janus(path: Path, *, chat_template: str | None = None) -> Path:
    """Write model and processor with `save_pretrained`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        JanusConfig,
        JanusForConditionalGeneration,
        JanusImageProcessor,
        JanusProcessor,
        JanusVisionConfig,
        JanusVQVAEConfig,
        LlamaConfig,
        PreTrainedTokenizerFast,
    )  # fmt: skip

    ids = {word: number for number, word in enumerate(dict.fromkeys([*SPECIAL.values(), *WORDS]))}
    words = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", ids["<s>"])])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        **{name: SPECIAL[name] for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
        extra_special_tokens={name: SPECIAL[name] for name in ("image_token", "boi_token", "eoi_token")},
    )
    config = JanusConfig(
        text_config=LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16,
            projection_dim=32, num_image_tokens=16,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=4, num_embeddings=32, latent_channels=32, base_channels=32, channel_multiplier=[1, 1, 1, 1, 1],
            num_res_blocks=1, projection_dim=32, image_token_embed_dim=32,
        ),
        image_token_id=ids["<image>"],
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = JanusForConditionalGeneration(config)
        for (
            name,
            weight,
        ) in model.named_parameters():  # so that texts differ enough to matter
            if "language_model" in name or "generation" in name:
                weight.data.mul_(6 if weight.ndim > 1 else 1)
        model.model.vqmodel.quantize.embedding.weight.data.normal_()
    model.generation_config.pad_token_id = ids["<pad>"]
    model.generation_config.bos_token_id = ids["<s>"]
    model.save_pretrained(path)
    processor = JanusProcessor(
        JanusImageProcessor(size={"height": 64, "width": 64}), tokenizer, chat_template=chat_template,
        num_image_tokens=16,
    )  # fmt: skip
    processor.save_pretrained(path)
    return path

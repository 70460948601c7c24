"""A checkpoint of StableDiffusionInstructPix2PixPipeline with random weights: 32 pixels, latents of 4 x 4 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.fitting.byte_pairs import make_clip_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

LENGTH = 16


def make_parts(path: Path, *, channels: int) -> dict[str, object]:
    """Return autoencoder, UNet, text encoder, tokenizer and scheduler."""
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = make_clip_tokenizer(["add a thin dark scratch", "a round stain"], path / "tokenizer", length=LENGTH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=LENGTH, pad_token_id=len(tokenizer) - 1,
            bos_token_id=len(tokenizer) - 2, eos_token_id=len(tokenizer) - 1,
        )  # fmt: skip
        parts = {
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
                block_out_channels=(8, 8, 8), norm_num_groups=4, latent_channels=4, sample_size=32,
            ),
            "unet": UNet2DConditionModel(
                sample_size=8, in_channels=channels, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16, attention_head_dim=8,
                norm_num_groups=4,
            ),
            "text_encoder": CLIPTextModel(text),
        }  # fmt: skip
        for weight in parts["text_encoder"].parameters():  # so that texts differ enough to matter
            weight.data.mul_(20 if weight.ndim > 1 else 1)
    return {**parts, "tokenizer": tokenizer, "scheduler": DPMSolverMultistepScheduler(timestep_spacing="trailing")}


def make_pipeline(path: Path, *, inpainting: bool = False, safe: bool = True) -> Path:
    """Write the pipeline with `save_pretrained`."""
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionInstructPix2PixPipeline

    kind = StableDiffusionInpaintPipeline if inpainting else StableDiffusionInstructPix2PixPipeline
    parts = make_parts(path.parent / f"{path.name}_parts", channels=9 if inpainting else 8)
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    kind(**parts, **none).save_pretrained(path, safe_serialization=safe)
    return path

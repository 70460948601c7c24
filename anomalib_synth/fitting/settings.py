"""Settings of the fits: how long local models are trained, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How long to train, and how large.

    Args:
        window: Side in pixels of the training windows, a multiple of 64.
        frame: Largest side in pixels of the piece of an image on which a defect is drawn, >= ``window``; sizes in
            captions are relative to this piece.
        autoencoder_steps: Steps of the autoencoder at most, >= 1.
        token_steps: Steps of the token transformer at most, >= 1.
        dual_steps: Steps of the dual encoder at most, >= 1.
        width: Channels inside the autoencoder, >= 1.
        dim: Width of the token transformer, a multiple of 16.
        depth: Layers of the token transformer, >= 1.
        codebook_size: Tokens per scale, >= 1.
        text_encoder: ``open_clip:MODEL:PRETRAINED`` lets the token model read texts with a pretrained text tower, whose
            weights must also be available when it draws. None gives the model its own embeddings of the captions'
            words.
        held_out: Share of the normals that is not trained on, in (0, 1); at least one image.
        seed: Seed of everything.

    Raises:
        ValueError: If a value other than ``dim`` is out of its range; ``dim`` is checked when the model is made.
    """

    window: int = 64
    frame: int = 256
    autoencoder_steps: int = 1500
    token_steps: int = 1500
    dual_steps: int = 1500
    width: int = 64
    dim: int = 128
    depth: int = 5
    codebook_size: int = 512
    text_encoder: str | None = None
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.window < 64 or self.window % 64:
            msg = f"`window` must be a multiple of 64, got {self.window}."
            raise ValueError(msg)
        if self.frame < self.window:
            msg = f"`frame` must be >= `window` = {self.window}, got {self.frame}."
            raise ValueError(msg)
        if not 0 < self.held_out < 1:
            msg = f"`held_out` must be in (0, 1), got {self.held_out}."
            raise ValueError(msg)
        for name in ("autoencoder_steps", "token_steps", "dual_steps", "codebook_size", "width", "depth"):
            if getattr(self, name) < 1:
                msg = f"`{name}` must be >= 1, got {getattr(self, name)}."
                raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class DiffusionFitSettings:
    """How long to train a pipeline, and how large.

    Args:
        pairs: Number of windows with a defect to train on, >= 64.
        autoencoder_steps: Steps of the autoencoder at most, >= 1.
        diffusion_steps: Steps of denoiser and text encoder at most, >= 1.
        autoencoder_width: Channels of the autoencoder at full resolution, a multiple of 8.
        width: Channels of the denoiser at the resolution of the latents, a multiple of 8.
        text_width: Width of the text encoder, a multiple of 8.
        no_text: Share of pairs trained without their caption, in [0, 1).
        no_image: Share of pairs trained without caption and image, in [0, 1); the sum with ``no_text`` must be below 1.
        held_out: Share of the normals that is not trained on, in (0, 1); at least one image.
        seed: Seed of everything.

    Raises:
        ValueError: If a value is out of its range.
    """

    pairs: int = 3072
    autoencoder_steps: int = 1200
    diffusion_steps: int = 1500
    autoencoder_width: int = 16
    width: int = 64
    text_width: int = 64
    no_text: float = 0.1
    no_image: float = 0.05
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name, least in (("pairs", 64), ("autoencoder_steps", 1), ("diffusion_steps", 1)):
            if getattr(self, name) < least:
                msg = f"`{name}` must be >= {least}, got {getattr(self, name)}."
                raise ValueError(msg)
        for name in ("autoencoder_width", "width", "text_width"):
            if getattr(self, name) < 8 or getattr(self, name) % 8:
                msg = f"`{name}` must be a multiple of 8, got {getattr(self, name)}."
                raise ValueError(msg)
        if min(self.no_text, self.no_image) < 0 or self.no_text + self.no_image >= 1:
            msg = f"`no_text` and `no_image` must be >= 0 and together < 1, got {self.no_text} and {self.no_image}."
            raise ValueError(msg)
        if not 0 < self.held_out < 1:
            msg = f"`held_out` must be in (0, 1), got {self.held_out}."
            raise ValueError(msg)

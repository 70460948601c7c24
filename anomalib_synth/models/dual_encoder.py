"""A small image-text dual encoder: turns windows and captions into vectors that can be compared."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_synth.models.captions import PADDING

IMAGE_SIZE = 64
MAX_LOGIT_SCALE = 100.0
_GROUPS = 8


class DualEncoder(nn.Module):
    """Encodes image windows and captions into one space, in which a window is close to its caption.

    As in CLIP (arXiv 2103.00020): two towers, unit vectors, a learned logit scale of at most 100. The model is trained
    within minutes on a product's own normals and ships with the package, so it is much smaller than CLIP. It differs in
    these parts: a small convnet in place of a ViT; its features are averaged with attention to places that look like a
    defect *and* maximised over the window, so that a defect of few pixels is not averaged away; group normalisation, so
    that a result never depends on the batch; whole words in place of byte pairs; one transformer layer; and the mean
    over the words in place of an end token.

    Args:
        vocabulary_size: Number of word indices, padding and unknown words included.
        dim: Length D of the vectors, and width of the text tower; a multiple of 4.
        width: Channels of the first convolution, a multiple of 8; the later stages have two and three times as many.
        caption_length: Number L of words of a caption that are read.

    Shape:
        - images: (B, 3, S, S) float32 in [0, 1], S a multiple of 8; trained at S = 64
        - tokens: (B, L) int64, 0 is padding
        - result: (B, D) float32, rows of unit length

    Raises:
        ValueError: If ``dim`` or ``width`` is not such a multiple.

    Example:
        >>> encoder = DualEncoder(vocabulary_size=50)
        >>> encoder.encode_image(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(self, *, vocabulary_size: int, dim: int = 64, width: int = 32, caption_length: int = 16) -> None:
        super().__init__()
        if dim < 4 or dim % 4 or width < 8 or width % 8:
            msg = f"`dim` must be a multiple of 4 and `width` a multiple of 8, both > 0, got {dim} and {width}."
            raise ValueError(msg)
        self.config: dict[str, Any] = {
            "vocabulary_size": vocabulary_size, "dim": dim, "width": width, "caption_length": caption_length,
        }  # fmt: skip
        self.caption_length = caption_length
        self.image_tower = ImageTower(dim, width)
        self.text_tower = TextTower(vocabulary_size, dim, caption_length)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Return the vectors of images: (B, 3, S, S) in [0, 1] -> (B, D)."""
        return self.look(images)[0]

    def look(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors of images, and logits (B, 1, S / 8, S / 8) that say where they look like a defect."""
        features, places = self.image_tower(images * 2 - 1)
        return F.normalize(features, dim=1), places

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the vectors of captions: (B, L) -> (B, D)."""
        return F.normalize(self.text_tower(tokens), dim=1)

    @property
    def logit_scale(self) -> torch.Tensor:
        """Factor that turns cosines into logits, at most 100."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)


class ImageTower(nn.Module):
    """A convnet with three resolutions: (B, 3, S, S) in [-1, 1] -> (B, dim), and logits (B, 1, S / 8, S / 8)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, width, 3, padding=1),
            _Down(width, 2 * width),
            _Residual(2 * width),
            _Down(2 * width, 3 * width),
            _Residual(3 * width),
            nn.GroupNorm(_GROUPS, 3 * width),
            nn.SiLU(),
        )
        self.place = nn.Conv2d(3 * width, 1, 1)
        self.head = nn.Linear(6 * width, dim)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features pooled by attention and by maximum, and the logits that the attention comes from."""
        features = self.layers(x)
        places = self.place(features)
        attended = (features * places.flatten(2).softmax(2).view_as(places)).sum((2, 3))
        return self.head(torch.cat([attended, features.amax((2, 3))], dim=1)), places


class TextTower(nn.Module):
    """Word and position embeddings, one transformer layer, mean over the words: (B, L) -> (B, dim)."""

    def __init__(self, vocabulary_size: int, dim: int, length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, dim)
        self.places = nn.Parameter(0.1 * torch.randn(length, dim))
        self.heads = 4
        self.norm_attention, self.norm_mlp, self.norm = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.mix = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.head = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the features of captions; padding is ignored."""
        is_word = tokens != PADDING
        x = self.words(tokens) + self.places[: tokens.shape[1]]
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        logits = (q @ k.mT) * q.shape[-1] ** -0.5
        # a finite value, so that a caption without words does not give NaN
        attention = logits.masked_fill(~is_word[:, None, None], -1e4).softmax(-1)
        x = x + self.mix((attention @ v).transpose(1, 2).flatten(2))
        x = self.norm(x + self.mlp(self.norm_mlp(x)))
        weight = is_word.unsqueeze(2).to(x.dtype)
        return self.head((x * weight).sum(1) / weight.sum(1).clamp_min(1))


class _Down(nn.Sequential):
    """Normalise, then halve the resolution: (B, i, h, w) -> (B, o, h / 2, w / 2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.GroupNorm(_GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, stride=2, padding=1))


class _Residual(nn.Module):
    """A residual block of one convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.GroupNorm(_GROUPS, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, h, w) -> the same shape."""
        return x + self.layers(x)

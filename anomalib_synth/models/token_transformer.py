"""Predicts the tokens inside a mask, scale by scale, from the source, the mask and a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from anomalib_synth.models.captions import PADDING
from anomalib_synth.models.tokenizer import pool

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Queries:
    """The tokens to predict, of all windows of a batch, in one list.

    Shape:
        - ``features``: (N, C) latents so far, pooled at each token
        - ``context``: (N, D) context at each token; ``window``, ``scale``: (N,) int64 indices; ``place``: (N, 2) row
          and column of the token's centre, in latents
    """

    features: torch.Tensor
    context: torch.Tensor
    window: torch.Tensor
    scale: torch.Tensor
    place: torch.Tensor

    @classmethod
    def at(cls, gate: torch.Tensor, f: torch.Tensor, context: torch.Tensor, *, scale: int, stride: int) -> Queries:
        """Return the queries of one scale.

        Args:
            gate: (B, h, h) bool, the tokens to predict.
            f: (B, C, g, g) the latents before this scale.
            context: (B, D, g, g), the result of :meth:`TokenTransformer.look`.
            scale: Index of the scale.
            stride: Side of the scale's tokens, in latents.
        """
        window, row, column = gate.nonzero(as_tuple=True)
        return cls(
            features=pool(f, stride)[window, :, row, column],
            context=pool(context, stride)[window, :, row, column],
            window=window,
            scale=torch.full_like(window, scale),
            place=(torch.stack([row, column], 1) + 0.5) * stride,
        )

    @classmethod
    def join(cls, parts: Sequence[Queries]) -> Queries:
        """Return the queries of several scales as one list, coarse to fine."""
        names = ("features", "context", "window", "scale", "place")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


class TokenTransformer(nn.Module):
    """Next-scale prediction (VAR, arXiv 2404.02905, section 3) of the tokens inside a mask.

    A convolutional net encodes the source's latents and the mask; with ``context_only``, the source comes with the
    inside of the mask hidden. Every token to predict attends to the tokens of its own and of coarser scales, and to the
    words of the text. Tokens outside the mask are the source's and are neither predicted nor computed, so the cost
    grows with the mask's area. This differs from VAR, as do the rotary positions (arXiv 2104.09864) in units of
    latents, which allow windows of any size.

    Args:
        channels: Channels C of the latents.
        codebook_size: Number V of tokens per scale.
        num_scales: Number of scales K.
        frozen_scales: Number of coarse scales that keep the source's tokens, and so its structure, in [0, K).
        vocabulary_size: Number of word indices.
        caption_length: Number L of words of a text.
        text_channels: Length E of a text's vector if a pretrained encoder reads the texts; None for words.
        mask_cells: Cells per side of a latent in which the mask is given; several show where a thin line lies in the
            latent.
        context_only: Whether the model is trained on sources with the inside of the mask hidden
            (:func:`anomalib_synth.models.filling.fill_from_around`), and so needs it hidden when it draws.
        dim: Width D, a multiple of 4 x ``heads``.
        depth: Number of transformer layers.
        heads: Attention heads per layer.

    Shape:
        - ``z``: (B, C, g, g); ``mask``: (B, 1, g x ``mask_cells``, g x ``mask_cells``)
        - ``words``: (B, L) int64, or (B, E) float
        - logits: (N, V), one row per query

    Raises:
        ValueError: If ``frozen_scales`` or ``dim`` is out of its range.
    """

    def __init__(
        self,
        *,
        channels: int,
        codebook_size: int,
        num_scales: int,
        frozen_scales: int = 2,
        vocabulary_size: int,
        caption_length: int = 16,
        dim: int = 128,
        depth: int = 5,
        heads: int = 4,
        text_channels: int | None = None,
        mask_cells: int = 1,
        context_only: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= frozen_scales < num_scales:
            msg = f"`frozen_scales` must be in [0, {num_scales}), the number of scales, got {frozen_scales}."
            raise ValueError(msg)
        if dim % (4 * heads):
            msg = f"`dim` must be a multiple of 4 x `heads` = {4 * heads}, got {dim}."
            raise ValueError(msg)
        self.config: dict[str, Any] = {
            "channels": channels, "codebook_size": codebook_size, "num_scales": num_scales,
            "frozen_scales": frozen_scales, "vocabulary_size": vocabulary_size, "caption_length": caption_length,
            "dim": dim, "depth": depth, "heads": heads, "text_channels": text_channels, "mask_cells": mask_cells,
            "context_only": context_only,
        }  # fmt: skip
        self.frozen_scales, self.caption_length, self.context_only = frozen_scales, caption_length, context_only
        self.mask_cells = mask_cells
        self.context = ContextNet(channels + mask_cells**2, dim)
        self.features = nn.Linear(channels, dim)
        self.scales = nn.Embedding(num_scales, dim)
        self.text_channels = text_channels
        self.words: nn.Module = (
            nn.Linear(text_channels, dim) if text_channels else nn.Embedding(vocabulary_size, dim, padding_idx=PADDING)
        )
        self.word_places = nn.Parameter(torch.zeros(1 if text_channels else caption_length, dim))
        self.no_text = nn.Parameter(torch.randn(dim) * 0.02)
        self.text = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.ModuleList(TransformerLayer(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.heads = nn.ModuleList(nn.Linear(dim, codebook_size) for _ in range(num_scales - frozen_scales))

    def look(self, z: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the context of every latent, (B, D, g, g), from the source's latents and the mask."""
        return self.context(torch.cat([z, F.pixel_unshuffle(mask, self.mask_cells)], 1))

    def read(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the text's features and which of them are padding; a row of padding only means no text.

        Args:
            words: (B, L) int64; with ``text_channels`` (B, E) float.

        Returns:
            Features (B, 1 + L, D), and (B, 1 + L) bool, True for padding; with ``text_channels``, L is 1.
        """
        if self.text_channels:
            words = words[:, None]
        is_padding = (words == 0).all(-1) if self.text_channels else words == PADDING
        padding = F.pad(is_padding, (1, 0), value=False)
        first = self.no_text.expand(len(words), 1, -1)
        x_BLD = torch.cat([first, self.words(words) + self.word_places], 1)  # noqa: N806
        return self.text(x_BLD, src_key_padding_mask=padding), padding

    def forward(
        self, queries: Queries, text: tuple[torch.Tensor, torch.Tensor], *, last_scale: int | None = None
    ) -> torch.Tensor:
        """Return the logits of queries, which must be ordered from coarse to fine within each window.

        Args:
            queries: The tokens to predict.
            text: The result of :meth:`read`, one row per window.
            last_scale: If set, return the rows of this scale only.
        """
        x_ND = self.features(queries.features) + queries.context + self.scales(queries.scale)  # noqa: N806
        pack = Packing(queries.window, queries.scale)
        turn = rotation(pack.spread(queries.place), x_ND.shape[1] // self.layers[0].heads)
        for layer in self.layers:
            x_ND = layer(x_ND, pack, turn, text)  # noqa: N806
        x_ND = self.norm(x_ND)  # noqa: N806
        if last_scale is not None:
            return self.heads[last_scale - self.frozen_scales](x_ND[queries.scale == last_scale])
        logits = x_ND.new_zeros(len(x_ND), self.heads[0].out_features)
        for offset, head in enumerate(self.heads):
            rows = queries.scale == offset + self.frozen_scales
            logits[rows] = head(x_ND[rows])
        return logits


class ContextNet(nn.Module):
    """Dilated convolutions: each position sees 22 latents in every direction."""

    def __init__(self, channels: int, dim: int, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.rest = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (2, 4, 8, 4, 2, 1))
        self.last = nn.Conv2d(width, dim, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, g, g) -> (B, dim, g, g)."""
        x = self.first(x)
        for conv in self.rest:
            x = x + conv(F.gelu(x))
        return self.last(F.gelu(x))


class Packing:
    """Converts between a list of tokens, which wastes no work, and the padded table that attention needs."""

    def __init__(self, window: torch.Tensor, scale: torch.Tensor) -> None:
        order = torch.argsort(window, stable=True)
        counts = torch.bincount(window)
        starts = torch.cumsum(counts, 0) - counts
        slot = torch.empty_like(window)
        slot[order] = torch.arange(len(window), device=window.device) - starts[window[order]]
        self.window, self.slot = window, slot
        self.shape = (len(counts), int(counts.max()))
        scales = self.spread(scale + 1)  # 0 where there is no token
        self.sees = (scales[:, None, :] <= scales[:, :, None]) & (scales[:, None, :] > 0)
        self.sees |= torch.eye(self.shape[1], dtype=torch.bool, device=window.device)  # an empty row would give NaN

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """(N, ...) -> (B, T, ...), zeros where a window has fewer tokens."""
        table = values.new_zeros(*self.shape, *values.shape[1:])
        table[self.window, self.slot] = values
        return table

    def gather(self, table: torch.Tensor) -> torch.Tensor:
        """(B, T, ...) -> (N, ...)."""
        return table[self.window, self.slot]


class TransformerLayer(nn.Module):
    """Attention among tokens, attention to the text, and a feed-forward net, each after a normalisation."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, dim)
        self.text = nn.Linear(dim, 2 * dim)
        self.text_out = nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(
        self,
        x_ND: torch.Tensor,  # noqa: N803
        pack: Packing,
        turn: tuple[torch.Tensor, torch.Tensor],
        text: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """(N, D) -> (N, D)."""
        q, k, v = (self._split(t) for t in pack.spread(self.qkv(self.norms[0](x_ND))).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v, attn_mask=pack.sees[:, None])
        x_ND = x_ND + self.out(pack.gather(mixed.transpose(1, 2).flatten(2)))  # noqa: N806
        words, padding = text
        q = self._split(pack.spread(self.query(self.norms[1](x_ND))))
        k, v = (self._split(t) for t in self.text(words).chunk(2, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=~padding[:, None, None])
        x_ND = x_ND + self.text_out(pack.gather(mixed.transpose(1, 2).flatten(2)))  # noqa: N806
        return x_ND + self.feed(self.norms[2](x_ND))

    def _split(self, table: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, heads, T, D / heads)."""
        return table.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def rotation(place: torch.Tensor, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines of two-dimensional rotary positions: (B, T, 2) -> twice (B, 1, T, head_dim / 2)."""
    quarter = head_dim // 4
    frequency = 0.5 * 32.0 ** -(torch.arange(quarter, device=place.device) / max(quarter - 1, 1))
    angle = (place[..., None] * frequency).flatten(-2)[:, None]
    return angle.cos(), angle.sin()


def rotate(x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotate pairs of features by the angles of their positions."""
    cos, sin = turn
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)

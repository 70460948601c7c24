"""Edits the inside of a mask by sampling tokens: the autoregressive local edit of QARAD (arXiv 2508.03539)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional as F

from anomalib_synth.models.filling import fill_from_around
from anomalib_synth.models.token_transformer import Queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from anomalib_synth.models.captions import CaptionReader
    from anomalib_synth.models.token_transformer import TokenTransformer
    from anomalib_synth.models.tokenizer import WindowTokenizer


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn from logits.

    Args:
        guidance: Weight g of the text, >= 0: ``l = l(null) + g (l(text) - l(null))``; 1 is the model as it is.
        temperature: Divisor of the logits, > 0.
        top_k: Draw only from the k likeliest tokens; 0 for all.
        top_p: Draw only from the likeliest tokens that together have this probability, in (0, 1].

    Raises:
        ValueError: If a value is out of its range.
    """

    guidance: float = 4.0
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.9

    def __post_init__(self) -> None:
        """Validate the values."""
        for name, is_right, rule in (
            ("guidance", self.guidance >= 0, ">= 0"),
            ("temperature", self.temperature > 0, "> 0"),
            ("top_k", self.top_k >= 0, ">= 0"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
        ):
            if not is_right:
                msg = f"`{name}` must be {rule}, got {getattr(self, name)}."
                raise ValueError(msg)

    def choose(self, logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Draw one token per row by the Gumbel-max trick: (N, V) logits, (N, V) uniform noise in (0, 1) -> (N,)."""
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[1]:
            least = logits.topk(self.top_k, dim=1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p < 1:
            ordered, order = logits.softmax(1).sort(dim=1, descending=True)
            late = ordered.cumsum(1) - ordered >= self.top_p  # the first token past the limit stays
            logits = logits.masked_fill(torch.zeros_like(late).scatter(1, order, late), -torch.inf)
        return (logits - (-noise.log()).log()).argmax(1)


@dataclass(frozen=True, kw_only=True)
class Template:
    """What an edit starts from: a window that already shows a defect inside the mask.

    Args:
        image: (1, 3, S, S) in [0, 1].
        variation: Share v of the scales whose tokens are redrawn, the finest first, in [0, 1].
    """

    image: torch.Tensor
    variation: float

    def share(self, scale: int, backend: TokenBackend) -> float:
        """Return the share of a scale's tokens that are redrawn, in [0, 1]."""
        finer = backend.num_scales - 1 - scale
        return min(max(self.variation * (backend.num_scales - backend.frozen_scales) - finer, 0.0), 1.0)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An edited window.

    Shape:
        - ``image``: (1, 3, S, S), ``x + D(f) - D(f_source)``, not yet composited: outside the mask it differs from the
          source by the decoder's leakage
        - ``tokens``, ``source``: tokens of every scale, (1, h, h), after and before the edit
        - ``leakage``: mean absolute difference outside the mask, in image units
    """

    image: torch.Tensor
    tokens: list[torch.Tensor]
    source: list[torch.Tensor]
    leakage: float


class TokenBackend(Protocol):
    """What an edit needs from a pair of tokenizer and token model."""

    num_scales: int
    frozen_scales: int

    def to(self, device: torch.device) -> Self:
        """Move the models to a device."""

    def find_unknown(self, text: str) -> list[str]:
        """Return the words of a text that the models never saw."""

    def hide(self, image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return the window (1, 3, S, S) that the models may see, given the hidden region (1, 1, S, S)."""

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return latents and the tokens of every scale, (1, h, h), of a window (1, 3, S, S)."""

    def quantize(self, residual: torch.Tensor, scale: int) -> torch.Tensor:
        """Return the tokens of a scale, (1, h, h), nearest to the residual that the latents still lack."""

    def groups(self, mask: torch.Tensor, scale: int) -> Sequence[torch.Tensor]:
        """Return the tokens of a scale that touch a mask (1, 1, S, S), as gates (1, h, h) that are drawn in turn."""

    def embed(self, tokens: torch.Tensor, scale: int) -> torch.Tensor:
        """Return what tokens of a scale add to the latents."""

    def begin(self, z: torch.Tensor, mask: torch.Tensor, texts: Sequence[str]) -> Any:
        """Encode the window and the texts, once per edit; the first text is empty, for guidance."""

    def logits(self, begun: Any, f: torch.Tensor, drawn: torch.Tensor, gate: torch.Tensor, scale: int) -> torch.Tensor:
        """Return the logits of a scale's gated tokens for each of T texts, (T, N, V), given the tokens drawn so far."""

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        """Decode latents to windows (B, 3, R, R), at the window's size or the models' own resolution."""


class Weights(Protocol):
    """A source of models, such as a bundle."""

    @property
    def weights_hash(self) -> str:
        """Digest of the weights."""

    def backend(self) -> TokenBackend:
        """Load the models and return them."""


class LocalBackend:
    """The local models of a bundle.

    Args:
        tokenizer: A fitted tokenizer.
        model: A token transformer trained with it.
        reader: Reader of the captions that the transformer was trained on.
    """

    def __init__(self, tokenizer: WindowTokenizer, model: TokenTransformer, reader: CaptionReader) -> None:
        self.tokenizer, self.model, self.reader = tokenizer, model, reader
        self.num_scales = len(tokenizer.strides)
        self.frozen_scales = model.frozen_scales
        self.gate, self.embed, self.decode = tokenizer.gate, tokenizer.embed, tokenizer.decode
        self.quantize = tokenizer.quantize
        self.find_unknown = reader.find_unknown

    def to(self, device: torch.device) -> Self:
        """Move the models to a device."""
        self.tokenizer.to(device)
        self.model.to(device)
        return self

    def groups(self, mask: torch.Tensor, scale: int) -> list[torch.Tensor]:
        """Return the tokens of a scale that touch a mask, as a single group."""
        return [self.gate(mask, scale)]

    def hide(self, image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return the window with the hidden part filled from around; unchanged for models trained on whole windows."""
        return fill_from_around(image, hidden) if self.model.context_only else image

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return latents and tokens."""
        z = self.tokenizer.encode(image)
        return z, self.tokenizer.tokenize(z)[0]

    def begin(self, z: torch.Tensor, mask: torch.Tensor, texts: Sequence[str]) -> _LocalEdit:
        """Encode the window and the texts."""
        context = self.model.look(z, F.max_pool2d(mask, self.tokenizer.patch // self.model.mask_cells))
        words = self.reader.encode(texts, length=self.model.caption_length).to(z.device)
        return _LocalEdit(context.expand(len(texts), -1, -1, -1), self.model.read(words), [])

    def logits(
        self, begun: _LocalEdit, f: torch.Tensor, drawn: torch.Tensor, gate: torch.Tensor, scale: int
    ) -> torch.Tensor:
        """Return the logits of a scale for each text."""
        del drawn  # all tokens of a scale are drawn at once
        count = len(begun.context)
        begun.asked.append(
            Queries.at(
                gate.expand(count, -1, -1),
                f.expand(count, -1, -1, -1),
                begun.context,
                scale=scale,
                stride=self.tokenizer.strides[scale],
            )
        )
        return self.model(Queries.join(begun.asked), begun.text, last_scale=scale).unflatten(0, (count, -1))


@dataclass(frozen=True)
class _LocalEdit:
    context: torch.Tensor
    text: tuple[torch.Tensor, torch.Tensor]
    asked: list[Queries]


class _TemplateTokens:
    """The tokens of a template, and the draw of which of them stay."""

    def __init__(self, backend: TokenBackend, template: Template, seed: int) -> None:
        self._backend, self._template = backend, template
        self._z, _ = backend.encode(template.image)
        self._rng = torch.Generator().manual_seed(seed ^ 1)  # its own stream, so that the other draws do not change

    def keep(self, f: torch.Tensor, scale: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which tokens of a scale stay, (1, h, h) bool, and the template's tokens, given the latents so far."""
        own = self._backend.quantize(self._z - f, scale)
        stays = torch.rand(own.shape, generator=self._rng) >= self._template.share(scale, self._backend)
        return stays.to(own.device), own


@torch.no_grad()
def edit_window(
    backend: TokenBackend,
    image: torch.Tensor,
    mask: torch.Tensor,
    prompt: str,
    *,
    seed: int,
    sampling: Sampling,
    strength: float = 1.0,
    prompt_to: str | None = None,
    mix: float = 0.0,
    template: Template | None = None,
    hidden: torch.Tensor | None = None,
) -> Edit:
    """Draw what the prompt says into the mask, scale by scale.

    For each scale k, where m_k marks the tokens that overlap the mask at all::

        l_k  = l_k(null) + g (l_k(text) - l_k(null))
        r_k  ~ top-k / top-p softmax(l_k / T)
        r*_k = m_k r_k + (1 - m_k) r_k(source)          # the hard gate
        f    = f + enlarge(embed(r*_k))
        x'   = x + D(f) - D(f_source)

    The first (frozen) scales keep the source's tokens. A model that draws token by token evaluates the line of r_k for
    each token in turn, given the tokens before it. If a model has its own resolution, its change is resized to the
    window. Two prompts are mixed by interpolating their logits, with the same noise.

    For models trained with hidden insides, the logits depend only on the text and on what surrounds the mask: these
    models see the window with its inside hidden, and the f they get for l_k is built from the tokens of that window.
    ``strength`` interpolates the latents before decoding, from the source (0) to the drawn tokens (1).

    With a template t, the draw starts from what t shows in the mask, and only a share of each scale is redrawn::

        t_k  = nearest(E(t) - f)
        s_k  = clip(v (K - k0) - (K - 1 - k), 0, 1)     # v the variation, k0 the first scale that is drawn
        r*_k = m_k (u_k < s_k ? r_k : t_k) + (1 - m_k) r_k(source),   u_k uniform, one a token

    so v = 0 gives the template as the tokenizer reproduces it, and v = 1 gives the edit without a template.

    Args:
        backend: The models.
        image: (1, 3, S, S) in [0, 1].
        mask: (1, 1, S, S) in {0, 1}.
        prompt: What to draw.
        hidden: (1, 1, S, S) in {0, 1}, what the models may not see; None means the mask.
        seed: Seed of the draw.
        sampling: How tokens are drawn.
        strength: How far the edit goes, in [0, 1]; 0 returns the source.
        prompt_to: A second prompt to mix with the first.
        mix: Share of the second prompt, in [0, 1].
        template: What the draw starts from; None draws all tokens.
    """
    z, source = backend.encode(image)
    f_source = sum(backend.embed(tokens, scale) for scale, tokens in enumerate(source))
    if not mask.any():
        return Edit(image=image, tokens=source, source=source, leakage=0.0)
    texts = ["", prompt] if prompt_to is None else ["", prompt, prompt_to]
    visible = backend.hide(image, mask if hidden is None else hidden)
    shown, seen = (z, source) if visible is image else backend.encode(visible)
    begun = backend.begin(shown, mask, texts)
    rng = torch.Generator().manual_seed(seed)
    start = None if template is None else _TemplateTokens(backend, template, seed)
    f, known, tokens = torch.zeros_like(z), torch.zeros_like(z), []  # the drawn latents, and those the models are shown
    for scale, (kept, around) in enumerate(zip(source, seen, strict=True)):
        drawn, gated = kept, torch.zeros_like(kept, dtype=torch.bool)
        stays, own = start.keep(f, scale) if start else (None, kept)
        for gate in backend.groups(mask, scale) if scale >= backend.frozen_scales else ():
            null, *asked = backend.logits(begun, known, torch.where(gated, drawn, around), gate, scale)
            wanted = asked[0] if prompt_to is None else torch.lerp(asked[0], asked[1], mix)
            logits = (null + sampling.guidance * (wanted - null)).float()
            noise = torch.rand(logits.shape, generator=rng).clamp_min(1e-9).to(logits.device)
            drawn = drawn.masked_scatter(gate, sampling.choose(logits, noise))
            if stays is not None:
                drawn = torch.where(gate & stays, own, drawn)
            gated = gated | gate
        tokens.append(drawn)
        f = f + backend.embed(drawn, scale)
        known = known + backend.embed(torch.where(gated, drawn, around), scale)
    # decode both, so that the decoder's losses cancel
    edited, same = backend.decode(torch.cat([torch.lerp(f_source, f, strength), f_source])).chunk(2)
    change = edited - same
    if change.shape != image.shape:
        change = F.interpolate(change, image.shape[-2:], mode="bilinear", antialias=True)
    outside = (mask == 0).expand_as(change)
    leakage = float(change[outside].abs().mean()) if outside.any() else 0.0
    return Edit(image=image + change, tokens=tokens, source=source, leakage=leakage)

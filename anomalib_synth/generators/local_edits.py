"""Local edits of images of any size: a large outline is cut into pieces, each drawn in a window of its own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from anomalib_synth.functional.colour import smooth_tint
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.generators.windows import (
    LARGEST_SHAPE,
    MARGIN,
    cut_padded,
    find_inside,
    follow_colour,
    surround,
)
from anomalib_synth.models.editing import Sampling, Template, TokenBackend, edit_window
from anomalib_synth.models.threads import one_thread
from anomalib_synth.models.tokenizer import WINDOW_STEP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib_synth.generators.proposal import Proposal

_MOST_PIXELS = 128**2  # of an outline drawn in one window: the cost grows with the square of their number
_PIECE = 128 - 2 * MARGIN
_TINT = 6  # pixels: radius over which the colour of an edit is averaged


def draw_into(
    backend: TokenBackend,
    image: torch.Tensor,
    outline: Proposal,
    prompt: str,
    *,
    seed: int,
    sampling: Sampling,
    strength: float = 1.0,
    prompt_to: str | None = None,
    mix: float = 0.0,
    template: Template | None = None,
) -> tuple[torch.Tensor, float]:
    """Draw what a text says into an outline; see :func:`anomalib_synth.models.editing.edit_window`.

    A large outline is drawn piece by piece, and each piece sees those before it. What is not drawn yet is hidden from
    every window, unless the window shows nothing else; then only its own piece is hidden. At the end the colour of what
    is drawn is averaged over some pixels, as far as it is drawn anew: by the strength, times a template's variation.

    Args:
        backend: The models.
        image: (C, H, W) in [0, 1].
        outline: A proposal of one row, whose corner and ``support`` say where to draw.
        prompt: What to draw.
        seed: Seed of the draw.
        sampling: How tokens are drawn.
        strength: In [0, 1]; 0 gives the source back.
        prompt_to: A second prompt, None for none.
        mix: Share of the second prompt, in [0, 1].
        template: What the draw starts from, (1, C, H, W) like the image; None draws everything.

    Returns:
        The outline's window (1, C, h, w) with the edit where ``support`` is, and the largest leakage of a piece.
    """
    changed, hidden = image.clone(), torch.zeros_like(image[:1])
    place = find_inside(outline, 0, 0)
    hidden[:, *place] = outline.support[0].to(image.dtype)
    backend, leakage = backend.to(image.device), 0.0
    for number, piece in enumerate(cut_pieces(outline)):
        top, left, side = surround(piece, image.shape[-2:], step=WINDOW_STEP)
        inner = find_inside(piece, top, left)
        mask = image.new_zeros(1, 1, side, side)
        mask[:, :, *inner] = piece.support.to(image.dtype)
        unseen = cut_padded(hidden, top, left, side)[:, :1]
        with one_thread():
            edit = edit_window(
                backend,
                cut_padded(changed, top, left, side),
                mask,
                prompt,
                seed=hash64(seed, "tokens", number),
                sampling=sampling,
                strength=strength,
                prompt_to=prompt_to,
                mix=mix,
                template=None
                if template is None
                else replace(template, image=cut_padded(template.image[0], top, left, side)),
                hidden=mask if bool(unseen.all()) else unseen,
            )
        leakage = max(leakage, edit.leakage)
        drawn = follow_colour(edit.image[:, :, *inner], image)[0].clamp(0, 1)
        at = find_inside(piece, 0, 0)
        changed[:, *at] = torch.where(piece.support[0], drawn, changed[:, *at])
        hidden[:, *at].masked_fill_(piece.support[0], 0.0)
    drawn = changed[:, *place][None]
    smooth = smooth_tint(drawn, outline.support.to(drawn.dtype), radius=_TINT).clamp(0, 1)
    return torch.lerp(drawn, smooth, strength if template is None else strength * template.variation), leakage


def cut_pieces(outline: Proposal) -> Iterator[Proposal]:
    """Cut an outline of one row into pieces that fit a window; pieces that hold none of it are left out."""
    inside = outline.support[0, 0].nonzero()
    if not len(inside):
        return
    largest = LARGEST_SHAPE if len(inside) <= _MOST_PIXELS else _PIECE
    low, high = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
    rows, columns = (_cut_evenly(first, last, largest) for first, last in zip(low, high, strict=True))
    for y in rows:
        for x in columns:
            piece = replace(
                outline,
                top=[outline.top[0] + y.start],
                left=[outline.left[0] + x.start],
                target=outline.target[..., y, x],
                alpha=outline.alpha[..., y, x],
                support=outline.support[..., y, x],
            )
            if piece.support.any():
                yield piece


def _cut_evenly(first: int, last: int, largest: int) -> list[slice]:
    count = -(-(last - first) // largest)
    ends = [first + (last - first) * n // count for n in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]

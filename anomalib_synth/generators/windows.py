"""Windows for edits by learned models: a region with its surroundings, and the outline that a text asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from anomalib_synth.generators.prompts import family_of, likeness, restrict_to_position, wanted_size
from anomalib_synth.generators.seeding import RandomStream, hash64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.generators.families import Family
    from anomalib_synth.generators.families.family import Params
    from anomalib_synth.generators.proposal import Proposal
    from anomalib_synth.generators.rule_based import RuleBasedGenerator

MARGIN = 8
LARGEST = 256
LARGEST_SHAPE = LARGEST - 2 * MARGIN
_SHAPES_TRIED = 12


def choose_prompt(row: int, seed: int, condition: Condition, texts: Sequence[str] | None) -> str | None:
    """Return the text for one defect: the call's prompt for its row, else one of ``texts``, else None."""
    if condition.prompts is not None:
        return condition.prompts[row]
    return None if texts is None else RandomStream(hash64(seed, "prompt")).choice(texts)


def draw_region(
    shapes: RuleBasedGenerator,
    images: torch.Tensor,
    row: int,
    seed: int,
    part: torch.Tensor | None,
    prompt: str | None,
) -> tuple[Proposal, str]:
    """Draw the outline of a defect, and return it with its text.

    Where it is off the part its ``alpha`` is 0, unless its family breaks the part's edge; see :func:`keep_on_part`.

    Args:
        shapes: Draws the outlines: the physical families.
        images: (B, C, H, W) float32 in [0, 1], the whole batch.
        row: Row of the batch.
        seed: Seed of the draw.
        part: (B, 1, h, w) bool, where the part is; None: everywhere.
        prompt: The text that shape and place should follow; None draws any shape, whose caption becomes the text.
    """
    height, width = images.shape[-2:]
    cells = None if part is None else part[row, 0].cpu().numpy()
    family, params = find_shape(shapes, prompt, seed, height, width)
    if prompt is None:
        prompt = f"{family.describe(params)}, high contrast"
    else:
        cells = restrict_to_position(prompt, cells)
    return clip_shape(shapes.propose_one(images, row, family, params, part, cells=cells)), prompt


def find_shape(
    shapes: RuleBasedGenerator, prompt: str | None, seed: int, height: int, width: int
) -> tuple[Family, Params]:
    """Return a draw that fits a window: with a prompt, the one of several whose caption is most like the prompt.

    If the prompt asks for a size, only the smallest or the largest third of the draws are compared.
    """
    draws = draw_shapes(shapes, prompt, seed, height, width)
    if prompt is not None and (size := wanted_size(prompt)):
        draws = sorted(draws, key=_extent, reverse=size > 0)[: -(-len(draws) // 3)]
    return draws[0] if prompt is None else max(draws, key=lambda d: likeness(prompt, d[0].describe(d[1])))


def draw_shapes(
    shapes: RuleBasedGenerator, prompt: str | None, seed: int, height: int, width: int
) -> list[tuple[Family, Params]]:
    """Return several draws that fit a window; if the prompt names a family, all are of that family."""
    if prompt is not None and (name := family_of(prompt)) is not None:
        shapes = shapes.only(name)
    shorter = min(height, width)
    frame = min(1.0, LARGEST_SHAPE / shorter)  # for a large image, draw as if it were as large as the largest window
    height, width = round(height * frame), round(width * frame)
    draws = [shapes.make_params(hash64(seed, "shape", n), height, width) for n in range(_SHAPES_TRIED)]
    return [draw for draw in draws if _extent(draw) <= LARGEST_SHAPE] or [min(draws, key=_extent)]


def keep_on_part(shape: Proposal) -> Proposal:
    """Cut off what of an outline lies off the part: there its ``alpha`` is 0."""
    return replace(shape, support=shape.support & (shape.alpha > 0))


def clip_shape(shape: Proposal) -> Proposal:
    """Cut an outline that does not fit into a window down to its middle."""
    h, w = shape.support.shape[-2:]
    y, x = max(0, (h - LARGEST_SHAPE) // 2), max(0, (w - LARGEST_SHAPE) // 2)
    inner = slice(y, y + LARGEST_SHAPE), slice(x, x + LARGEST_SHAPE)
    return replace(
        shape,
        top=[shape.top[0] + y],
        left=[shape.left[0] + x],
        target=shape.target[..., *inner],
        alpha=shape.alpha[..., *inner],
        support=shape.support[..., *inner],
    )


def surround(shape: Proposal, size: tuple[int, int], *, step: int, smallest: int = 0) -> tuple[int, int, int]:
    """Return top, left and side of a square window that holds an outline and, inside the image, a margin around it.

    Args:
        shape: The outline, at most ``LARGEST_SHAPE`` high and wide.
        size: Height and width of the image.
        step: The side is a multiple of this, at most ``LARGEST``.
        smallest: Least side.
    """
    h, w = shape.support.shape[-2:]
    side = min(LARGEST, max(smallest, -(-(max(h, w) + 2 * MARGIN) // step) * step))
    corner = []
    for start, length, limit in zip((shape.top[0], shape.left[0]), (h, w), size, strict=True):
        first = start + length // 2 - side // 2
        corner.append(min(max(first, 0), max(limit - side, 0)))
    return corner[0], corner[1], side


def find_inside(shape: Proposal, top: int, left: int) -> tuple[slice, slice]:
    """Return the rows and columns of an outline in the window whose corner is (top, left)."""
    h, w = shape.support.shape[-2:]
    y, x = shape.top[0] - top, shape.left[0] - left
    return slice(y, y + h), slice(x, x + w)


def cut_padded(image: torch.Tensor, top: int, left: int, side: int) -> torch.Tensor:
    """Cut a window (1, 3, side, side) out of an image (C, H, W); beyond the image its border is repeated."""
    window = image[None, :, top : top + side, left : left + side]
    missing = side - window.shape[-1], side - window.shape[-2]
    if any(missing):
        window = F.pad(window, (0, missing[0], 0, missing[1]), mode="replicate")
    return window.expand(-1, 3, -1, -1)


def follow_colour(target: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return a drawn window (1, 3, h, w) with as many channels as its image (C, H, W), and grey if the image is grey.

    Returns:
        (1, C, h, w).
    """
    if image.shape[0] == 1 or has_no_colour(image):
        return (sum(target.unbind(1)) * (1 / 3)).unsqueeze(1).expand(-1, image.shape[0], -1, -1)
    return target


def has_no_colour(image: torch.Tensor) -> bool:
    """Return whether the channels of an image (C, H, W) differ by at most 1/255."""
    return bool((image.amax(0) - image.amin(0)).amax() <= 1 / 255)


def _extent(draw: tuple[Family, Params]) -> float:
    return max(draw[1]["extent_y"], draw[1]["extent_x"])

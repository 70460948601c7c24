"""Language-conditioned autoregressive local edits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from anomalib_synth.functional.masks import box_blur
from anomalib_synth.generators.base import AnomalyGenerator, Proposal, crop
from anomalib_synth.generators.encoders import load_backend
from anomalib_synth.generators.families import REGISTRY
from anomalib_synth.generators.prompts import (
    PLACE_WORDS,
    Prompts,
    family_of,
    likeness,
    read_prompts,
    restrict_to_position,
)
from anomalib_synth.generators.rule_based import RuleBasedGenerator
from anomalib_synth.generators.seeding import Draws, hash64
from anomalib_synth.models.bundle import Bundle, load_bundle
from anomalib_synth.models.editing import Edit, Sampling, TokenBackend, Weights, edit_window
from anomalib_synth.models.janus import JanusCheckpoint, is_janus
from anomalib_synth.models.tokenizer import WINDOW_STEP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anomalib_synth.generators.checks import SampleChecks
    from anomalib_synth.generators.families import Family
    from anomalib_synth.generators.families.family import Params
    from anomalib_synth.generators.prepared import PreparedNormals
    from anomalib_synth.sample import AnomalySample

_MARGIN = 8
_LARGEST = 256
_LARGEST_SHAPE = _LARGEST - 2 * _MARGIN
_SHAPES_TRIED = 12


class AutoregressiveGenerator(AnomalyGenerator):
    """Draws what a text says into a region, token by token: the edit of QARAD (arXiv 2508.03539), ARAS.

    A window of the image is written in discrete tokens at several scales. Outside the region the tokens stay the
    source's; inside they are sampled scale by scale, given the text and everything around; see
    :func:`anomalib_synth.models.editing.edit_window` for the equations. Nothing is trained when it draws.

    Shape and place of a region follow the text: its noun names a physical family of defects, whose outline is drawn;
    what fills it is sampled. Without prompts, captions of all physical families are drawn. We differ from the paper:
    the models are small and local (``anomalib-synth fit``), the edit is made in a window at the image's own
    resolution, so that its cost goes with the defect, and what the decoder loses is taken off both sides.

    Samples are edited one by one on one thread, so that no bit depends on the batch.

    Args:
        prompts: What to draw: texts, a text file with one a line, or a vocabulary of ``types`` with ``sizes``,
            ``appearances`` and ``positions``; each sample draws one. None draws captions.
            Words that the models never saw are named in a warning. "left", "right", "top", "bottom" and "centre" say
            where.
        bundle: Folder made by ``anomalib-synth fit``; None is the small general one that comes with the package. Or
            the folder of a pretrained Janus model in the format of transformers, which needs the extra ``janus`` and
            better a GPU; see :class:`anomalib_synth.models.janus.JanusCheckpoint`.
        sampling: How tokens are drawn. Defaults to ``Sampling()``.
        strength: Smallest and largest strength, 0 < min <= max <= 1: how far the latents move from source to edit.
        size: Smallest and largest linear size of a defect as a share of the shorter side, 0 < min <= max <= 1. A
            defect is at most 240 pixels wide, whatever the image.
        checks: Limits a sample must keep.
        foreground: ``"auto"``, the path of a mask image, or None for the whole image.
        max_attempts: Draws per sample before it is given back unchanged.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If an argument is out of its range; on first use, if the bundle does not fit.
    """

    def __init__(
        self,
        prompts: Prompts | None = None,
        *,
        bundle: Path | str | None = None,
        sampling: Sampling | None = None,
        strength: tuple[float, float] = (0.5, 1.0),
        size: tuple[float, float] = (0.04, 0.25),
        checks: SampleChecks | None = None,
        foreground: str | Path | None = "auto",
        max_attempts: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(checks=checks, foreground=foreground, max_attempts=max_attempts, seed=seed)
        self.prompts = None if prompts is None else read_prompts(prompts)
        self._vocabulary = dict(prompts) if isinstance(prompts, Mapping) else None
        self.bundle_path = None if bundle is None else Path(bundle)
        self.sampling = sampling or Sampling()
        physical = [family.name for family in REGISTRY.values() if family.physical]
        self.shapes = RuleBasedGenerator(physical, strength=strength, size=size, foreground=None)
        self._asked: tuple[list[str] | None, list[str] | None, float] = (None, None, 0.0)
        self._reported: set[str] = set()

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {
            "prompts": self._vocabulary or self.prompts,
            "bundle": None if self.bundle_path is None else str(self.bundle_path),
            "sampling": asdict(self.sampling),
            "strength": list(self.shapes.strength),
            "size": list(self.shapes.size),
            **self.common_init_args(),
        }

    @cached_property
    def weights(self) -> Weights:
        """The folder of models, opened on first use."""
        path = self.bundle_path
        return JanusCheckpoint(path) if path is not None and is_janus(path) else load_bundle(path)

    @property
    def weights_hash(self) -> str:
        """Digest of the models' weights."""
        return self.weights.weights_hash

    @cached_property
    def backend(self) -> TokenBackend:
        """The models, loaded on first use."""
        weights = self.weights
        return load_backend(weights) if isinstance(weights, Bundle) else weights.backend()

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Take normals that were measured before; see :meth:`AnomalyGenerator.use_prepared`."""
        super().use_prepared(prepared)
        self.shapes.use_prepared(prepared)

    def __call__(
        self,
        images: torch.Tensor,
        *,
        seeds: torch.Tensor | Sequence[int] | None = None,
        masks: torch.Tensor | None = None,
        prompts: Sequence[str] | None = None,
        prompts_to: Sequence[str] | None = None,
        mix: float = 0.0,
    ) -> AnomalySample:
        """Draw one defect onto each image; see :meth:`AnomalyGenerator.__call__`.

        Args:
            images: (B, C, H, W) float in [0, 1], C = 1 or 3.
            seeds: (B,) integers >= 0.
            masks: (B, 1, H, W), optional: the region a defect should lie in.
            prompts: B texts, in place of the generator's own.
            prompts_to: B texts to move to; needs ``prompts``.
            mix: How far to move, in [0, 1].

        Raises:
            ValueError: If an argument has the wrong number, size or range.
        """
        for name, value in (("prompts", prompts), ("prompts_to", prompts_to)):
            if value is not None and (isinstance(value, str) or len(value) != len(images)):
                msg = f"`{name}` must be {len(images)} texts, one an image, got {value!r}."
                raise ValueError(msg)
        if not 0 <= mix <= 1 or (prompts_to is not None and prompts is None):
            msg = f"`mix` must be in [0, 1], and `prompts_to` needs `prompts`; got {mix} and {prompts_to!r}."
            raise ValueError(msg)
        self._asked = (
            None if prompts is None else read_prompts(prompts),
            None if prompts_to is None else read_prompts(prompts_to),
            mix,
        )
        try:
            return super().__call__(images, seeds=seeds, masks=masks)
        finally:
            self._asked = (None, None, 0.0)

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None
    ) -> Iterator[Proposal]:
        """Propose one defect for each row; see :meth:`AnomalyGenerator.propose`."""
        for row, seed in zip(rows, seeds, strict=True):
            yield self._edit(images, row, seed, part)

    def _edit(self, images: torch.Tensor, row: int, seed: int, part: torch.Tensor | None) -> Proposal:
        """Draw shape and text of one defect, and sample what fills the shape."""
        shape, prompt = self._draw_shape(images, row, seed, part)
        top, left, side = _surround(shape, images.shape[-2:])
        window = _cut_padded(images[row], top, left, side)
        mask = window.new_zeros(1, 1, side, side)
        h, w = shape.support.shape[-2:]
        inner = slice(shape.top[0] - top, shape.top[0] - top + h), slice(shape.left[0] - left, shape.left[0] - left + w)
        mask[:, :, *inner] = shape.support.float()
        _, prompts_to, mix = self._asked
        with _one_thread():
            edit = edit_window(
                self.backend.to(images.device),
                window,
                mask,
                prompt,
                seed=hash64(seed, "tokens"),
                sampling=self.sampling,
                strength=shape.params[0]["strength"],
                prompt_to=None if prompts_to is None else prompts_to[row],
                mix=mix,
            )
        return self._propose(images, row, shape, prompt, edit, inner)

    def _draw_shape(self, images: torch.Tensor, row: int, seed: int, part: torch.Tensor | None) -> tuple[Proposal, str]:
        """Return the outline of a defect, and the text for it."""
        height, width = images.shape[-2:]
        asked = self._asked[0] or self.prompts
        cells = None if part is None else part[row, 0].cpu().numpy()
        if asked is None:
            family, params = self._find_shape(None, seed, height, width)
            prompt = f"{family.caption(params)}, high contrast"
        else:
            prompt = asked[row] if self._asked[0] else Draws(hash64(seed, "prompt")).choice(asked)
            self._report_unknown(prompt)
            family, params = self._find_shape(prompt, seed, height, width)
            cells = restrict_to_position(prompt, cells)
        return _clip(self.shapes.propose_one(images, row, family, params, part, cells=cells)), prompt

    def _find_shape(self, prompt: str | None, seed: int, height: int, width: int) -> tuple[Family, Params]:
        """Return a draw that fits a window; with a prompt, of several of its family the one that is most like it."""
        shapes = self.shapes
        if prompt is not None and (name := family_of(prompt)) is not None:
            shapes = shapes.only(name)
        shorter = min(height, width)
        frame = min(1.0, _LARGEST_SHAPE / shorter)  # of a large image, draw as for one of the largest window's size
        height, width = round(height * frame), round(width * frame)
        draws = [shapes.make_params(hash64(seed, "shape", n), height, width) for n in range(_SHAPES_TRIED)]
        draws = [draw for draw in draws if _extent(draw) <= _LARGEST_SHAPE] or [min(draws, key=_extent)]
        return draws[0] if prompt is None else max(draws, key=lambda d: likeness(prompt, d[0].caption(d[1])))

    def _propose(
        self, images: torch.Tensor, row: int, shape: Proposal, prompt: str, edit: Edit, inner: tuple[slice, slice]
    ) -> Proposal:
        """Return the proposal of an edit: its window is the outline's, softened at the border."""
        h, w = shape.support.shape[-2:]
        source = crop(images, [row], shape.top, shape.left, h, w)
        target = edit.image[:, :, *inner]
        if source.shape[1] == 1 or _has_no_colour(images[row]):
            target = (sum(target.unbind(1)) * (1 / 3)).unsqueeze(1).expand_as(source)
        support = shape.support.float()
        asked = self._asked[0] is not None or self.prompts is not None
        return Proposal(
            rows=[row],
            top=shape.top,
            left=shape.left,
            target=target.clamp(0, 1),
            alpha=box_blur(support) * support,
            support=shape.support,
            families=shape.families,
            captions=[prompt if asked else shape.captions[0]],
            params=[shape.params[0] | {"leakage": edit.leakage}],
            prompts=[prompt],
        )

    def _report_unknown(self, prompt: str) -> None:
        known = self._reported | PLACE_WORDS
        unknown = [word for word in self.backend.find_unknown(prompt) if word not in known]
        if unknown:
            self._reported.update(unknown)
            warnings.warn(
                f"The models never saw {', '.join(map(repr, unknown))} (in {prompt!r}): such words change nothing in "
                "particular. Known words are in the bundle's `vocabulary`; `anomalib-synth fit` learns others.",
                stacklevel=3,
            )


def _extent(draw: tuple[Family, Params]) -> float:
    return max(draw[1]["extent_y"], draw[1]["extent_x"])


def _clip(shape: Proposal) -> Proposal:
    """Cut an outline that is larger than a window's inside down to its middle."""
    h, w = shape.support.shape[-2:]
    y, x = max(0, (h - _LARGEST_SHAPE) // 2), max(0, (w - _LARGEST_SHAPE) // 2)
    inner = slice(y, y + _LARGEST_SHAPE), slice(x, x + _LARGEST_SHAPE)
    return replace(
        shape,
        top=[shape.top[0] + y],
        left=[shape.left[0] + x],
        target=shape.target[..., *inner],
        alpha=shape.alpha[..., *inner],
        support=shape.support[..., *inner],
    )


def _surround(shape: Proposal, size: tuple[int, int]) -> tuple[int, int, int]:
    """Return corner and side of an edit's window: all of the outline, and what is around it where the image goes on."""
    h, w = shape.support.shape[-2:]
    side = min(_LARGEST, -(-(max(h, w) + 2 * _MARGIN) // WINDOW_STEP) * WINDOW_STEP)
    corner = []
    for start, length, limit in zip((shape.top[0], shape.left[0]), (h, w), size, strict=True):
        first = start + length // 2 - side // 2
        corner.append(min(max(first, 0), max(limit - side, 0)))
    return corner[0], corner[1], side


def _cut_padded(image: torch.Tensor, top: int, left: int, side: int) -> torch.Tensor:
    """Cut a window (1, 3, side, side) out of an image (C, H, W); a smaller image is continued by its border."""
    window = image[None, :, top : top + side, left : left + side]
    missing = side - window.shape[-1], side - window.shape[-2]
    if any(missing):
        window = F.pad(window, (0, missing[0], 0, missing[1]), mode="replicate")
    return window.expand(-1, 3, -1, -1)


def _has_no_colour(image: torch.Tensor) -> bool:
    """Return whether an image (C, H, W) has no colour."""
    return bool((image.amax(0) - image.amin(0)).amax() <= 1 / 255)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: with more, sums of products may come out in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

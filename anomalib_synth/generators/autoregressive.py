"""Language-conditioned autoregressive local edits."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from anomalib_synth.functional.masks import box_blur
from anomalib_synth.generators.encoders import load_backend
from anomalib_synth.generators.families import REGISTRY
from anomalib_synth.generators.prompts import PLACE_WORDS, Prompts, keep_prompts, read_prompts
from anomalib_synth.generators.proposal import Proposal
from anomalib_synth.generators.proposing import ProposingGenerator
from anomalib_synth.generators.rule_based import RuleBasedGenerator
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.generators.windows import (
    choose_prompt,
    cut_padded,
    draw_region,
    find_inside,
    follow_colour,
    surround,
)
from anomalib_synth.models.bundle import Bundle, load_bundle
from anomalib_synth.models.editing import Edit, Sampling, TokenBackend, Weights, edit_window
from anomalib_synth.models.janus import JanusCheckpoint, is_janus
from anomalib_synth.models.threads import one_thread
from anomalib_synth.models.tokenizer import WINDOW_STEP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib_synth.generators.checks import SampleChecks
    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.generators.prepared import PreparedNormals


class AutoregressiveGenerator(ProposingGenerator):
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
        text_encoder: Name of the pretrained encoder that the bundle was fitted with (``fit --settings.text_encoder``),
            needed where it is not on this machine: a bundle's word has nothing fetched.
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

    takes: ClassVar[frozenset[str]] = frozenset({"masks", "prompts", "prompts_to"})
    later_arguments: ClassVar[frozenset[str]] = frozenset({"text_encoder"})

    def __init__(
        self,
        prompts: Prompts | None = None,
        *,
        bundle: Path | str | None = None,
        text_encoder: str | None = None,
        sampling: Sampling | None = None,
        strength: tuple[float, float] = (0.5, 1.0),
        size: tuple[float, float] = (0.04, 0.25),
        checks: SampleChecks | None = None,
        foreground: str | Path | None = "auto",
        max_attempts: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(checks=checks, foreground=foreground, max_attempts=max_attempts, seed=seed)
        self.prompts = keep_prompts(prompts)
        self.texts = None if self.prompts is None else read_prompts(self.prompts)
        self.bundle = None if bundle is None else Path(bundle)
        self.text_encoder = text_encoder
        self.sampling = sampling or Sampling()
        physical = [family.name for family in REGISTRY.values() if family.physical]
        self.shapes = RuleBasedGenerator(physical, strength=strength, size=size, foreground=None)
        self.strength, self.size = self.shapes.strength, self.shapes.size
        self._reported: set[str] = set()

    @cached_property
    def weights(self) -> Weights:
        """The folder of models, opened on first use."""
        path = self.bundle
        return JanusCheckpoint(path) if path is not None and is_janus(path) else load_bundle(path)

    @property
    def weights_hash(self) -> str:
        """Digest of the models' weights."""
        return self.weights.weights_hash

    @cached_property
    def backend(self) -> TokenBackend:
        """The models, loaded on first use."""
        weights = self.weights
        if isinstance(weights, Bundle):
            return load_backend(weights, text_encoder=self.text_encoder)
        if self.text_encoder is not None:
            msg = f"`text_encoder` must be None for a Janus model, which reads texts itself, got {self.text_encoder!r}."
            raise ValueError(msg)
        return weights.backend()

    @property
    def prepared(self) -> PreparedNormals | None:
        """What was measured of the product's normals: the outlines are drawn with it."""
        return self.shapes.prepared

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Take normals that were measured before; see :meth:`AnomalyGenerator.use_prepared`."""
        self.shapes.use_prepared(prepared)

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None, condition: Condition
    ) -> Iterator[Proposal]:
        """Propose one defect for each row; see :meth:`ProposingGenerator.propose`."""
        for row, seed in zip(rows, seeds, strict=True):
            yield self._edit(images, row, seed, part, condition)

    def _edit(
        self, images: torch.Tensor, row: int, seed: int, part: torch.Tensor | None, condition: Condition
    ) -> Proposal:
        """Draw shape and text of one defect, and sample what fills the shape."""
        asked = choose_prompt(row, seed, condition, self.texts)
        if asked is not None:
            self.report_unknown(asked)
        shape, prompt = draw_region(self.shapes, images, row, seed, part, asked)
        top, left, side = surround(shape, images.shape[-2:], step=WINDOW_STEP)
        window = cut_padded(images[row], top, left, side)
        mask = window.new_zeros(1, 1, side, side)
        inner = find_inside(shape, top, left)
        mask[:, :, *inner] = shape.support.float()
        with one_thread():
            edit = edit_window(
                self.backend.to(images.device),
                window,
                mask,
                prompt,
                seed=hash64(seed, "tokens"),
                sampling=self.sampling,
                strength=shape.params[0]["strength"],
                prompt_to=None if condition.prompts_to is None else condition.prompts_to[row],
                mix=condition.mix,
            )
        caption = shape.captions[0] if asked is None else asked
        return self._propose(images, row, shape, prompt, caption, edit, inner)

    def _propose(
        self,
        images: torch.Tensor,
        row: int,
        shape: Proposal,
        prompt: str,
        caption: str,
        edit: Edit,
        inner: tuple[slice, slice],
    ) -> Proposal:
        """Return the proposal of an edit: its window is the outline's, softened at the border."""
        target = follow_colour(edit.image[:, :, *inner], images[row])
        support = shape.support.float()
        return Proposal(
            rows=[row],
            top=shape.top,
            left=shape.left,
            target=target.clamp(0, 1),
            alpha=box_blur(support) * support,
            support=shape.support,
            families=shape.families,
            captions=[caption],
            params=[shape.params[0] | {"leakage": edit.leakage}],
            prompts=[prompt],
        )

    def report_unknown(self, prompt: str) -> None:
        """Warn of words that the models never saw, once each."""
        known = self._reported | PLACE_WORDS
        unknown = [word for word in self.backend.find_unknown(prompt) if word not in known]
        if unknown:
            self._reported.update(unknown)
            warnings.warn(
                f"The models never saw {', '.join(map(repr, unknown))} (in {prompt!r}): such words change nothing in "
                "particular. Known words are in the bundle's `vocabulary`; `anomalib-synth fit` learns others.",
                stacklevel=3,
            )

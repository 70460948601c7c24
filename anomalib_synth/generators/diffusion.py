"""Text-guided diffusion edits, used training-free."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch

from anomalib_synth.functional.changes import fade_border, find_change
from anomalib_synth.functional.masks import soften_inside
from anomalib_synth.generators.families import PHYSICAL, REGISTRY
from anomalib_synth.generators.filtered import FilteredGenerator, Mode
from anomalib_synth.generators.prompts import PLACE_WORDS, Prompts, keep_prompts, read_prompts
from anomalib_synth.generators.proposal import Proposal, crop, crop_grid
from anomalib_synth.generators.proposing import ProposingGenerator
from anomalib_synth.generators.rule_based import RuleBasedGenerator
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.generators.windows import (
    choose_prompt,
    cut_padded,
    draw_region,
    find_inside,
    follow_colour,
    keep_on_part,
    surround,
)
from anomalib_synth.models.diffusion import DiffusionEditor, DiffusionSettings
from anomalib_synth.models.threads import one_thread
from anomalib_synth.retrieval.settings import FilterSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib_synth.generators.checks import SampleChecks
    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.generators.prepared import PreparedNormals

MaskMode = Literal["change", "region"]
_STEP = 32  # windows: 64, 96, ... 256 pixels
_SMALLEST = 64


class DiffusionGenerator(ProposingGenerator):
    """Edits a window with a pre-trained text-guided image-to-image pipeline, as stage 2 of arXiv 2512.23227 does.

    A window is cut around the region that a text asks for, at the image's own resolution. Window and instruction both
    condition the edit; nothing is trained while it draws. The same window is also edited without an instruction, with
    the same noise: the null edit. The change is the difference of the two edits, so that what the pipeline does to any
    image, such as the blur of its autoencoder, cancels. The change is added to the window and faded out at its border.

    We differ from the paper in two points. The edit is made in a window, so that its cost does not grow with the image
    and no detail outside is lost; and the mask comes from the edit itself. For the paper's filter see
    :class:`DiffusionRetrievalGenerator`.

    Samples run in batches of one size on one thread, so that no bit depends on the batch.

    Args:
        prompts: What to draw: texts, a text file with one text a line, or a vocabulary of ``types`` with ``sizes``,
            ``appearances`` and ``positions``; each sample draws one of the texts. None draws captions of all physical
            families. "left", "right", "top", "bottom" and "centre" say where the defect goes.
        pipeline: Folder in the format of diffusers, such as ``anomalib-synth fit --diffusion`` writes, or id of a
            repository of the Hugging Face hub; see :class:`anomalib_synth.models.diffusion.DiffusionEditor`.
        editing: How the pipeline is run. Defaults to ``DiffusionSettings()``.
        mask_mode: ``"change"``: the mask is where the smoothed change exceeds the noise of the null edit. ``"region"``:
            the mask is the drawn outline, which also clips the change.
        strength: Smallest and largest strength, 0 < min <= max <= 1: how far pixels move from source to edit.
        size: Smallest and largest linear size of the region as a share of the shorter side, 0 < min <= max <= 1. It is
            at most 240 pixels wide, however large the image is.
        checks: Limits a sample must keep.
        foreground: ``"auto"``, the path of a mask image, or None for the whole image.
        max_attempts: Draws per sample before it is given back unchanged.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If an argument is out of its range; on first use, if there is no pipeline.
        ImportError: On first use, if diffusers or transformers is not installed.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"masks", "prompts"})

    def __init__(
        self,
        prompts: Prompts | None = None,
        *,
        pipeline: str = "timbrooks/instruct-pix2pix",
        editing: DiffusionSettings | None = None,
        mask_mode: MaskMode = "change",
        strength: tuple[float, float] = (0.5, 1.0),
        size: tuple[float, float] = (0.04, 0.25),
        checks: SampleChecks | None = None,
        foreground: str | Path | None = "auto",
        max_attempts: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(checks=checks, foreground=foreground, max_attempts=max_attempts, seed=seed)
        if mask_mode not in get_args(MaskMode):
            msg = f"`mask_mode` must be one of {', '.join(get_args(MaskMode))}, got {mask_mode!r}."
            raise ValueError(msg)
        self.prompts = keep_prompts(prompts)
        self.texts = None if self.prompts is None else read_prompts(self.prompts)
        self.pipeline = str(pipeline)
        self.editing = editing or DiffusionSettings()
        self.mask_mode = mask_mode
        self.shapes = RuleBasedGenerator(PHYSICAL, strength=strength, size=size, foreground=None)
        self.strength, self.size = self.shapes.strength, self.shapes.size
        self._reported: set[str] = set()

    @cached_property
    def editor(self) -> DiffusionEditor:
        """The pipeline, loaded on first use."""
        return DiffusionEditor(self.pipeline, self.editing)

    @property
    def weights_hash(self) -> str:
        """Digest of the pipeline's weights."""
        return self.editor.weights_hash

    @property
    def prepared(self) -> PreparedNormals | None:
        """What was measured of the product's normals: the regions are drawn with it."""
        return self.shapes.prepared

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Take normals that were measured before; see :meth:`AnomalyGenerator.use_prepared`."""
        self.shapes.use_prepared(prepared)

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None, condition: Condition
    ) -> Iterator[Proposal]:
        """Propose one defect for each row; see :meth:`ProposingGenerator.propose`."""
        drawn = [self._draw_task(images, row, seed, part, condition) for row, seed in zip(rows, seeds, strict=True)]
        on_part = [bool(task.mask.any()) for task in drawn]
        drawn, seeds = list(compress(drawn, on_part)), list(compress(seeds, on_part))
        if not drawn:
            return
        windows, masks = [task.window for task in drawn], [task.mask for task in drawn]
        # then the null edits, with the same noise, so that what both edits share cancels
        texts = [task.prompt for task in drawn] + [""] * len(drawn)
        with one_thread():
            changes = self.editor.edit(
                windows * 2, texts, seeds=[hash64(seed, "noise") for seed in seeds] * 2, masks=masks * 2
            )
        for task, edit, null in zip(drawn, changes[: len(drawn)], changes[len(drawn) :], strict=True):
            yield self._propose(images, task, edit, null, part)

    def _draw_task(
        self, images: torch.Tensor, row: int, seed: int, part: torch.Tensor | None, condition: Condition
    ) -> _Task:
        """Draw the region and the text of one edit, and cut its window."""
        asked = choose_prompt(row, seed, condition, self.texts)
        if asked is not None:
            self._report_unknown(asked)
        shape, prompt = draw_region(self.shapes, images, row, seed, part, asked)
        top, left, side = surround(shape, images.shape[-2:], step=_STEP, smallest=_SMALLEST)
        window = cut_padded(images[row], top, left, side)[0]
        mask = window.new_zeros(1, side, side)
        mask[:, *find_inside(shape, top, left)] = keep_on_part(shape).support[0].float()
        return _Task(
            row=row,
            shape=shape,
            prompt=prompt,
            caption=shape.captions[0] if asked is None else asked,
            top=top,
            left=left,
            window=window,
            mask=mask,
        )

    def _propose(
        self, images: torch.Tensor, task: _Task, edit: torch.Tensor, null: torch.Tensor, part: torch.Tensor | None
    ) -> Proposal:
        """Return the proposal of an edit, kept on the part unless its family breaks the part's edge."""
        height, width = images.shape[-2:]
        side = task.window.shape[-1]
        h, w = min(side, height - task.top), min(side, width - task.left)
        change = edit - null
        level = 0.0
        if self.mask_mode == "region":
            support = task.mask[None] > 0
        else:
            goes_on = (task.top > 0, task.top + side < height, task.left > 0, task.left + side < width)
            change = change * fade_border(side, goes_on).to(change.device)
            support, level = find_change(change, null)
        outside = ~support.expand(-1, 3, -1, -1)
        leakage = float(change[None][outside].abs().mean()) if outside.any() else 0.0
        target = follow_colour((task.window + change).clamp(0, 1)[None, :, :h, :w], images[task.row])
        strength = task.shape.params[0]["strength"]
        support = support[..., :h, :w]
        alpha = soften_inside(support.float()) * strength
        if part is not None and REGISTRY[task.shape.families[0]].place == "inside":
            at = [task.row], [task.top], [task.left]
            cells = crop_grid(part, *at, (h, w), (height, width))
            windows = crop(images, *at, h, w)
            alpha = alpha * self.shapes.part_in_windows(windows, cells, part.shape[-2:], (height, width))
        return Proposal(
            rows=[task.row],
            top=[task.top],
            left=[task.left],
            target=target.clone(),
            alpha=alpha,
            support=support,
            families=task.shape.families,
            captions=[task.caption],
            params=[task.shape.params[0] | {"leakage": leakage, "null_noise": level}],
            prompts=[task.prompt],
        )

    def _report_unknown(self, prompt: str) -> None:
        known = self._reported | PLACE_WORDS
        unknown = [word for word in self.editor.find_unknown(prompt) if word not in known]
        if unknown:
            self._reported.update(unknown)
            warnings.warn(
                f"The pipeline never saw {', '.join(map(repr, unknown))} (in {prompt!r}): such words change nothing in "
                f"particular. Its card lists the words it knows; `anomalib-synth fit` learns others.",
                stacklevel=3,
            )


class DiffusionRetrievalGenerator(FilteredGenerator):
    """Diffusion edits, filtered by their similarity to real normals: stage 2 of arXiv 2512.23227.

    A :class:`DiffusionGenerator` edits, and the retrieval filter of :class:`FilteredGenerator` keeps what still looks
    like the product. The filter compares with real normals, so the generator must be prepared before it draws;
    callbacks, datamodule and ``anomalib-synth generate`` do that.

    Args:
        generator: The generator that edits; by default ``DiffusionGenerator()``.
        retrieval: How edits are compared with real normals.
        budget: Edits per sample, >= 1.
        mode: ``"filter"``, or the control ``"random_keep"``; see :class:`FilteredGenerator`.
        keep_share: See :class:`FilteredGenerator`.
        index_folder: Where the index of the normals is kept and found again; None builds it in every process.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If an argument is out of its range; on a call, if there are no prepared normals to compare with.
        ImportError: When it is prepared, if faiss is not installed; on first use, if diffusers or transformers is not.
    """

    def __init__(
        self,
        generator: DiffusionGenerator | None = None,
        *,
        retrieval: FilterSettings | None = None,
        budget: int = 4,
        mode: Mode = "filter",
        keep_share: float | None = None,
        index_folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            generator or DiffusionGenerator(),
            retrieval=retrieval,
            budget=budget,
            mode=mode,
            keep_share=keep_share,
            index_folder=index_folder,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One edit: its region, its text, and its window (3, S, S) with the region (1, S, S) in it."""

    row: int
    shape: Proposal
    prompt: str
    caption: str
    top: int
    left: int
    window: torch.Tensor
    mask: torch.Tensor

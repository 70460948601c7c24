"""Language-conditioned autoregressive local edits."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

import torch

from anomalib_synth.encoders.text import load_backend
from anomalib_synth.functional.masks import soften_inside
from anomalib_synth.generators.families import PHYSICAL
from anomalib_synth.generators.local_edits import draw_into
from anomalib_synth.generators.prompts import PLACE_WORDS, Prompts, keep_prompts, read_prompts, say_contrast
from anomalib_synth.generators.proposing import ProposingGenerator
from anomalib_synth.generators.region_folder import RegionFolder
from anomalib_synth.generators.regions import clip_to_region, fill_region, read_region
from anomalib_synth.generators.rule_based import RuleBasedGenerator
from anomalib_synth.generators.windows import choose_prompt, draw_region, keep_on_part
from anomalib_synth.models.bundle import Bundle, load_bundle
from anomalib_synth.models.editing import Sampling, TokenBackend, Weights
from anomalib_synth.models.janus import JanusCheckpoint, is_janus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib_synth.generators.checks import SampleChecks
    from anomalib_synth.generators.condition import Condition
    from anomalib_synth.generators.prepared import PreparedNormals
    from anomalib_synth.generators.proposal import Proposal
    from anomalib_synth.sample import AnomalySample

Shape = Literal["region", "family"]


class AutoregressiveGenerator(ProposingGenerator):
    """Draws what a text says into a region, token by token: the local edit ARAS of QARAD (arXiv 2508.03539).

    A window of the image is written in discrete tokens at several scales. Outside the region the tokens stay those of
    the source; inside they are sampled scale by scale, given the text and everything around the region. For the
    equations see :func:`anomalib_synth.models.editing.edit_window`. Nothing is trained while it draws.

    If a region is given, as ``masks`` of a call or as ``region``, it is the hard gate: no token and no pixel outside it
    changes, and the defect has its shape. Otherwise shape and place follow the text: its noun names a physical family
    of defects, the family's outline is drawn, cut off at the part's edge, and its content is sampled. Without prompts,
    the text is the caption of a randomly drawn physical defect. The models do not see what was in the region before; a
    strength below 1 mixes it in.

    We differ from the paper in four points. The models are small and local (``anomalib-synth fit``). The edit is made
    in a window at the image's own resolution, so that its cost grows with the defect and not with the image. The
    decoded source is subtracted from the decoded edit, so that the decoder's losses cancel. The colour of the edit is
    averaged over some pixels, as far as it is drawn anew; see :func:`anomalib_synth.functional.colour.smooth_tint`.

    Samples are edited one by one on one thread, so that no bit depends on the batch.

    Args:
        prompts: What to draw: texts, a text file with one text a line, or a vocabulary of ``types`` with ``sizes``,
            ``appearances`` and ``positions``; each sample draws one of the texts. None draws captions.
            Words that the models never saw are named in a warning. "left", "right", "top", "bottom" and "centre" say
            where the defect goes.
        region: Mask image (white: here) of the region that every defect is drawn into, for parts that are always in the
            same place; or a folder with a mask for each image, see :class:`.region_folder.RegionFolder`. An image
            without a mask comes back unchanged. ``masks`` of a call replace it. None draws outlines.
        shape: Which shape a defect has in a given region: ``"region"`` fills the region, ``"family"`` draws the outline
            of the family that the text names and cuts it to the region.
        bundle: Folder made by ``anomalib-synth fit``; None takes the small general bundle that comes with the package.
            Or the folder of a pretrained Janus model in the format of transformers, which needs the extra ``janus`` and
            preferably a GPU; see :class:`anomalib_synth.models.janus.JanusCheckpoint`.
        text_encoder: Name of the pretrained encoder that the bundle was fitted with (``fit --settings.text_encoder``).
            Give it where the encoder is not on this machine yet: what a bundle names is never downloaded by itself.
        sampling: How tokens are drawn. Defaults to ``Sampling()``.
        strength: Smallest and largest strength, 0 < min <= max <= 1: how far the latents move from source to edit.
        size: Smallest and largest linear size of a defect as a share of the shorter side, 0 < min <= max <= 1. An
            outline is at most 240 pixels wide, however large the image is.
        checks: Limits a sample must keep. A given region may be as large as the image.
        foreground: ``"auto"``, the path of a mask image, or None for the whole image.
        max_attempts: Draws per sample before it is given back unchanged.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If an argument is out of its range; on first use, if the bundle cannot be used.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"masks", "prompts", "prompts_to"})
    later_arguments: ClassVar[frozenset[str]] = frozenset({"text_encoder", "region", "shape"})

    def __init__(
        self,
        prompts: Prompts | None = None,
        *,
        region: Path | str | None = None,
        shape: Shape = "region",
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
        if shape not in get_args(Shape):
            msg = f"`shape` must be one of {', '.join(map(repr, get_args(Shape)))}, got {shape!r}."
            raise ValueError(msg)
        self.prompts = keep_prompts(prompts)
        self.texts = None if self.prompts is None else read_prompts(self.prompts)
        self.region = None if region is None else Path(region)
        self.shape = shape
        self.bundle = None if bundle is None else Path(bundle)
        self.text_encoder = text_encoder
        self.sampling = sampling or Sampling()
        self.shapes = RuleBasedGenerator(PHYSICAL, strength=strength, size=size, foreground=None)
        self.strength, self.size = self.shapes.strength, self.shapes.size
        self._reported: set[str] = set()

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on besides the images: masks of the part and of the region."""
        if self.region is None:
            return super().files
        return [*super().files, *([self.region] if self.regions is None else self.regions.files)]

    @cached_property
    def regions(self) -> RegionFolder | None:
        """The folder of regions, listed on first use; None if there is one region for all images, or none."""
        return RegionFolder(self.region) if self.region is not None and self.region.is_dir() else None

    @property
    def needs_names(self) -> bool:
        """Whether a call must name its images, because each has a region of its own."""
        return self.regions is not None

    @cached_property
    def weights(self) -> Weights:
        """The opened bundle or Janus model, on first use."""
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

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        """Draw into the region of the call, else of the generator; an image with an empty region stays unchanged."""
        if condition.masks is None and self.region is not None:
            condition = replace(condition, masks=self._read_regions(images, condition))
        sample = super().draw(images, seeds, condition)
        if condition.masks is not None:
            for row in (~(condition.masks > 0).flatten(1).any(1)).nonzero().flatten().tolist():
                sample.reason[row] = "the region is empty"
                if self.regions is not None and condition.names and self.regions.find(condition.names[row]) is None:
                    sample.reason[row] = f"there is no region for {PurePath(condition.names[row]).name!r}"
        return sample

    def _read_regions(self, images: torch.Tensor, condition: Condition) -> torch.Tensor:
        """Return the region of each image, (B, 1, H, W): its own from the folder, or the same for all."""
        size = images.shape[-2], images.shape[-1]
        if self.regions is None:
            return read_region(cast("Path", self.region), size).expand(len(images), -1, -1, -1)
        if condition.names is None:
            msg = (
                f"`names` must be given where `region` is a folder ({str(self.region)!r}), got none. Call with "
                "`names=`, one for each image, such as its path; or give one mask as `region`, or `masks=`."
            )
            raise ValueError(msg)
        return self.regions.read(condition.names, size)

    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None, condition: Condition
    ) -> Iterator[Proposal]:
        """Propose one defect for each row; see :meth:`ProposingGenerator.propose`."""
        for row, seed in zip(rows, seeds, strict=True):
            region = None if condition.masks is None or part is None else part[row, 0]
            if region is None or region.any():
                yield self._edit(images, row, seed, part, region, condition)

    def _edit(
        self,
        images: torch.Tensor,
        row: int,
        seed: int,
        part: torch.Tensor | None,
        region: torch.Tensor | None,
        condition: Condition,
    ) -> Proposal:
        """Draw the shape and the text of one defect, and sample its content."""
        prompt = choose_prompt(row, seed, condition, self.texts)
        if prompt is not None:
            self.report_unknown(prompt)
        if region is not None and self.shape == "region":
            shape, text = fill_region(self.shapes, images[row], row, seed, region, prompt)
        else:
            shape, text = draw_region(self.shapes, images, row, seed, part, prompt)
            shape = shape if region is None else clip_to_region(shape, region)
        outline = keep_on_part(shape)
        target, leakage = draw_into(
            self.backend,
            images[row],
            outline,
            say_contrast(text),
            seed=seed,
            sampling=self.sampling,
            strength=shape.params[0]["strength"],
            prompt_to=None if condition.prompts_to is None else say_contrast(condition.prompts_to[row]),
            mix=condition.mix,
        )
        return replace(
            shape,
            target=target,
            alpha=soften_inside(outline.support.float()),
            captions=shape.captions if prompt is None else [prompt],
            params=[shape.params[0] | {"leakage": leakage}],
            prompts=[text],
            checks=None if region is None else replace(self.checks, area=(self.checks.area[0], 1.0)),
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

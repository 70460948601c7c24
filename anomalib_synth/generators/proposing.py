"""The base of generators that draw defects of their own: it checks, redraws and composites what they propose."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from anomalib_synth.functional.masks import box_blur, exact_mean
from anomalib_synth.generators.base import AnomalyGenerator
from anomalib_synth.generators.checks import SampleChecks
from anomalib_synth.generators.proposal import Proposal, crop, crop_grid
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.images import check_same_aspect, read_mask
from anomalib_synth.sample import AnomalySample, Provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib_synth.generators.condition import Condition


class ProposingGenerator(AnomalyGenerator):
    """Draws defects of its own.

    A subclass proposes defects (:meth:`propose`); this class checks the proposals, redraws those that fail, and
    composites, so that these invariants hold for every generator:

    - Outside the mask the output equals the source exactly.
    - The mask is where the image changed visibly.
    - A sample depends only on its source, the prepared normals, the configuration, its seed, and what the call asks
      for.
    - Inputs and the global random state stay untouched.

    Args:
        checks: Limits a sample must keep. Defaults to ``SampleChecks()``.
        foreground: Where the part is. ``"auto"`` finds it with statistics of the prepared normals; a path names a mask
            image (non-zero: part) for parts that are always in the same place; None takes the whole image.
        max_attempts: Draws per sample before it is given back unchanged, >= 1.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If an argument is out of its range.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"masks"})

    def __init__(
        self,
        *,
        checks: SampleChecks | None = None,
        foreground: str | Path | None = "auto",
        max_attempts: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        if max_attempts < 1:
            msg = f"`max_attempts` must be >= 1, got {max_attempts}."
            raise ValueError(msg)
        self.checks = checks or SampleChecks()
        self.foreground = foreground
        self.max_attempts = max_attempts
        self._part_mask: torch.Tensor | None = None

    @abstractmethod
    def propose(
        self,
        images: torch.Tensor,
        rows: list[int],
        seeds: list[int],
        part: torch.Tensor | None,
        condition: Condition,
    ) -> Iterator[Proposal]:
        """Propose one defect for each of ``rows``.

        Args:
            images: (B, C, H, W) float32 in [0, 1], the whole batch.
            rows: Rows of the batch to propose for.
            seeds: One seed for each of ``rows``.
            part: (B, 1, h, w) bool, where the part is on a coarse grid, or the masks of the call at full resolution;
                None: everywhere.
            condition: What the call asks for in each row of the batch. It has prompts only if ``takes`` names them.

        Returns:
            Proposals that together hold each row at most once; a row without a proposal counts as a failed draw.
        """

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on besides the images: here, a mask of the part."""
        return [] if self.foreground in {None, "auto"} else [Path(self.foreground)]

    def draw(self, images: torch.Tensor, seeds: list[int], condition: Condition) -> AnomalySample:
        """Propose, check, redraw within the budget, composite; see :meth:`AnomalyGenerator.draw`."""
        count = len(images)
        working = images.float()
        part = self._find_part(working, condition.masks) if count else None
        record = partial(Provenance, **self._origin())
        records = [
            record(seed=seed, attempt=-1, family="", asked=condition.describe(row)) for row, seed in enumerate(seeds)
        ]
        sample = AnomalySample.unchanged(images, records, "no draw was made")
        pending = list(range(count))
        for attempt in range(self.max_attempts):
            draw_seeds = [hash64(seeds[row], attempt) for row in pending]
            accepted: set[int] = set()
            for proposal in self.propose(working, pending, draw_seeds, part, condition):
                for row, n, measured in self._settle(sample, working, proposal, part):
                    accepted.add(row)
                    sample.provenance[row] = record(
                        seed=seeds[row],
                        attempt=attempt,
                        family=proposal.families[n],
                        params=proposal.params[n],
                        measured=measured,
                        prompt=proposal.prompts[n] if proposal.prompts else "",
                        asked=condition.describe(row),
                    )
            pending = [row for row in pending if row not in accepted]
            if not pending:
                break
        rejected = set(pending)
        sample.accepted.copy_(torch.tensor([row not in rejected for row in range(count)], dtype=torch.bool))
        return sample

    def _settle(
        self,
        sample: AnomalySample,
        images: torch.Tensor,
        proposal: Proposal,
        part: torch.Tensor | None,
    ) -> list[tuple[int, int, dict[str, float]]]:
        """Check the windows of a proposal, composite those that pass, and return their rows, indices, measurements."""
        height, width = images.shape[-2:]
        h, w = proposal.alpha.shape[-2:]
        source = crop(images, proposal.rows, proposal.top, proposal.left, h, w)
        changed = (proposal.target - source).mul_(proposal.alpha).add_(source).clamp_(0, 1)
        output = changed.to(sample.image.dtype)
        foreground = (
            torch.ones_like(proposal.alpha)
            if part is None
            else crop_grid(part, proposal.rows, proposal.top, proposal.left, (h, w), (height, width))
        )
        checked = (proposal.checks or self.checks)(
            source,
            output.float(),
            proposal.support,
            foreground=foreground,
            noise=self._noise_floor(proposal, source, (height, width)),
            image_pixels=height * width,
        )
        original = (
            source
            if output.dtype == source.dtype
            else crop(sample.source, proposal.rows, proposal.top, proposal.left, h, w)
        )
        inside = checked.mask > 0
        accepted = []
        for n, (row, top, left) in enumerate(zip(proposal.rows, proposal.top, proposal.left, strict=True)):
            sample.reason[row] = checked.reason[n] and f"{proposal.families[n]}: {checked.reason[n]}"
            if checked.reason[n]:
                continue
            accepted.append((row, n, checked.measured[n]))
            place = sample.image[row, :, top : top + h, left : left + w]
            place.copy_(torch.where(inside[n], output[n], original[n]))
            sample.mask[row, :, top : top + h, left : left + w] = checked.mask[n]
            sample.quality[row] = checked.quality[n]
            sample.caption[row] = proposal.captions[n]
        return accepted

    def _noise_floor(self, proposal: Proposal, source: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return the noise (N,) where each defect is meant to be: of the normals, or if unprepared, of the image."""
        if self.prepared is None:
            local = _residual(source)
        else:
            noise = self.prepared.noise.to(source.device).expand(max(proposal.rows) + 1, 1, -1, -1)
            local = crop_grid(noise, proposal.rows, proposal.top, proposal.left, source.shape[-2:], size)
        return exact_mean(local, proposal.support.float())

    def _find_part(self, images: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor | None:
        """Return where defects may lie, (B, 1, h, w) bool at any resolution, or None for everywhere."""
        if masks is not None:
            return masks.to(images.device) > 0
        if self.foreground is None:
            return None
        if self.foreground == "auto":
            return self.prepared.foreground.segment(images) if self.prepared else None
        if self._part_mask is None:
            part = read_mask(Path(self.foreground), "foreground", of_defect=False)
            self._part_mask = torch.from_numpy(np.ascontiguousarray(part))[None, None]
        own, wanted = self._part_mask.shape[-2:], images.shape[-2:]
        check_same_aspect((own[0], own[1]), (wanted[0], wanted[1]), f"`foreground` mask {self.foreground!r}")
        return self._part_mask.to(images.device).expand(len(images), -1, -1, -1)


def _residual(source: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute high-pass response over the channels: (N, C, h, w) -> (N, 1, h, w)."""
    return (sum((source - box_blur(source)).abs_().unbind(1)) * (1 / source.shape[1])).unsqueeze(1)

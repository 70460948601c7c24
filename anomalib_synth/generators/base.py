"""The base of all generators: validation, seeds, retries, checks and compositing, once for everybody."""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anomalib_synth._version import __version__
from anomalib_synth.functional.masks import box_blur, exact_mean
from anomalib_synth.generators.checks import SampleChecks
from anomalib_synth.generators.prepared import PreparedNormals
from anomalib_synth.generators.seeding import derive_seeds, hash64
from anomalib_synth.generators.validation import check_images, check_masks
from anomalib_synth.images import check_same_aspect, digest_images, read_mask
from anomalib_synth.models.editing import Sampling
from anomalib_synth.sample import AnomalySample, Provenance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Self


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Windows of one size with a defect in each, before the checks.

    Shape:
        - ``rows``: N indices into the batch; ``top``, ``left``: N corners of the windows, in pixels
        - ``target``: (N, C, h, w) float32, full-strength defect; ``alpha``: (N, 1, h, w) float32 coverage by strength
        - ``support``: (N, 1, h, w) bool, where the defect is meant to be, whatever its strength
        - ``families``, ``captions``, ``params``: one entry a row; ``prompts`` too, where there were any
        - ``checks``: the limits they must keep, where those are not the generator's
    """

    rows: list[int]
    top: list[int]
    left: list[int]
    target: torch.Tensor
    alpha: torch.Tensor
    support: torch.Tensor
    families: list[str]
    captions: list[str]
    params: list[dict[str, float]]
    prompts: list[str] | None = None
    checks: SampleChecks | None = None


class AnomalyGenerator(ABC):
    """Draws synthetic defects onto normal images.

    A subclass proposes defects (:meth:`propose`); this class derives seeds, checks the proposals, redraws what fails,
    and composites, so that the invariants hold for every generator: outside the mask the output *is* the source, the
    mask is where the image changed visibly, a sample depends on nothing but its source, the prepared set, the
    configuration and its seed, and inputs and global random state stay untouched.

    Args:
        checks: Limits a sample must keep. Defaults to ``SampleChecks()``.
        foreground: ``"auto"`` finds the part by statistics over the prepared normals; a path names a mask image
            (non-zero: part) for parts that are always in the same place; None takes the whole image.
        max_attempts: Draws per sample before it is given back unchanged, >= 1.
        seed: Base seed, used when a call names no seeds.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        *,
        checks: SampleChecks | None = None,
        foreground: str | Path | None = "auto",
        max_attempts: int = 4,
        seed: int = 0,
    ) -> None:
        if max_attempts < 1:
            msg = f"`max_attempts` must be >= 1, got {max_attempts}."
            raise ValueError(msg)
        self.checks = checks or SampleChecks()
        self.foreground = foreground
        self.max_attempts = max_attempts
        self.seed = seed
        self.prepared: PreparedNormals | None = None
        self._part_mask: torch.Tensor | None = None
        self._images_seen = 0

    @property
    @abstractmethod
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments as plain data: with them, :func:`build_generator` makes an equal generator."""

    @abstractmethod
    def propose(
        self, images: torch.Tensor, rows: list[int], seeds: list[int], part: torch.Tensor | None
    ) -> Iterator[Proposal]:
        """Propose one defect for each of ``rows``.

        Args:
            images: (B, C, H, W) float32 in [0, 1], the whole batch.
            rows: Rows of the batch to propose for.
            seeds: One seed a row of ``rows``.
            part: (B, 1, h, w) bool on a coarse grid, where the part is; None: everywhere.
        """

    @property
    def config(self) -> dict[str, Any]:
        """``{"class_path": ..., "init_args": {...}}``, as it stands in YAML."""
        module = type(self).__module__
        if module.startswith("anomalib_synth.generators."):
            module = "anomalib_synth.generators"
        return {"class_path": f"{module}.{type(self).__qualname__}", "init_args": self.init_args}

    def common_init_args(self) -> dict[str, Any]:
        """The arguments of this class as plain data."""
        checks = {**vars(self.checks), "area": list(self.checks.area)}
        return {
            "checks": checks,
            "foreground": None if self.foreground is None else str(self.foreground),
            "max_attempts": self.max_attempts,
            "seed": self.seed,
        }

    @property
    def files(self) -> list[Path]:
        """The files that samples depend on beside the images: a mask of the part, textures."""
        return [] if self.foreground in {None, "auto"} else [Path(self.foreground)]

    @property
    def defect_images(self) -> list[Path]:
        """Images of real defects that samples show: who trains on the samples has seen them."""
        return []

    @property
    def defect_digests(self) -> dict[str, str]:
        """The file of each of :attr:`defect_images` by the digest of what it shows."""
        return dict(zip(digest_images(self.defect_images), map(str, self.defect_images), strict=True))

    @cached_property
    def files_digest(self) -> str:
        """Digest of the contents of :attr:`files`, read once; ``""`` when there are none."""
        if not self.files:
            return ""
        digest = blake2b(digest_size=16)
        for file in self.files:
            digest.update(blake2b(file.read_bytes(), digest_size=16).digest())
        return digest.hexdigest()

    @property
    def prepare_digest(self) -> str:
        """Digest of the prepared normals, ``""`` before :meth:`prepare`."""
        return self.prepared.digest if self.prepared else ""

    def prepare(self, normals: Iterable[torch.Tensor]) -> Self:
        """Measure the normals of the product: donors, noise floor, foreground.

        Args:
            normals: Images (C, H, W) or batches (B, C, H, W), float in [0, 1], at the size the generator will see.

        Returns:
            The generator itself.

        Raises:
            ValueError: If there is no image, or an image is not a finite float image in [0, 1].
        """
        self.use_prepared(PreparedNormals.from_images(normals))
        return self

    def use_prepared(self, prepared: PreparedNormals) -> None:
        """Take normals that were measured before, to share them among generators."""
        self.prepared = prepared

    def __call__(
        self,
        images: torch.Tensor,
        *,
        seeds: torch.Tensor | Sequence[int] | None = None,
        masks: torch.Tensor | None = None,
    ) -> AnomalySample:
        """Draw one defect onto each image.

        Args:
            images: (B, C, H, W) float in [0, 1], C = 1 or 3, before any normalisation.
            seeds: (B,) integers >= 0; None derives them from the base seed and the number of images seen so far.
            masks: (B, 1, H, W), optional: the region a defect should lie in (non-zero), in place of the
                foreground. It clips nothing: at least ``SampleChecks.min_foreground`` of a defect lies in it.

        Returns:
            The sample; rows that failed every draw are the source, with a reason.

        Raises:
            ValueError: If an argument has the wrong rank, size, range or number.
        """
        check_images(images)
        if self.prepared is not None and self.prepared.donors.shape[1] != images.shape[1]:
            msg = (
                f"`images` have {images.shape[1]} channels, but the generator was prepared with "
                f"{self.prepared.donors.shape[1]}. Prepare it with normals like the images."
            )
            raise ValueError(msg)
        images = images.detach().as_subclass(torch.Tensor)
        seed_list = self._seed_list(seeds, len(images))
        check_masks(masks, images)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self._draw(images, seed_list, masks)

    def _seed_list(self, seeds: torch.Tensor | Sequence[int] | None, count: int) -> list[int]:
        if seeds is None:
            first = self._images_seen
            self._images_seen += count
            return derive_seeds(self.seed, 0, range(first, first + count)).tolist()
        listed: list[Any] = (
            seeds.tolist() if hasattr(seeds, "tolist") else list(seeds) if hasattr(seeds, "__iter__") else [seeds]
        )
        if len(listed) != count or any(not isinstance(seed, int) or seed < 0 for seed in listed):
            msg = f"`seeds` must be {count} integers >= 0, one an image, got {len(listed)}: {listed[:4]}."
            raise ValueError(msg)
        return listed

    def _draw(self, images: torch.Tensor, seeds: list[int], masks: torch.Tensor | None) -> AnomalySample:
        """Propose, check, redraw within the budget, composite."""
        count = len(images)
        working = images.float()
        part = self._find_part(working, masks) if count else None
        record = partial(
            Provenance,
            config=self.config,
            prepare_digest=self.prepare_digest,
            files_digest=self.files_digest,
            version=__version__,
        )
        records = [record(seed=seed, attempt=-1, family="") for seed in seeds]
        sample = AnomalySample.unchanged(images, records, "no draw was made")
        pending = list(range(count))
        for attempt in range(self.max_attempts):
            draw_seeds = [hash64(seeds[row], attempt) for row in pending]
            accepted: set[int] = set()
            for proposal in self.propose(working, pending, draw_seeds, part):
                for row, n, measured in self._settle(sample, working, proposal, part):
                    accepted.add(row)
                    sample.provenance[row] = record(
                        seed=seeds[row],
                        attempt=attempt,
                        family=proposal.families[n],
                        params=proposal.params[n],
                        measured=measured,
                        prompt=proposal.prompts[n] if proposal.prompts else "",
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
        """Check the windows of a proposal, composite those that pass; return row, position and measurements of each."""
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
        verdict = (proposal.checks or self.checks)(
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
        inside = verdict.mask > 0
        accepted = []
        for n, (row, top, left) in enumerate(zip(proposal.rows, proposal.top, proposal.left, strict=True)):
            sample.reason[row] = verdict.reason[n] and f"{proposal.families[n]}: {verdict.reason[n]}"
            if verdict.reason[n]:
                continue
            accepted.append((row, n, verdict.measured[n]))
            place = sample.image[row, :, top : top + h, left : left + w]
            place.copy_(torch.where(inside[n], output[n], original[n]))
            sample.mask[row, :, top : top + h, left : left + w] = verdict.mask[n]
            sample.quality[row] = verdict.quality[n]
            sample.caption[row] = proposal.captions[n]
        return accepted

    def _noise_floor(self, proposal: Proposal, source: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return the noise (N,) where each defect is meant to be: of the normals, or of the image when unprepared."""
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


def build_generator(config: dict[str, Any], *, imports: bool = False) -> AnomalyGenerator:
    """Build the generator a :class:`Provenance`, or a config, describes.

    By default nothing is imported but this package: a config may come out of somebody else's store. Import the module
    of a generator of your own before.

    Args:
        config: ``{"class_path": ..., "init_args": {...}}``.
        imports: Import the modules it names, for a config of a generator that the user has built in another process.

    Raises:
        ValueError: If the class is not a generator, or in a module that is not imported.
    """
    module, _, name = str(config["class_path"]).rpartition(".")
    if imports or module.partition(".")[0] == "anomalib_synth":
        with suppress(ImportError):
            importlib.import_module(module)
    cls = getattr(sys.modules.get(module), name, None)
    if not (isinstance(cls, type) and issubclass(cls, AnomalyGenerator)):
        msg = f"`class_path` must name a generator of a module that is imported, got {config['class_path']!r}."
        raise ValueError(msg)
    arguments = dict(config["init_args"])
    if isinstance(arguments.get("checks"), dict):
        checks = dict(arguments["checks"])
        if "area" in checks:
            checks["area"] = tuple(checks["area"])
        arguments["checks"] = SampleChecks(**checks)
    if isinstance(arguments.get("sampling"), dict):
        arguments["sampling"] = Sampling(**arguments["sampling"])
    if isinstance(arguments.get("generator"), dict):
        arguments["generator"] = build_generator(arguments["generator"], imports=imports)
    if "generators" in arguments:
        arguments["generators"] = [build_generator(child, imports=imports) for child in arguments["generators"]]
    return cls(**arguments)


def crop(images: torch.Tensor, rows: list[int], top: list[int], left: list[int], h: int, w: int) -> torch.Tensor:
    """Cut one h x w window out of each of the rows: (B, C, H, W) -> (N, C, h, w); a view when there is one row."""
    cut = [images[row, :, t : t + h, s : s + w] for row, t, s in zip(rows, top, left, strict=True)]
    return cut[0].unsqueeze(0) if len(cut) == 1 else torch.stack(cut)


def crop_grid(
    grid: torch.Tensor, rows: list[int], top: list[int], left: list[int], window: tuple[int, int], size: tuple[int, int]
) -> torch.Tensor:
    """Cut windows out of a map on a coarser grid, by nearest neighbour: (B, 1, gh, gw) -> (N, 1, h, w) float32."""
    grid_h, grid_w = grid.shape[-2:]
    cut = []
    for row, t, s in zip(rows, top, left, strict=True):
        y = torch.arange(t, t + window[0], device=grid.device) * grid_h // size[0]
        x = torch.arange(s, s + window[1], device=grid.device) * grid_w // size[1]
        cut.append(grid[row].index_select(1, y).index_select(2, x))
    return torch.stack(cut).float()


def _residual(source: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute high-pass response over the channels: (N, C, h, w) -> (N, 1, h, w)."""
    return (sum((source - box_blur(source)).abs_().unbind(1)) * (1 / source.shape[1])).unsqueeze(1)

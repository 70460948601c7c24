"""Edits windows with pretrained text-guided image-to-image pipelines of diffusers, used unchanged."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from anomalib_synth.images.batching import fill_chunks
from anomalib_synth.installation import install_extras, install_package
from anomalib_synth.models.captions import CaptionVocabulary
from anomalib_synth.models.pipeline_components import (
    INDEX,
    check_tokenizers,
    find_pipeline_class,
    load_models,
    read_card,
    read_index,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

CARD = "anomalib_synth.json"
INSTRUCTION = "add {}"
_GUIDANCE = {"guidance_scale": 7.5, "image_guidance_scale": 1.5}
_NO_CHECKER = {"safety_checker": None, "requires_safety_checker": False}
_DTYPES = ("float32", "float16", "bfloat16")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings:
    """How a pipeline is run.

    Args:
        num_inference_steps: Steps of denoising, >= 1.
        guidance_scale: Weight of the instruction, >= 1; None takes the value that the card of a pipeline made by
            ``anomalib-synth fit --diffusion`` recommends, and 7.5 for other pipelines.
        image_guidance_scale: Weight of the image, >= 1; None takes the card's value, and 1.5 for other pipelines.
        scheduler: Class of diffusers in place of the pipeline's own scheduler, such as ``DPMSolverMultistepScheduler``,
            or ``LCMScheduler`` for weights distilled for few steps; None keeps the pipeline's.
        instruction: Template of the text that the pipeline gets; ``{}`` stands for the prompt and must occur once.
        resolution: Side in pixels to which smaller windows are enlarged, >= 1; None takes the pipeline's own.
        batch_size: Windows per call of the pipeline, >= 1. Batches are padded to exactly this size.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        device: Device to run on, such as ``cuda``; None uses the device of the images.
        offload: ``model`` or ``sequential`` keeps parts in CPU memory until they are needed; None keeps all on the
            device.

    Raises:
        ValueError: If a value is out of its range.
    """

    num_inference_steps: int = 20
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    scheduler: str | None = None
    instruction: str = INSTRUCTION
    resolution: int | None = None
    batch_size: int = 4
    dtype: str = "float32"
    device: str | None = None
    offload: str | None = None

    def __post_init__(self) -> None:
        """Validate the values."""
        for name in ("num_inference_steps", "guidance_scale", "image_guidance_scale", "resolution", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"`{name}` must be >= 1, got {value}."
                raise ValueError(msg)
        for name, known in (("dtype", _DTYPES), ("offload", (None, "model", "sequential"))):
            if getattr(self, name) not in known:
                msg = f"`{name}` must be one of {', '.join(map(str, known))}, got {getattr(self, name)!r}."
                raise ValueError(msg)
        if self.instruction.count("{}") != 1:
            msg = f"`instruction` must hold {{}} once, where the prompt goes, got {self.instruction!r}."
            raise ValueError(msg)


class DiffusionEditor:
    """A text-guided image-to-image pipeline of diffusers, used unchanged.

    Any pipeline that is called like ``StableDiffusionInstructPix2PixPipeline`` (arXiv 2211.09800) works: its SDXL
    version, one trained by ``anomalib-synth fit --diffusion``, or an inpainting pipeline, which also gets the region.
    Nothing is loaded before it is needed. Weights are read from safetensors only, code from a repository is never run,
    and the safety checker is left out: it replaces images it objects to by black ones.

    Each sample's noise comes from its own random generator on the CPU, and batches always have the same size, so a
    result does not depend on what else is edited. Windows go in and out as float tensors: nothing is rounded to 8 bits.

    Args:
        pipeline: Folder in the format of diffusers' ``save_pretrained``, or id of a repository on the Hugging Face hub;
            a copy in the hub's cache is preferred to fetching.
        settings: How the pipeline is run. Defaults to ``DiffusionSettings()``.
    """

    def __init__(self, pipeline: str | Path, settings: DiffusionSettings | None = None) -> None:
        self.pipeline = str(pipeline)
        self.settings = settings or DiffusionSettings()
        self._device: torch.device | None = None

    @cached_property
    def directory(self) -> Path:
        """The folder of the pipeline; for a repository, its snapshot in the cache, fetched if missing.

        Raises:
            ValueError: If the folder holds no pipeline and none can be fetched.
        """
        folder = Path(self.pipeline)
        if (folder / INDEX).is_file():
            return folder
        if folder.exists() or folder.is_absolute() or len(folder.parts) != 2 or folder.parts[0] in {"..", "~"}:
            msg = f"`pipeline` {self.pipeline!r} is not a diffusers pipeline: it has no {INDEX}. {_remedies('')}"
            raise ValueError(msg)
        fetch = import_diffusers().DiffusionPipeline.download
        try:
            return Path(fetch(self.pipeline, use_safetensors=True, local_files_only=True))
        except Exception:  # not in the cache; the libraries raise many kinds of errors
            try:
                return Path(fetch(self.pipeline, use_safetensors=True))
            except Exception as error:
                msg = (
                    f"`pipeline` {self.pipeline!r} is neither a folder nor in the cache of the Hugging Face hub, and "
                    f"cannot be fetched ({error}). {_remedies(self.pipeline)}"
                )
                raise ValueError(msg) from error

    @cached_property
    def card(self) -> dict[str, Any]:
        """The card that ``anomalib-synth fit`` writes for a pipeline it trained; empty for other pipelines."""
        file = self.directory / CARD
        return read_card(file) if file.is_file() else {}

    @cached_property
    def weights_hash(self) -> str:
        """Digest of the pipeline's files; for a repository, its id and commit."""
        folder = self.directory
        if folder != Path(self.pipeline):
            return f"{self.pipeline}@{folder.name}"
        files = [folder / INDEX]
        for name in sorted(self._index):
            if not name.startswith("_") and (folder / name).is_dir():
                files += sorted(file for file in (folder / name).rglob("*") if file.is_file())
        _logger.info("Reading %.1f GiB of weights for their digest.", sum(f.stat().st_size for f in files) / 2**30)
        digest = blake2b(json.dumps(self.card.get("recommended")).encode(), digest_size=16)
        for file in files:
            with file.open("rb") as stream:
                digest.update(file.relative_to(folder).as_posix().encode() + file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def pipe(self) -> Any:
        """The loaded pipeline of diffusers.

        Raises:
            ImportError: If diffusers or transformers is not installed.
            ValueError: If its files are missing or do not fit, or it is not called with an image and a prompt.
        """
        diffusers = import_diffusers()
        kind = find_pipeline_class(self._index, diffusers, pipeline=self.pipeline)
        takes = inspect.signature(kind.__init__).parameters
        options = {name: value for name, value in _NO_CHECKER.items() if name in takes}
        dtype = getattr(torch, self.settings.dtype)
        try:
            with torch.random.fork_rng(devices=[]), quiet(diffusers):
                pipe = diffusers.DiffusionPipeline.from_pretrained(
                    self.directory,
                    use_safetensors=True,
                    local_files_only=True,
                    torch_dtype=dtype,
                    low_cpu_mem_usage=importlib.util.find_spec("accelerate") is not None,
                    **options,
                    **load_models(self.directory, self._index, dtype=dtype),
                )
            check_tokenizers(pipe.components, self.directory)
        except Exception as error:  # the libraries raise many kinds of errors for files that do not fit
            msg = f"diffusers cannot load the pipeline in {str(self.directory)!r}: {error} {_remedies(self.pipeline)}"
            raise ValueError(msg) from error
        if (self._index.get("safety_checker") or [None])[0] is not None:
            _logger.info("The safety checker of %s is left out.", self.pipeline)
        pipe.set_progress_bar_config(disable=True)
        if self.settings.scheduler is not None:
            pipe.scheduler = _find_scheduler(self.settings.scheduler).from_config(pipe.scheduler.config)
        return pipe

    @cached_property
    def guidance(self) -> dict[str, float]:
        """The guidance scales of instruction and image that are used."""
        asked = {name: getattr(self.settings, name) for name in _GUIDANCE}
        known = _GUIDANCE | self.card.get("recommended", {})
        return {name: known[name] if value is None else value for name, value in asked.items()}

    @cached_property
    def resolution(self) -> int:
        """Side in pixels to which smaller windows are enlarged."""
        if self.settings.resolution is not None:
            return self._fit(self.settings.resolution)
        size = getattr(self._denoiser.config, "sample_size", None)
        if not isinstance(size, int):
            msg = f"`resolution` must be set: {self.pipeline!r} does not say for which size it was trained."
            raise ValueError(msg)
        return self._fit(size * self.pipe.vae_scale_factor)

    def find_unknown(self, text: str) -> list[str]:
        """Return the words that a pipeline of ``anomalib-synth fit`` never saw; for other pipelines, none."""
        words = self.card.get("words")
        return [] if words is None else CaptionVocabulary(words).find_unknown(text)

    @torch.no_grad()
    def edit(
        self,
        windows: Sequence[torch.Tensor],
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        masks: Sequence[torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """Edit windows and return the changes.

        A window smaller than the pipeline's resolution is enlarged for the edit, and only the change is scaled back, so
        unchanged parts of the window stay as sharp as they were.

        Args:
            windows: N windows (3, S, S) in [0, 1]; S may differ between windows.
            prompts: N prompts; an empty one means no instruction.
            seeds: N seeds of the noise.
            masks: N regions (1, S, S) in {0, 1}, for pipelines that take a mask; others ignore them.

        Returns:
            N changes (3, S, S), float32 in about [-1, 1], on the windows' device: edited window minus window.

        Raises:
            ValueError: If the pipeline cannot be loaded, or returns values that are not finite.
        """
        changes: list[torch.Tensor | None] = [None] * len(windows)
        sides = [max(self.resolution, self._fit(window.shape[-1])) for window in windows]
        for side in sorted(set(sides)):
            rows = [row for row, own in enumerate(sides) if own == side]
            for filled, count in fill_chunks(rows, self.settings.batch_size):
                shown = torch.stack([_resize(windows[row], side).clamp(0, 1) for row in filled])
                regions = None
                if masks is not None:
                    regions = torch.stack([_resize(masks[row].float(), side).round() for row in filled])
                edited = self._run(shown, [prompts[row] for row in filled], [seeds[row] for row in filled], regions)
                for row, change in zip(filled[:count], edited - shown, strict=False):
                    changes[row] = _resize(change, windows[row].shape[-1])
        return changes

    def _run(
        self, images: torch.Tensor, prompts: list[str], seeds: list[int], regions: torch.Tensor | None
    ) -> torch.Tensor:
        """Call the pipeline on one full batch: (B, 3, R, R) in [0, 1] -> edited images of the same shape and range."""
        pipe = self._place(torch.device(self.settings.device or images.device))
        takes = inspect.signature(pipe.__call__).parameters
        options = {"height": images.shape[-2], "width": images.shape[-1], "mask_image": regions, **self.guidance}
        edited = pipe(
            prompt=[self.settings.instruction.format(prompt) if prompt else "" for prompt in prompts],
            image=images,
            num_inference_steps=self.settings.num_inference_steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
            **{name: value for name, value in options.items() if name in takes},
        ).images
        edited = edited.to(images.device, torch.float32)
        if not edited.isfinite().all():
            msg = f"{self.pipeline!r} gave values that are not finite in {self.settings.dtype}. Use another `dtype`."
            raise ValueError(msg)
        return edited.clamp(0, 1)

    def _place(self, device: torch.device) -> Any:
        """Return the pipeline on a device."""
        if device != self._device:
            offload = self.settings.offload
            if offload is None:
                self.pipe.to(device)
            elif device.type == "cpu" or importlib.util.find_spec("accelerate") is None:
                msg = f"`offload` {offload!r} needs an accelerator as `device` and `{install_package('accelerate')}`."
                raise ValueError(msg)
            elif offload == "model":
                self.pipe.enable_model_cpu_offload(device=device)
            else:
                self.pipe.enable_sequential_cpu_offload(device=device)
            self._device = device
        return self.pipe

    @cached_property
    def _index(self) -> dict[str, Any]:
        return read_index(self.directory)

    @property
    def _denoiser(self) -> Any:
        return getattr(self.pipe, "unet", None) or self.pipe.transformer

    def _fit(self, side: int) -> int:
        """Return the next larger side that the pipeline can edit: a multiple of its total down-sampling factor."""
        halved = len(getattr(self._denoiser.config, "block_out_channels", (1, 1))) - 1
        step = self.pipe.vae_scale_factor * 2**halved
        return -(-side // step) * step


def import_diffusers() -> ModuleType:
    """Return diffusers.

    Raises:
        ImportError: If diffusers or transformers is not installed.
    """
    try:
        import diffusers
        import transformers  # noqa: F401 - the text encoders
    except ImportError as error:
        msg = f"Diffusion needs diffusers and transformers: `{install_extras('diffusion')}`."
        raise ImportError(msg) from error
    return diffusers


def _find_scheduler(name: str) -> Any:
    import diffusers

    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
        msg = f"`scheduler` must name a scheduler of diffusers, such as DPMSolverMultistepScheduler, got {name!r}."
        raise ValueError(msg)
    return found


def _remedies(name: str) -> str:
    """Return what the user can do if a pipeline is missing."""
    name = name or "REPOSITORY"
    return (
        "Either (1) name a folder in diffusers' format: `pipeline: /path/to/pipeline` (on a machine with network, "
        f"`hf download {name} --local-dir /path/to/pipeline` fetches one); or (2) run once with network, or with "
        "HF_HOME on a copied cache, where it is kept; or (3) train a small one on your own images, without network: "
        "`anomalib-synth fit --diffusion true --normals DIR --out DIR`."
    )


def _resize(image: torch.Tensor, side: int) -> torch.Tensor:
    """Resize (C, S, S) to (C, side, side)."""
    if image.shape[-1] == side:
        return image
    mode = "bicubic" if side > image.shape[-1] else "bilinear"
    return F.interpolate(image[None], (side, side), mode=mode, antialias=True)[0]


@contextmanager
def quiet(diffusers: ModuleType) -> Iterator[None]:
    """Hide progress bars and FutureWarnings while parts are read or written."""
    import transformers

    modules = [diffusers.utils.logging, transformers.utils.logging]
    shown = [module.is_progress_bar_enabled() for module in modules]
    for module in modules:
        module.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for module, was in zip(modules, shown, strict=True):
            if was:
                module.enable_progress_bar()

"""``anomalib-synth fit``: local models from the user's own normals."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.nn import functional as F

from anomalib_synth.engines.inputs import UnreadableInputError, allow_large_images, decode_image, read_bytes
from anomalib_synth.engines.progress import as_duration
from anomalib_synth.engines.scanning import list_folder
from anomalib_synth.fitting.bundle import FitSettings, estimate_minutes, fit_bundle
from anomalib_synth.fitting.diffusion import DEFECT_SIZE, SAMPLED_WINDOW, DiffusionFitSettings, fit_pipeline
from anomalib_synth.fitting.diffusion import estimate_minutes as estimate_pipeline_minutes
from anomalib_synth.generators import AnomalyGenerator, MixtureGenerator, RealDefectGenerator, RuleBasedGenerator
from anomalib_synth.generators.families import REGISTRY
from anomalib_synth.generators.prepared import evenly_spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomalib_synth.fitting.bundle import Advance


def fit(
    normals: Path,
    *,
    out: Path,
    defects: Path | None = None,
    settings: FitSettings | None = None,
    diffusion: bool = False,
    diffusion_settings: DiffusionFitSettings | None = None,
    image_size: int | None = None,
    max_normals: int = 300,
    licence: str = "not stated",
    dry_run: bool = False,
) -> None:
    """Train local models on your own good images: those of `AutoregressiveGenerator` and of the quality score.

    Windows of the images get captioned rule-based defects of the physical families, and real ones if you have some: a
    tokenizer, a token transformer and a small dual encoder learn from them. With `--diffusion true`, a pipeline of
    `DiffusionGenerator` learns from them instead: a small latent diffusion in the format of diffusers. A run
    that was stopped goes on when the same command is given again, and ends with the same weights.

    Args:
        normals: Folder with good images, searched recursively.
        out: Folder of the bundle, or of the pipeline.
        defects: Folder of real defects by type, with masks, as for RealDefectGenerator; none of the test set. The name
            of a folder is its defects' caption.
        settings: How long and how large, for the bundle.
        diffusion: Train a pipeline of `DiffusionGenerator` in place of the bundle.
        diffusion_settings: How long and how large, for the pipeline.
        image_size: Side in pixels that images are resized to, >= 64; by default they keep their size.
        max_normals: Number of images to learn from, >= 2, evenly spread.
        licence: Licence of the images, for the card.
        dry_run: Say how long it would take, and write nothing.

    Raises:
        ValueError: If an argument is out of its range, or fewer than two images can be read.
    """
    for name, value, least in (("max_normals", max_normals, 2), ("image_size", image_size or 64, 64)):
        if value < least:
            msg = f"`{name}` must be >= {least}, got {value}."
            raise ValueError(msg)
    if (settings if diffusion else diffusion_settings) is not None:
        wrong, right = ("settings", "diffusion_settings") if diffusion else ("diffusion_settings", "settings")
        msg = f"`{wrong}` has no effect with `diffusion` {str(diffusion).lower()}. Set `{right}`."
        raise ValueError(msg)
    settings = settings or FitSettings()
    diffusion_settings = diffusion_settings or DiffusionFitSettings()
    images, unreadable = read_images(
        list_folder(normals),
        image_size=image_size,
        limit=max_normals,
        least=SAMPLED_WINDOW if diffusion else settings.window,
    )
    for name, reason in unreadable.items():
        print(f"Left out {name}: {reason}.")
    generator = choose_teacher(defects, size=DEFECT_SIZE) if diffusion else choose_teacher(defects)
    if diffusion:
        minutes = estimate_pipeline_minutes(images, generator, diffusion_settings)
    else:
        minutes = estimate_minutes(images, generator, settings)
    print(f"{len(images)} images; about {as_duration(60 * minutes)} in all, less if it stops early.", flush=True)
    if dry_run:
        return
    inputs = {str(normals): licence, "defects: the physical families": "Apache-2.0"}
    if defects is not None:
        inputs[str(defects)] = licence
    with show_progress() as advance:
        if diffusion:
            card = fit_pipeline(images, generator, out, settings=diffusion_settings, inputs=inputs, advance=advance)
        else:
            card = fit_bundle(images, generator, out, settings=settings, inputs=inputs, advance=advance).card
    quality = card["reconstruction_psnr_db"]
    if diffusion:
        print(f"Held-out windows come back with {quality:.1f} dB from their latents. Pipeline: {out}")
    else:
        print(f"Held-out normals come back with {quality['tokens']:.1f} dB from their tokens. Bundle: {out}")


@contextmanager
def show_progress() -> Iterator[Advance]:
    """Show a bar for each stage of a training."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left:")
    with Progress(*columns, TimeRemainingColumn()) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, step: int, steps: int, text: str) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=steps)
            progress.update(tasks[stage], completed=step, description=f"{stage:<12} {text:<24}")

        yield advance


def read_images(
    files: dict[str, Path], *, image_size: int | None, limit: int, least: int
) -> tuple[list[torch.Tensor], dict[str, str]]:
    """Return images (3, H, W) uint8, and the reason for each file that was left out.

    An image whose shorter side is below ``least`` is enlarged to it.

    Raises:
        ValueError: If fewer than two can be read.
    """
    images, unreadable = [], {}
    with allow_large_images():
        for name, path in evenly_spread(list(files.items()), limit):
            try:
                pixels = torch.from_numpy(decode_image(read_bytes(path), image_size=image_size)).permute(2, 0, 1)
            except UnreadableInputError as error:
                unreadable[name] = str(error)
                continue
            images.append(_enlarge(pixels, least).contiguous())
    if len(images) < 2:
        examples = "; ".join(f"{name!r}: {reason}" for name, reason in list(unreadable.items())[:3])
        msg = f"`normals` must hold at least two readable images, got {len(images)}. {examples}"
        raise ValueError(msg)
    return images, unreadable


def choose_teacher(defects: Path | None, *, size: tuple[float, float] = (0.1, 0.6)) -> AnomalyGenerator:
    """Return what draws the captioned defects: the physical families and, half of the time, real ones."""
    physical = [family.name for family in REGISTRY.values() if family.physical]
    rules = RuleBasedGenerator(physical, size=size, strength=(0.4, 1.0), foreground=None)
    if defects is None:
        return rules
    return MixtureGenerator([rules, RealDefectGenerator(defects, foreground=None)])


def _enlarge(pixels: torch.Tensor, least: int) -> torch.Tensor:
    shorter = min(pixels.shape[1:])
    if shorter >= least:
        return pixels
    size = [max(least, round(side * least / shorter)) for side in pixels.shape[1:]]
    return F.interpolate(pixels[None].float(), size=size, mode="bilinear")[0].round().to(torch.uint8)

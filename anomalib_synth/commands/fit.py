"""The command `anomalib-synth fit`: local models from the user's own normals."""

from __future__ import annotations

from pathlib import Path

from anomalib_synth.commands.preconditions import check_writable_folder, require_extra
from anomalib_synth.fitting.settings import DiffusionFitSettings, FitSettings


def fit(
    normals: Path,
    *,
    out: Path,
    defects: Path | None = None,
    settings: FitSettings | None = None,
    diffusion: bool = False,
    diffusion_settings: DiffusionFitSettings | None = None,
    image_size: int | str | None = None,
    bit_depth: int | None = None,
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
        image_size: Long side in pixels that images are resized to, >= 64, or height x width, such as 384x512; by
            default they keep their size.
        bit_depth: Bits that white has in images of more than 8 bits, 8 to 16; by default it is found in the folder.
        max_normals: Number of images to learn from, >= 2, evenly spread.
        licence: Licence of the images, for the card.
        dry_run: Say how long it would take, and write nothing.

    Raises:
        ValueError: If an argument is out of its range, or fewer than two images can be read.
    """
    check_writable_folder("out", out)
    needed = ("diffusion", "fit --diffusion", "diffusers", "transformers") if diffusion else ("fit", "fit", "faiss")
    require_extra(*needed)
    from anomalib_synth.engines.fit import choose_teacher, read_images, show_progress
    from anomalib_synth.fitting.bundle import estimate_minutes, fit_bundle
    from anomalib_synth.fitting.diffusion import DEFECT_SIZE, SAMPLED_WINDOW, fit_pipeline
    from anomalib_synth.fitting.diffusion import estimate_minutes as estimate_pipeline_minutes
    from anomalib_synth.generators.prepared import evenly_spread
    from anomalib_synth.images import ImageFolder, ImageSize, choose_white_point, list_images
    from anomalib_synth.progress import as_duration

    if max_normals < 2:
        msg = f"`max_normals` must be >= 2, got {max_normals}."
        raise ValueError(msg)
    size = ImageSize.parse(image_size, least=64)
    if (settings if diffusion else diffusion_settings) is not None:
        wrong, right = ("settings", "diffusion_settings") if diffusion else ("diffusion_settings", "settings")
        msg = f"`{wrong}` has no effect with `diffusion` {str(diffusion).lower()}. Set `{right}`."
        raise ValueError(msg)
    settings = settings or FitSettings()
    diffusion_settings = diffusion_settings or DiffusionFitSettings()
    listing = list_images(normals)
    folder = ImageFolder(
        dict(evenly_spread(list(listing.files.items()), max_normals)),
        image_size=size,
        white_point=choose_white_point(bit_depth, listing.paths),
    )
    images = read_images(folder, least=SAMPLED_WINDOW if diffusion else settings.window)
    for line in listing.notes(folder.left_out):
        print(line)
    white = folder.reader.white_point
    generator = choose_teacher(defects, white, size=DEFECT_SIZE) if diffusion else choose_teacher(defects, white)
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

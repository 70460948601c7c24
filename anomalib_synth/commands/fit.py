"""The command `anomalib-synth fit`: trains local models on the user's own normals."""

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
    """Train local models on your own good images, for `AutoregressiveGenerator` and for the quality score.

    Windows of the images get captioned rule-based defects of the physical families, and real ones if you have some. A
    tokenizer, a token transformer and a small dual encoder are trained on these windows. With `--diffusion`, a small
    latent diffusion pipeline in the format of diffusers is trained on them instead, for `DiffusionGenerator`. If a run
    was stopped, the same command continues it and ends with the same weights.

    Args:
        normals: Folder with good images, searched recursively.
        out: Folder of the bundle, or of the pipeline.
        defects: Folder with real defects, a folder for each type, and their masks, as for RealDefectGenerator; do not
            give defects of the test set. The name of a folder becomes the caption of its defects.
        settings: How long to train and how large the models are, for the bundle.
        diffusion: Train a pipeline for `DiffusionGenerator` instead of the bundle.
        diffusion_settings: How long to train and how large the models are, for the pipeline.
        image_size: Long side in pixels that images are resized to, >= 64, or height x width, such as 384x512; by
            default they keep their size.
        bit_depth: Bit depth of the camera, 8 to 16, for images of more than 8 bits; by default it is found in the
            folder.
        max_normals: Most images to train on, >= 2, evenly spread.
        licence: Licence of the images, for the model card.
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
    print(f"{len(images)} images; about {as_duration(60 * minutes)} in all, less if training stops early.", flush=True)
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
        print(f"Held-out windows are reconstructed from their latents with a PSNR of {quality:.1f} dB. Pipeline: {out}")
    else:
        tokens = quality["tokens"]
        print(f"Held-out normals are reconstructed from their tokens with a PSNR of {tokens:.1f} dB. Bundle: {out}")

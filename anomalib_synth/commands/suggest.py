"""The command `anomalib-synth suggest`: finds the families of drawn defects that resemble real ones."""

from __future__ import annotations

from pathlib import Path

from anomalib_synth.commands.normals import load_normals
from anomalib_synth.commands.preconditions import check_writable_folder


def suggest(
    normals: Path,
    defects: Path,
    *,
    masks: Path | None = None,
    out: Path | None = None,
    families: list[str] | None = None,
    per_family: int = 40,
    image_size: int | str | None = 256,
    bit_depth: int | None = None,
    max_normals: int = 32,
    seed: int = 0,
) -> None:
    """Say which families of drawn defects, of what sizes and strengths, resemble your real ones.

    Each family is drawn on your good images in all sizes and strengths. Real and drawn defects are measured in the same
    way, on image and mask alone: size, shape, brightness, contrast, colour, place. Each real defect then votes for the
    families of the drawn defects that are nearest to it. The command writes an overlay for `anomalib train --config`
    that draws the chosen families.

    Args:
        normals: Folder with good images, searched recursively.
        defects: Folder with images of real defects, and their masks or annotations. Outlines are taken as they are. In
            a box, the pixels that differ from the surroundings are taken. Images with neither are left out.
        masks: Folder of masks, LabelMe or YOLO files, or one COCO or CVAT file, if they do not lie beside the images.
        out: YAML file to write the overlay to; without it nothing is written.
        families: Families to choose from; null takes all.
        per_family: Number of defects drawn of each family, >= 10.
        image_size: Long side in pixels that images are resized to, >= 16, or height x width, such as 384x512; null
            keeps their size.
        bit_depth: Bit depth of the camera, 8 to 16, for images of more than 8 bits; by default it is found in the
            folder.
        max_normals: Number of good images to draw on, >= 1, evenly spread.
        seed: Seed of the draws, >= 0.

    Raises:
        ValueError: If an argument is out of its range, or no defect has an outline or a box.
    """
    from anomalib_synth.fitting.real_measures import measure_real_defects
    from anomalib_synth.fitting.suggestion import draw_references, suggest_families
    from anomalib_synth.generators import RuleBasedGenerator
    from anomalib_synth.generators.prepared import PreparedNormals
    from anomalib_synth.images import describe_left_out
    from anomalib_synth.progress import track
    from anomalib_synth.report.suggestion_table import describe_suggestion, write_overlay

    for name, value, limit in (("per_family", per_family, 10), ("max_normals", max_normals, 1), ("seed", seed, 0)):
        if value < limit:
            msg = f"`{name}` must be >= {limit}, got {value}."
            raise ValueError(msg)
    if out is not None:
        if out.suffix.lower() not in {".yaml", ".yml"} or out.is_dir():
            msg = f"`out` must be a file with the suffix .yaml, got {str(out)!r}."
            raise ValueError(msg)
        check_writable_folder("out", out.parent)
    chosen = list(RuleBasedGenerator(families or RuleBasedGenerator.available_families()).families)
    images, reader, notes = load_normals(normals, image_size=image_size, bit_depth=bit_depth, limit=max_normals)
    prepared = PreparedNormals.from_images(images)
    for line in notes:
        print(line)
    real = measure_real_defects(defects, masks, reader, prepared)
    for line in describe_left_out(real.left_out, "defects"):
        print(line)
    steps = iter(track(chosen, "Drawing families"))
    drawn = draw_references(
        images, prepared, chosen, per_family=per_family, seed=seed, advance=lambda: next(steps, None)
    )
    found = suggest_families(real.vectors, drawn)
    describe_suggestion(found, real.measured)
    if out is not None:
        write_overlay(out, found.build())
        print(f"Wrote {out}: anomalib train --config YOUR.yaml --config {out}")

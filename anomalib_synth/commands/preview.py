"""The command `anomalib-synth preview`: defects drawn on your own images, as a picture or a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anomalib_synth.commands.normals import load_normals
from anomalib_synth.commands.preconditions import check_outside, check_writable_folder


def preview(
    normals: Path,
    out: Path = Path("preview.png"),
    *,
    generator: Any = None,
    image_size: int | str | None = 256,
    bit_depth: int | None = None,
    per_family: int = 2,
    max_normals: int = 64,
    seed: int = 0,
) -> None:
    """Draw defects onto your own good images, and show them in a picture, or on a page to choose families on.

    The page shows the same samples as the picture. On it, untick the families that your parts cannot have. At its end
    you find the generator and the training overlay with the remaining families, to copy or to download.

    Args:
        normals: Folder with good images, searched recursively.
        out: What to write: a picture (.png, .jpg, .webp) outside `normals`, or a page that needs no network (.html).
        generator: An AnomalyGenerator to show; a RuleBasedGenerator, the default, shows each of its families in turn.
        image_size: Long side in pixels that images are resized to, >= 16, or height x width, such as 384x512; null
            keeps their size.
        bit_depth: Bit depth of the camera, 8 to 16, for images of more than 8 bits; by default it is found in the
            folder.
        per_family: Number of samples of each family, >= 1. Of a generator without families, eight times as many.
        max_normals: Most images to prepare the generator with, >= 1, evenly spread.
        seed: Seed of the samples.

    Raises:
        ValueError: If an argument is out of its range, or no image can be read.
    """
    from anomalib_synth.generators import RuleBasedGenerator
    from anomalib_synth.report.preview import check_preview, write_preview

    for name, value, limit in (("per_family", per_family, 1), ("max_normals", max_normals, 1)):
        if value < limit:
            msg = f"`{name}` must be >= {limit}, got {value}."
            raise ValueError(msg)
    generator = RuleBasedGenerator(RuleBasedGenerator.available_families()) if generator is None else generator
    check_preview(out, generator, per_family)
    if out.suffix.lower() != ".html":
        check_outside(out, normals=normals)
    check_writable_folder("out", out.parent)
    images, reader, notes = load_normals(normals, image_size=image_size, bit_depth=bit_depth, limit=max_normals)
    for line in notes:
        print(line)
    white = reader.white_point
    white.check_same([(type(each).__name__, each.donor_white) for each in generator.walk()], "generator")
    facts = []
    if str(white):
        facts.append(f"White is {white}.")
    generator.prepare(images)
    if generator.prepared is not None:
        facts.append(f"Foreground: {generator.prepared.foreground.note}.")
    for fact in facts:
        print(fact)
    for line in write_preview(out, generator, images, per_family=per_family, seed=seed, facts=facts):
        print(line)

"""The command `anomalib-synth preview`: defects drawn on your own images, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anomalib_synth.commands.preconditions import check_writable_folder


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
    """Draw defects onto your own good images and save one picture of them.

    Args:
        normals: Folder with good images, searched recursively.
        out: The picture to write (PNG).
        generator: An AnomalyGenerator to show; a RuleBasedGenerator, the default, shows each of its families in turn.
        image_size: Long side in pixels that images are resized to, >= 16, or height x width, such as 384x512; null
            keeps their size.
        bit_depth: Bits that white has in images of more than 8 bits, 8 to 16; by default it is found in the folder.
        per_family: Number of samples of each family (of the whole generator otherwise, times eight), >= 1.
        max_normals: Number of images to prepare the generator with, >= 1.
        seed: Seed of the samples.
    """
    from PIL import Image

    from anomalib_synth.callbacks.sample_grid import draw_cells
    from anomalib_synth.generators import RuleBasedGenerator
    from anomalib_synth.generators.prepared import evenly_spread
    from anomalib_synth.generators.seeding import derive_seeds
    from anomalib_synth.images import ImageFolder, ImageSize, choose_white_point, list_images, to_tensor
    from anomalib_synth.progress import track

    for name, value, limit in (("per_family", per_family, 1), ("max_normals", max_normals, 1)):
        if value < limit:
            msg = f"`{name}` must be >= {limit}, got {value}."
            raise ValueError(msg)
    if out.suffix.lower() not in {".png", ".jpg", ".jpeg", ".webp"}:
        msg = f"`out` must end in .png, .jpg or .webp, got {str(out)!r}."
        raise ValueError(msg)
    check_writable_folder("out", out.parent)
    listing = list_images(normals)
    folder = ImageFolder(
        dict(evenly_spread(list(listing.files.items()), max_normals)),
        image_size=ImageSize.parse(image_size),
        white_point=choose_white_point(bit_depth, listing.paths),
    )
    images = [to_tensor(pixels) for _, pixels in folder]
    folder.require(1, "normals")
    for name, reason in {**listing.foreign, **folder.left_out}.items():
        print(f"Left out {name}: {reason}.")
    if str(folder.reader.white_point):
        print(f"White is {folder.reader.white_point}.")
    generator = RuleBasedGenerator() if generator is None else generator
    generator.prepare(images)
    if generator.prepared is not None:
        print(f"Foreground: {generator.prepared.foreground.note}.")
    shown = {"": generator}
    if isinstance(generator, RuleBasedGenerator):
        shown = {name: generator.only(name) for name in generator.families}
    samples = []
    for position, (name, one) in enumerate(track(shown.items(), "Drawing", total=len(shown))):
        count = per_family if name else 8 * per_family
        for k, seed_of_sample in enumerate(derive_seeds(seed, 0, [f"{name}:{k}" for k in range(count)])):
            image = images[(position * count + k) % len(images)]
            samples.append(one(image[None], seeds=seed_of_sample[None]))
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_cells([(sample, 0) for sample in samples])).save(out)
    accepted = sum(int(sample.accepted[0]) for sample in samples)
    print(f"{accepted} of {len(samples)} samples passed the checks; wrote {out}.")
    for sample in samples:
        if sample.reason[0]:
            print(f"  rejected: {sample.reason[0]}")

"""The command `anomalib-synth generate`: normals and a generator in, a store of kept samples out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from anomalib_synth.commands.preconditions import check_writable_folder


def generate(
    normals: Path | None = None,
    *,
    out: Path,
    datamodule: Path | None = None,
    generator: Any = None,
    num_samples: int = 100,
    seed: int = 0,
    image_size: int | str | None = None,
    bit_depth: int | None = None,
    split: Literal["train", "val", "test"] = "train",
    max_normals: int = 256,
    workers: int = 1,
    engine: Literal["local", "ray"] = "local",
    batch_size: int = 4,
    resume: bool = True,
    dry_run: bool = False,
    price_per_hour: float | None = None,
) -> None:
    """Draw synthetic defects onto your good images and keep them in a store.

    The samples depend only on the images, the generator, the seed and the size, not on the number of workers or the
    engine. If a run was stopped, by whatever, the same command continues it; a larger num_samples adds to a finished
    store. Images that cannot be read are left out with the reason, and the run goes on.

    Args:
        normals: Folder with good images, searched recursively. Give either this or `datamodule`.
        out: Folder of the store.
        datamodule: YAML file with class_path and init_args of any anomalib datamodule, whose normal training images are
            taken.
        generator: The generator that draws the defects, RuleBasedGenerator unless given.
        num_samples: Number of samples, >= 1, including those that fail the checks. If there are fewer images, each is
            used several times, with other defects.
        seed: Seed of the samples, >= 0.
        image_size: Long side in pixels that images are resized to, >= 16, or height x width, such as 384x512; by
            default they keep their size, and in images of more than 33 megapixels defects are drawn in tiles.
        bit_depth: Bit depth of the camera, 8 to 16, for images of more than 8 bits, such as 12 for a 12-bit camera with
            16-bit files; by default it is found in the folder, and printed.
        split: The split of your data set that the images belong to; samples of one split are never used in another.
        max_normals: Most images to prepare the generator with, >= 1, evenly spread.
        workers: Number of processes that draw, >= 1.
        engine: "local" draws on this machine, "ray" on the Ray cluster that RAY_ADDRESS names, or else on a local one.
        batch_size: Samples that a worker draws at once, >= 1; changes only the speed.
        resume: Continue a store that exists; otherwise refuse to touch it.
        dry_run: Draw a few samples, say how long the run would take and how much disk it would need, and write nothing.
        price_per_hour: Price of an hour of the device that a worker runs on, to compute the cost of an accepted sample.

    Raises:
        ValueError: If an argument is out of its range, no image can be read, or the store has other settings.
        StoreError: If another run writes into the store, or the disk is full.
    """
    from anomalib_synth.engines.estimate import estimate_run
    from anomalib_synth.engines.generate import GenerateRun
    from anomalib_synth.engines.local import run_local
    from anomalib_synth.engines.ray_engine import import_ray, run_on_ray
    from anomalib_synth.engines.scanning import list_inputs
    from anomalib_synth.engines.settings import choose_settings
    from anomalib_synth.engines.store_lock import find_store
    from anomalib_synth.generators import RuleBasedGenerator
    from anomalib_synth.images import ImageReader, ImageSize, WhitePoint, allow_large_images
    from anomalib_synth.store.cost import check_price

    limits = {"num_samples": 1, "seed": 0, "max_normals": 1, "workers": 1, "batch_size": 1}
    _check_limits({name: (value, limits[name]) for name, value in locals().items() if name in limits})
    white_point = WhitePoint() if bit_depth is None else WhitePoint.of_bit_depth(bit_depth)
    reader = ImageReader(ImageSize.parse(image_size), white_point)
    check_price(price_per_hour)
    check_writable_folder("out", out)
    if engine == "ray":
        import_ray()
    generator = RuleBasedGenerator() if generator is None else generator
    settings = choose_settings(generator, seed=seed, image_size=image_size, split=split, max_normals=max_normals)
    store = find_store(out, settings, resume=resume)
    listing = list_inputs(normals, datamodule, out)
    if dry_run:
        done = sum(record.index < num_samples for record in store.records) if store else 0
        with allow_large_images():
            estimate = estimate_run(
                listing, generator, out=out, done=done, seed=seed, num_samples=num_samples, reader=reader,
                max_normals=max_normals, workers=workers,
            )  # fmt: skip
        print(estimate)
        return
    run = GenerateRun(
        listing=listing,
        reader=reader,
        settings=settings,
        num_samples=num_samples,
        workers=workers,
        draw=run_on_ray if engine == "ray" else run_local,
        batch_size=batch_size,
        price_per_hour=price_per_hour,
        defect_digests=generator.defect_digests,
        donor_whites=[(type(each).__name__, each.donor_white) for each in generator.walk()],
    )
    print(run.into(store, out))


def _check_limits(values: dict[str, tuple[int, int]]) -> None:
    for name, (value, least) in values.items():
        if value < least:
            msg = f"`{name}` must be >= {least}, got {value}."
            raise ValueError(msg)

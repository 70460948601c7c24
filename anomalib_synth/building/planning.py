"""Plans which models fit into the time and how long each trains, from speeds measured on this machine."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.building.candidates import BATCH, CORESET, LABELS, LEARNS, SIDE, STEPS, make_config
from anomalib_synth.building.data_folders import link
from anomalib_synth.building.training import fit
from anomalib_synth.calibration.predict_loop import quiet_host
from anomalib_synth.generators.from_config import build_generator
from anomalib_synth.generators.prepared import evenly_spread
from anomalib_synth.images import list_images, read_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightning.pytorch import Callback

    from anomalib_synth.building.data_folders import DataFolders

_SHOWN = 16  # images on which speeds are measured
_LEAST_STEPS, _LEAST_CORESET = 200, 0.001
_FEWEST_STEPS = 50  # if even the least steps do not fit, but the model is the first that is wanted
_FIRST = 800 * 2 // BATCH  # steps in which DiscriminativePadim draws its 800 defects; later steps repeat them
_PATCHES, _DIMENSIONS = (SIDE // 8) ** 2, 152  # patches per image and numbers per patch in PatchCore's memory
_FIXED = {"export": 45.0, "report": 2.0}  # seconds
_SHARE = {"choose": 0.12, "calibrate": 0.18}  # of the time
_MARGIN = 1.15  # factor on the expected seconds of training


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Seconds that each kind of work takes on this machine.

    Args:
        image: To read an image and put it through the backbone.
        heads_image: What DiscriminativePadim needs for each image before its first step.
        new_step: A step of DiscriminativePadim that draws its defects.
        old_step: A step of DiscriminativePadim with defects that were drawn before.
        patch: A step of PatchCore's coreset selection, for each patch in its memory.
        draw: To draw a defect.
        score: To read and score an image with DiscriminativePadim.
        megabytes: Disk that a trained model takes, in MiB.
    """

    image: float
    heads_image: float
    new_step: float
    old_step: float
    patch: float
    draw: float
    score: float
    megabytes: float


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What a build will do.

    Args:
        seconds: Expected seconds of each step of the build.
        steps: Training steps of DiscriminativePadim.
        coreset: Share of the patches that PatchCore keeps, in (0, 1].
        left_out: For each model that is not trained, the reason.
        per_choice: Drawn defects of each family on which the models are compared.
        per_cell: Drawn defects of each family and strength on which recall is measured.
        megabytes: Disk that the whole build takes, in MiB.
        slow: How many times longer DiscriminativePadim's first steps take, as they draw defects.
    """

    seconds: dict[str, float]
    steps: int = STEPS
    coreset: float = CORESET
    left_out: dict[str, str] = field(default_factory=dict)
    per_choice: int = 8
    per_cell: int = 8
    megabytes: float = 0.0
    slow: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def weigh(self, share: float) -> float:
        """Return the share of DiscriminativePadim's training time after a share of its steps, both in [0, 1]."""
        done, first = share * self.steps, min(_FIRST, self.steps)
        whole = first * self.slow + self.steps - first
        return (min(done, first) * self.slow + max(0.0, done - first)) / whole


def measure_speeds(
    folders: DataFolders, generator: dict[str, Any], *, learns: bool, accelerator: str, seed: int
) -> Speeds:
    """Try a few steps of each kind of work on some of the images.

    Args:
        folders: The images.
        generator: Configuration of the generator that draws the defects.
        learns: Whether DiscriminativePadim is among the models.
        accelerator: Device.
        seed: Seed.
    """
    paths = evenly_spread(list_images(folders.train).paths, _SHOWN)
    drawing = build_generator(generator)
    drawing.prepare(read_tensor(path, "normals") for path in paths)
    images = [read_tensor(path, "normals")[None] for path in paths[:4]]
    drawing(images[0], seeds=[seed])
    draw = _time(lambda: [drawing(image, seeds=[seed + n]) for n, image in enumerate(images)]) / len(images)
    image = _try_small(paths)
    ticks, megabytes = _try_heads(folders, paths, generator, accelerator, seed) if learns else ([0.0] * 10, 60.0)
    gaps = [after - before for before, after in itertools.pairwise(ticks[1:])]
    return Speeds(
        image=image,
        heads_image=ticks[0] / len(paths),
        new_step=statistics.median(gaps[:3]) if learns else 0.0,
        old_step=statistics.median(gaps[4:]) if learns else 0.0,
        patch=_time_patch(),
        draw=draw,
        score=2.5 * image,
        megabytes=megabytes,
    )


def make_plan(
    speeds: Speeds,
    models: Sequence[str],
    *,
    minutes: float,
    train: int,
    validation: int,
    calibration: int,
    families: int,
    strengths: int,
    exports: bool,
    spent: float = 0.0,
) -> BuildPlan:
    """Divide the time: PaDiM first, then up to 800 steps of DiscriminativePadim, then PatchCore with what is left.

    A model that does not fit is left out, with the reason. The first wanted model is trained however long it takes.

    Args:
        speeds: Measured speeds.
        models: Wanted models, in order of preference.
        minutes: Minutes for the whole build.
        train: Number of training images.
        validation: Number of images on which the models are compared.
        calibration: Number of images for the threshold.
        families: Number of families of defects.
        strengths: Number of strengths at which recall is measured.
        exports: Whether the chosen model is exported.
        spent: Seconds that have passed already.
    """
    total = 60 * minutes
    per_defect = speeds.draw + speeds.score
    per_choice = _count(_SHARE["choose"] * total / (len(models) * families * per_defect), 4, 12)
    per_cell = _count(_SHARE["calibrate"] * total / (strengths * families * per_defect), 4, 20)
    seconds = {
        "choose": len(models) * (families * per_choice * per_defect + validation * speeds.score + 2),
        "calibrate": strengths * families * per_cell * per_defect
        + 2 * calibration * speeds.score
        + 5
        + families * 2 * per_cell * speeds.draw,  # drawn once more for pictures
        "export": _FIXED["export"] if exports else 1.0,
        "report": _FIXED["report"],
    }
    plan = BuildPlan(seconds=seconds, per_choice=per_choice, per_cell=per_cell, megabytes=0.0)
    left = (total - spent - sum(seconds.values())) / _MARGIN
    reserve = 0.0
    if "patchcore" in models:  # time for the smallest coreset of use
        reserve = _fit_in("patchcore", speeds, plan, left=0.0, train=train, drawn=validation)[0]
    for name in sorted(models, key=("padim", LEARNS, "patchcore").index):  # the cheapest first
        kept = reserve if name == LEARNS and left > 2 * reserve else 0.0
        needed, plan = _fit_in(name, speeds, plan, left=left - kept, train=train, drawn=validation)
        if needed > left and name != models[0]:
            left_out = {
                **plan.left_out,
                name: f"{LABELS[name]} takes {needed:.0f} s, and {max(left, 0):.0f} s are left",
            }
            plan = replace(plan, left_out=left_out)
            continue
        if needed > left and name == LEARNS:
            needed -= (plan.steps - _FEWEST_STEPS) * speeds.new_step
            plan = replace(plan, steps=_FEWEST_STEPS)
        plan = replace(plan, seconds={f"train {name}": needed * _MARGIN, **plan.seconds})
        left -= needed
    trained = len(models) - len(plan.left_out)
    return replace(plan, megabytes=(trained + 3) * speeds.megabytes)


def _fit_in(
    name: str, speeds: Speeds, plan: BuildPlan, *, left: float, train: int, drawn: int
) -> tuple[float, BuildPlan]:
    """Return the seconds that a model takes, and the plan with as much training of it as there is time for."""
    base = 4 + train * speeds.image + drawn * (speeds.image + speeds.draw)
    if name == "padim":
        return base, plan
    if name == "patchcore":
        patches = train * _PATCHES
        full = patches * patches * speeds.patch  # seconds for a coreset of all patches
        ratio = min(CORESET, max((left - base) / full, _LEAST_CORESET))
        return base + ratio * full, replace(plan, coreset=round(ratio, 5))
    fixed = 5 + train * speeds.heads_image + drawn * (speeds.score + speeds.draw)
    new = _FIRST
    rest = (left - fixed - new * speeds.new_step) / max(speeds.old_step, 1e-6)
    steps = min(STEPS, max(new + int(rest), _LEAST_STEPS)) if rest > 0 else _LEAST_STEPS
    needed = fixed + min(steps, new) * speeds.new_step + max(0, steps - new) * speeds.old_step
    return needed, replace(plan, steps=steps, slow=speeds.new_step / max(speeds.old_step, 1e-6))


def choose_threads() -> int:
    """Return how many threads are fastest now: as many as cores or, if other work keeps the cores busy, one.

    Threads wait for each other many times per image, so on busy cores two can be slower than one.
    """
    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before = torch.get_num_threads()
    weight, image = torch.rand(64, 32, 3, 3), torch.rand(4, 32, 80, 80)
    seconds = {}
    try:
        for count in dict.fromkeys((min(cores, 8), 1)):
            torch.set_num_threads(count)
            torch.nn.functional.conv2d(image, weight)
            seconds[count] = min(
                _time(lambda: [torch.nn.functional.conv2d(image, weight) for _ in range(10)]) for _ in range(3)
            )
    finally:
        torch.set_num_threads(before)
    return min(seconds, key=lambda count: seconds[count])


def _count(number: float, least: int, most: int) -> int:
    return max(least, min(most, int(number)))


def _time(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _time_patch() -> float:
    """Return the seconds of a step of PatchCore's greedy coreset selection, for each patch in its memory."""
    count = 20_000
    features = torch.rand(count, _DIMENSIONS)
    distances = torch.linalg.norm(features - features[0], dim=1, keepdim=True)

    def choose() -> None:
        nonlocal distances
        for n in range(5):
            distances = torch.minimum(distances, torch.linalg.norm(features - features[n], dim=1, keepdim=True))
            torch.max(distances.squeeze(1), dim=0)

    choose()
    return _time(choose) / (5 * count)


def _try_small(paths: Sequence[Path]) -> float:
    """Return the seconds to read an image and put it through the backbone, at the size of PatchCore and PaDiM."""
    from anomalib_synth.detectors.backbone import FrozenBackbone

    backbone = FrozenBackbone("efficientnet_lite0_bundled", ["blocks.2", "blocks.4"]).eval()

    def look(path: Path) -> Any:
        image = read_tensor(path, "normals")[None]
        resized = torch.nn.functional.interpolate(image, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        with torch.inference_mode():
            return backbone(resized)

    look(paths[0])
    return _time(lambda: [look(path) for path in paths]) / len(paths)


def _try_heads(
    folders: DataFolders, paths: Sequence[Path], generator: dict[str, Any], accelerator: str, seed: int
) -> tuple[list[float], float]:
    """Train ten steps of DiscriminativePadim, and return their times and the model's size on disk in MiB.

    The times are the seconds before the first step, then the end of each step, in seconds after that.
    """
    config = make_config(LEARNS, folders, generator, seed=seed, accelerator=accelerator, steps=10, distinct=_SHOWN)
    config["trainer"] |= {"limit_val_batches": 0}
    config["trainer"]["callbacks"] = config["trainer"]["callbacks"][:1]
    ticks: list[float] = []
    with tempfile.TemporaryDirectory() as work, quiet_host():
        config["data"] = {"class_path": "anomalib.data.Folder", "init_args": _few(config, paths, Path(work) / "few")}
        trainer, _ = fit(config, Path(work), [_make_watch(ticks)])
        saved = Path(work) / "model.ckpt"
        trainer.save_checkpoint(saved)
        size = saved.stat().st_size / 2**20
    return [ticks[1] - ticks[0], *(tick - ticks[1] for tick in ticks[2:])], size


def _few(config: dict[str, Any], paths: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Return the arguments of a datamodule of only these images."""
    folder.mkdir()
    for n, path in enumerate(paths):
        link(path, folder / f"{n:02d}{path.suffix}")
    base = config["data"]["init_args"]["base"]["init_args"]
    few = {key: value for key, value in base.items() if key not in {"normal_test_dir", "root", "normal_dir"}}
    return {
        **few, "root": str(folder), "normal_dir": ".", "test_split_mode": "none", "val_split_mode": "from_train",
        "val_split_ratio": 0.1,
    }  # fmt: skip


def _make_watch(ticks: list[float]) -> Callback:
    from lightning.pytorch import Callback

    class Watch(Callback):
        def on_train_start(self, *_: Any) -> None:
            ticks.append(time.perf_counter())

        def on_train_batch_start(self, *_: Any) -> None:
            if len(ticks) == 1:
                ticks.append(time.perf_counter())

        def on_train_batch_end(self, *_: Any) -> None:
            ticks.append(time.perf_counter())

    return Watch()

"""Measures how fast this machine is: a few steps of each kind of work of a build, and the best number of threads."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.building.candidates import LEARNS, SIDE, make_config
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
_DIMENSIONS = 152  # numbers per patch in PatchCore's memory


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

"""Runs the trials of a comparison, and shows the progress."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Any

from anomalib_synth.comparison.trial import failure, run_trial
from anomalib_synth.comparison.trial_data import check_images
from anomalib_synth.engines.isolated_tasks import IsolatedTask, log_name, run_isolated
from anomalib_synth.engines.ray_engine import import_ray
from anomalib_synth.report.compare_progress import ComparisonProgress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anomalib_synth.comparison.spec import ComparisonSpec
    from anomalib_synth.comparison.trial_log import TrialLog


def check_runtime(
    workers: int, threads: int | None, devices: Sequence[int], engine: str, *, accelerator: str | None
) -> None:
    """Refuse numbers out of range, missing GPUs and a missing Ray. With ``accelerator`` None no GPU is looked for.

    Raises:
        ValueError: If a number is out of range, or a GPU or Ray is missing.
    """
    import torch

    for name, value in (("workers", workers), ("threads", 1 if threads is None else threads)):
        if value < 1:
            msg = f"`{name}` must be >= 1, got {value}."
            raise ValueError(msg)
    if not devices or min(devices) < 0:
        msg = f"`devices` must be numbers of GPUs, at least one, got {list(devices)}. [0] is the first."
        raise ValueError(msg)
    if engine == "ray":
        import_ray()
        return
    if accelerator == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        msg = "`accelerator` gpu needs a GPU that torch can use, got none. Use `--accelerator cpu`, or auto."
        raise ValueError(msg)
    if accelerator in {"auto", "gpu"} and torch.cuda.is_available() and max(devices) >= torch.cuda.device_count():
        msg = f"`devices` must be numbers below {torch.cuda.device_count()}, the GPUs here, got {list(devices)}."
        raise ValueError(msg)


def prepare_data(spec: ComparisonSpec, names: Sequence[str]) -> dict[str, str]:
    """Download or render the data once, before several processes would.

    Returns:
        For each data set that cannot be used, its name and the reason.

    Raises:
        ValueError: If no data set can be used.
    """
    unusable: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            _prepare_one(name, spec)
        except ValueError as error:
            unusable[name] = str(error)
    if unusable and len(unusable) == len(set(names)):
        raise ValueError("\n".join(unusable.values()))
    return unusable


def _prepare_one(name: str, spec: ComparisonSpec) -> None:
    from anomalib_synth.comparison.from_config import build_datamodule
    from anomalib_synth.data.normals import check_images_of

    datamodule = build_datamodule(name, spec.datasets[name])
    try:
        datamodule.prepare_data()
        datamodule.setup()
    except (OSError, RuntimeError, ValueError) as error:
        msg = f"`data.{name}` must find its images, but failed: {error} Check its folders."
        raise ValueError(msg) from error
    check_images_of(datamodule, f"data.{name}")
    check_images(name, datamodule, spec.false_alarm_rate)


def run_comparison(
    todo: list[dict[str, Any]],
    log: TrialLog,
    trials: list[dict[str, Any]],
    out: Path,
    runtime: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Run the trials, and append the row of each to the log as it ends."""
    work = out / "work"
    shutil.rmtree(work, ignore_errors=True)  # what a killed run left
    folder = None if options["engine"] == "ray" else str(work.absolute())
    tasks = []
    for trial in todo:
        name = describe_trial(trial)
        path = out / "logs" / log_name(name, trial["config_hash"])
        tasks.append(IsolatedTask(name=name, payload={**trial, **runtime, "work": folder}, log=path))
    progress = ComparisonProgress(trials, log.done(trials), workers=options["workers"])
    with progress, closing(run_isolated(run_trial, tasks, **options)) as events:
        for event in events:
            if event.kind == "started":
                progress.start(event.task.name, event.task.payload)
                continue
            row = failure(event.task.payload, event.error) if event.row is None else event.row
            try:
                log.append(row)
            except ValueError as error:  # such as a metric that is not a number
                row = failure(event.task.payload, f"Its row cannot be kept: {error}.")
                log.append(row)
            progress.finish(event.task.name, row)
    shutil.rmtree(work, ignore_errors=True)


def describe_trial(trial: dict[str, Any]) -> str:
    """Return the name of a run, for people."""
    return f"{trial['arm']}, {trial['data']}, seed {trial['seed']}"

"""The command ``anomalib-synth compare``: does synthesis help, and by how much?"""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anomalib_synth.engines.ray_engine import import_ray
from anomalib_synth.engines.trials import Trial, log_name, run_trials
from anomalib_synth.evidence.comparison import ComparisonSpec
from anomalib_synth.evidence.summary import summarise_rows
from anomalib_synth.evidence.trial import failure, run_cell
from anomalib_synth.evidence.trial_data import check_images
from anomalib_synth.evidence.trial_log import TrialLog
from anomalib_synth.report.compare_files import print_summary, write_outputs
from anomalib_synth.report.compare_progress import CellProgress
from anomalib_synth.store.locking import exclusive

if TYPE_CHECKING:
    from collections.abc import Sequence


def compare(
    models: dict[str, dict],  # not dict[str, Any]: jsonargparse would build what has a class_path
    data: dict[str, dict],
    arms: list[list[str]],
    baseline: list[str],
    *,
    out: Path,
    synthesis: dict[str, list[dict]],
    seeds: list[int] = [0, 1, 2],  # noqa: B006  (never changed; jsonargparse shows it)
    steps: int = 400,
    image_size: int | str | None = None,
    false_alarm_rate: float | None = 0.05,
    test_defects: Literal["real", "synthetic"] = "real",
    metric: Literal["image_auroc", "pixel_auroc", "pixel_ap", "aupro", "recall"] = "image_auroc",
    title: str = "Does synthesis help?",
    workers: int = 1,
    engine: Literal["local", "ray"] = "local",
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    devices: list[int] = [0],  # noqa: B006
    threads: int | None = None,
    dry_run: bool = False,
) -> None:
    """Train several models with and without synthesis, and say whether it helped.

    Every arm (a model with a synthesis) is trained on every data set with every seed, for the same number of optimiser
    steps, in a process of its own; what the last step leaves is tested. No checkpoint, threshold or setting is chosen
    on test images. Each run is kept as it ends: the same command goes on where a stopped one was, and tries failed runs
    again. Take a configuration with --config, such as configs/compare/quick.yaml.

    Writes to the folder `out`: runs.jsonl (as they come), results.csv and results.parquet (a row a run), table.md,
    plots (PNG and SVG), index.html (all of it in one file), spec.yaml, and logs.

    Args:
        models: Name -> {class_path, init_args} of any anomalib model; normalise: {mean, std} beside them replaces the
            statistics of its pre-processor.
        data: Name -> {class_path, init_args} of any anomalib datamodule, with a seed and val_split_mode: from_train or
            from_dir; categories: [...] beside them makes one data set a category.
        arms: List of [model, synthesis] pairs.
        baseline: The arm that the others are compared with.
        out: Folder for the results; kept results in it are used.
        synthesis: Name -> list of callbacks {class_path, init_args}; an empty list leaves the model as it comes. A
            callback that takes a seed gets the run's, unless it is given one.
        seeds: Seeds of the runs; an interval takes at least two, better three or more.
        steps: Optimiser steps of every arm that trains; models that fix their epochs, as PatchCore, keep them.
        image_size: Size in pixels that every model sees: the side of a square, or height x width, such as 384x512;
            null leaves each model's own pre-processor.
        false_alarm_rate: Share of good images that may be called anomalous, in (0, 1): one half of the good validation
            images sets the threshold for it, the other measures it; null leaves thresholds out.
        test_defects: "synthetic" allows data whose test set is synthetic, to choose among models without a real defect;
            every verdict then says so.
        metric: What the verdict is about.
        title: Heading of the page.
        workers: Runs at the same time, >= 1.
        engine: "local" runs on this machine, "ray" on the Ray cluster that RAY_ADDRESS names, or else on a local one.
        accelerator: Device of the training: auto, cpu, gpu.
        devices: Numbers of the GPUs that runs are spread over.
        threads: CPU threads of a run; by default the machine's, divided by the workers.
        dry_run: Check everything, list the runs, and train nothing.

    Raises:
        ValueError: If an argument is out of its range, unknown, or would choose on test data; after all others are
            done, if a run failed.
        StoreError: If another run writes to the folder.
    """
    _check_runtime(workers, threads, devices, engine, accelerator=None if dry_run else accelerator)
    spec = ComparisonSpec(
        models=models, synthesis=synthesis, data=data, arms=arms, baseline=baseline, seeds=seeds, steps=steps,
        image_size=image_size, false_alarm_rate=false_alarm_rate, test_defects=test_defects,
    )  # fmt: skip
    if metric == "recall" and false_alarm_rate is None:
        msg = "`metric` recall takes a threshold, got `false_alarm_rate` null. Set a rate, or choose another metric."
        raise ValueError(msg)
    cells = spec.cells()
    if dry_run:
        print("\n".join(_describe(cell) for cell in cells), f"{len(cells)} runs", sep="\n")
        return
    if out.exists() and not out.is_dir():
        msg = f"`out` must be a folder, got the file {str(out)!r}."
        raise ValueError(msg)
    out.mkdir(parents=True, exist_ok=True)
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    runtime = {"accelerator": accelerator, "threads": threads, "workers": workers}
    with exclusive(out / ".lock", wait=0.0):
        log = TrialLog(out / "runs.jsonl")
        done = {row["config_hash"] for row in log.done(cells)}
        todo = [cell for cell in cells if cell["config_hash"] not in done]
        unusable = _prepare(spec, [cell["data"] for cell in todo])
        for cell in todo:
            if cell["data"] in unusable:
                log.append(failure(cell, unusable[cell["data"]]))
        todo = [cell for cell in todo if cell["data"] not in unusable]
        options = {"workers": workers, "engine": engine, "devices": devices}
        try:
            if todo:
                _run(todo, log, cells, out, runtime, options)
        finally:
            rows, failed = log.done(cells), log.failed(cells)
            if rows:
                summary = summarise_rows(rows, cells, baseline=spec.baseline_name, metric=metric)
                settings = {"title": title, "metric": metric, "spec": spec, "cells": cells, "failed": failed}
                written = write_outputs(summary, settings, out)
        if rows:
            print_summary(summary, written, out)
    if failed:
        lines = "".join(f"\n  {_describe(row)}: {row['error']}" for row in failed)
        again = f"the same command tries them again. Logs: {out / 'logs'}"
        msg = f"{len(failed)} of {len(cells)} runs failed; {again}{lines}"
        raise ValueError(msg)


def _check_runtime(
    workers: int, threads: int | None, devices: Sequence[int], engine: str, *, accelerator: str | None
) -> None:
    """Refuse numbers out of range, and GPUs or a Ray that are not there; accelerator None is not looked for."""
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


def _prepare(spec: ComparisonSpec, names: Sequence[str]) -> dict[str, str]:
    """Download or render the data once, before processes race for it; return why some cannot be used, by name.

    Raises:
        ValueError: If none of them can be used.
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
    from anomalib_synth.evidence.building import build_datamodule

    datamodule = build_datamodule(name, spec.datasets[name])
    try:
        datamodule.prepare_data()
        datamodule.setup()
    except (OSError, RuntimeError, ValueError) as error:
        msg = f"`data.{name}` must find its images, but: {error} Check its folders."
        raise ValueError(msg) from error
    check_images(name, datamodule, spec.false_alarm_rate)


def _run(
    todo: list[dict[str, Any]],
    log: TrialLog,
    cells: list[dict[str, Any]],
    out: Path,
    runtime: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Run the cells and keep each row as it comes."""
    work = out / "work"
    shutil.rmtree(work, ignore_errors=True)  # what a killed run left
    folder = None if options["engine"] == "ray" else str(work.absolute())
    trials = []
    for cell in todo:
        name = _describe(cell)
        path = out / "logs" / log_name(name, cell["config_hash"])
        trials.append(Trial(name=name, payload={**cell, **runtime, "work": folder}, log=path))
    progress = CellProgress(cells, log.done(cells), workers=options["workers"])
    with progress, closing(run_trials(run_cell, trials, **options)) as events:
        for event in events:
            if event.kind == "started":
                progress.start(event.trial.name, event.trial.payload)
                continue
            row = failure(event.trial.payload, event.error) if event.row is None else event.row
            try:
                log.append(row)
            except ValueError as error:  # such as a metric that is not a number
                row = failure(event.trial.payload, f"Its row cannot be kept: {error}.")
                log.append(row)
            progress.finish(event.trial.name, row)
    shutil.rmtree(work, ignore_errors=True)


def _describe(cell: dict[str, Any]) -> str:
    return f"{cell['arm']}, {cell['data']}, seed {cell['seed']}"

"""The command ``anomalib-synth compare``: does synthesis help, and by how much?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from anomalib_synth.commands.preconditions import check_writable_folder, require_extra


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
    steps, each run in a process of its own. The model after the last step is tested. No checkpoint, threshold or
    setting is chosen on test images. The result of each run is kept at once: if a comparison was stopped, the same
    command continues it, and repeats failed runs. Give a configuration with --config, such as
    configs/compare/quick.yaml.

    Verdicts, and the intervals of the differences from the baseline, are corrected for the number of arms (Holm): in
    at most about one comparison in twenty is an arm without effect called better or worse.

    Writes to the folder `out`: runs.jsonl (each run as it ends), results.csv and results.parquet (a row for each run),
    verdicts.json (with their correction), table.md, plots (PNG and SVG), index.html (all of it in one file), spec.yaml,
    and logs.

    Args:
        models: Name -> {class_path, init_args} of any anomalib model. A third key, normalise: {mean, std}, replaces the
            statistics of its pre-processor.
        data: Name -> {class_path, init_args} of any anomalib datamodule, with a seed and val_split_mode: from_train or
            from_dir. A third key, categories: [...], makes a data set of each category.
        arms: List of [model, synthesis] pairs.
        baseline: The arm with which the others are compared.
        out: Folder for the results; results that are already in it are used.
        synthesis: Name -> list of callbacks {class_path, init_args}; an empty list leaves the model as it is. A
            callback that takes a seed gets that of the run, unless it has one.
        seeds: Seeds of the runs; an interval needs at least two, better three or more.
        steps: Optimiser steps of every arm that trains. Models with a fixed number of epochs, such as PatchCore, keep
            it.
        image_size: Size in pixels that every model sees: the side of a square, or height x width, such as 384x512.
            null keeps each model's own pre-processor.
        false_alarm_rate: Share of good images that may be called anomalous, in (0, 1). One half of the good validation
            images sets the threshold, and the other half measures the rate. null computes no threshold.
        test_defects: "synthetic" allows data whose test set is synthetic, to choose among models without real defects;
            every verdict then says so.
        metric: The metric that the verdict is about.
        title: Heading of the page.
        workers: Runs at the same time, >= 1.
        engine: "local" runs on this machine, "ray" on the Ray cluster that RAY_ADDRESS names, or else on a local one.
        accelerator: Device of the training: auto, cpu, gpu.
        devices: Numbers of the GPUs to use; runs are spread over them.
        threads: CPU threads of a run; by default the number of cores divided by the number of workers.
        dry_run: Check everything, list the runs, and train nothing.

    Raises:
        ValueError: If an argument is out of its range, unknown, or would choose on test data; after all runs, if one of
            them failed.
        StoreError: If another run writes to the folder.
    """
    require_extra("compare", "compare", "pyarrow")
    check_writable_folder("out", out)
    from anomalib_synth.comparison.spec import ComparisonSpec
    from anomalib_synth.comparison.summary import summarise_rows
    from anomalib_synth.comparison.trial import failure
    from anomalib_synth.comparison.trial_log import TrialLog
    from anomalib_synth.report.compare_files import print_summary, write_outputs
    from anomalib_synth.report.compare_run import check_runtime, describe_trial, prepare_data, run_comparison
    from anomalib_synth.store.locking import exclusive

    check_runtime(workers, threads, devices, engine, accelerator=None if dry_run else accelerator)
    spec = ComparisonSpec(
        models=models, synthesis=synthesis, data=data, arms=arms, baseline=baseline, seeds=seeds, steps=steps,
        image_size=image_size, false_alarm_rate=false_alarm_rate, test_defects=test_defects,
    )  # fmt: skip
    if metric == "recall" and false_alarm_rate is None:
        msg = "`metric` recall needs a threshold, got `false_alarm_rate` null. Set a rate, or choose another metric."
        raise ValueError(msg)
    trials = spec.trials()
    if dry_run:
        print("\n".join(describe_trial(trial) for trial in trials), f"{len(trials)} runs", sep="\n")
        return
    if out.exists() and not out.is_dir():
        msg = f"`out` must be a folder, got the file {str(out)!r}."
        raise ValueError(msg)
    out.mkdir(parents=True, exist_ok=True)
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    runtime = {"accelerator": accelerator, "threads": threads, "workers": workers}
    with exclusive(out / ".lock", wait=0.0):
        log = TrialLog(out / "runs.jsonl")
        done = {row["config_hash"] for row in log.done(trials)}
        todo = [trial for trial in trials if trial["config_hash"] not in done]
        unusable = prepare_data(spec, [trial["data"] for trial in todo])
        for trial in todo:
            if trial["data"] in unusable:
                log.append(failure(trial, unusable[trial["data"]]))
        todo = [trial for trial in todo if trial["data"] not in unusable]
        options = {"workers": workers, "engine": engine, "devices": devices}
        try:
            if todo:
                run_comparison(todo, log, trials, out, runtime, options)
        finally:
            rows, failed = log.done(trials), log.failed(trials)
            if rows:
                summary = summarise_rows(rows, trials, baseline=spec.baseline_name, metric=metric)
                settings = {"title": title, "metric": metric, "spec": spec, "trials": trials, "failed": failed}
                written = write_outputs(summary, settings, out)
        if rows:
            print_summary(summary, written, out)
    if failed:
        lines = "".join(f"\n  {describe_trial(row)}: {row['error']}" for row in failed)
        again = f"the same command tries them again. Logs: {out / 'logs'}"
        msg = f"{len(failed)} of {len(trials)} runs failed; {again}{lines}"
        raise ValueError(msg)

"""One run of a comparison: trains an arm on one data set with one seed, and tests the model of the last step."""

from __future__ import annotations

import logging
import math
import platform
import tempfile
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.calibration.defect_sets import halve_normals
from anomalib_synth.comparison.from_config import build_callbacks, build_datamodule, build_model
from anomalib_synth.comparison.trial_data import check_images, digest_data, digest_generators
from anomalib_synth.comparison.trial_metrics import ModelOutputs, measure, measure_threshold
from anomalib_synth.images import Normal, digest_image

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Callback

_NAMES = ("arm", "model", "synthesis", "data", "seed", "config_hash", "steps", "image_size", "false_alarm_rate")


def run_trial(spec: dict[str, Any]) -> dict[str, Any]:
    """Train and test one arm on one data set with one seed.

    Validation images play no part in the training, no checkpoint is chosen, and test images are read once, at the end.

    Args:
        spec: A trial of :meth:`~anomalib_synth.comparison.spec.ComparisonSpec.trials`, with ``accelerator``
            (Lightning's name; the first GPU that this process sees), ``threads`` and ``work`` (folder for what the
            training writes, None for the system's).

    Returns:
        The row of the results: names, metrics, counts, times and versions.

    Raises:
        ValueError: If a part cannot be built, or the data cannot answer the question.
    """
    import lightning.pytorch as pl

    import anomalib_synth  # noqa: F401  (registers the backbone)

    _quieten()
    torch.set_num_threads(spec["threads"])
    started, clock = datetime.now(UTC), time.perf_counter()
    pl.seed_everything(spec["seed"], workers=True, verbose=False)
    datamodule = build_datamodule(spec["data"], spec["data_section"])
    datamodule.prepare_data()
    datamodule.setup()
    check_images(spec["data"], datamodule, spec["false_alarm_rate"])
    model = build_model(spec["model"], spec["model_section"], image_size=spec["image_size"])
    callbacks = build_callbacks(spec["synthesis"], spec["callback_sections"], seed=spec["seed"])
    device = _device(spec)
    if spec["work"] is not None:
        Path(spec["work"]).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=spec["work"], ignore_cleanup_errors=True) as folder:
        trained = _fit(model, datamodule, callbacks, steps=spec["steps"], device=device, folder=folder)
        tested_at = time.perf_counter()
        measured = _test(model, datamodule, device=device, folder=folder, spec=spec)
    done = time.perf_counter()
    return {
        **{name: spec[name] for name in _NAMES},
        **measured,
        **trained,
        "test_seconds": round(done - tested_at, 2),
        "seconds": round(done - clock, 2),
        "train_images": len(datamodule.train_data),
        "data_digest": digest_data(datamodule),
        "generator_digest": digest_generators(callbacks),
        "threads": spec["threads"],
        "workers": spec.get("workers", 1),
        "device": torch.cuda.get_device_name() if device["accelerator"] == "gpu" else platform.machine(),
        "started": started.isoformat(timespec="seconds"),
        **versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    import anomalib
    import lightning

    from anomalib_synth._version import __version__

    return {
        "anomalib_synth": __version__,
        "anomalib": anomalib.__version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }


def _fit(
    model: AnomalibModule,
    datamodule: AnomalibDataModule,
    callbacks: list[Callback],
    *,
    steps: int,
    device: dict[str, Any],
    folder: str,
) -> dict[str, Any]:
    """Train for the budget of steps, or for the epochs that the model fixes; return times and counts."""
    from anomalib.engine import Engine

    own_epochs = model.trainer_arguments.get("max_epochs")
    # Both limits: schedules in epochs (SuperSimpleNet, DSR) and in steps then mean the same run.
    epochs = math.ceil(steps / len(datamodule.train_dataloader()))
    limits = {"max_epochs": own_epochs} if own_epochs else {"max_epochs": epochs, "max_steps": steps}
    engine = Engine(
        callbacks=callbacks, default_root_dir=folder, limit_val_batches=0, num_sanity_val_steps=0, **limits,
        **_quiet_trainer(device),
    )  # fmt: skip
    before = time.perf_counter()
    engine.fit(model, datamodule=datamodule)
    seconds = time.perf_counter() - before
    return {
        "fit_seconds": round(seconds, 2),
        "sample_seconds": _seconds_per_sample(callbacks),
        "optimiser_steps": engine.trainer.global_step,
        "batches": engine.trainer.fit_loop.epoch_loop.total_batch_idx + 1,
        "fixed_epochs": own_epochs,
    }


def _seconds_per_sample(callbacks: list[Callback]) -> float | None:
    """Return the seconds an accepted sample took to draw; None where none was drawn."""
    from anomalib_synth.callbacks import SynthesisCallback

    drawing = [callback for callback in callbacks if isinstance(callback, SynthesisCallback)]
    accepted = sum(callback.accepted_samples for callback in drawing)
    return sum(callback.drawing_seconds for callback in drawing) / accepted if accepted else None


def _test(
    model: AnomalibModule, datamodule: AnomalibDataModule, *, device: dict[str, Any], folder: str, spec: dict[str, Any]
) -> dict[str, Any]:
    """Score the held-out normals and the test images, and measure."""
    from lightning.pytorch import Trainer

    collector = _make_collector()
    trainer = Trainer(callbacks=[collector], default_root_dir=folder, **_quiet_trainer(device))
    trainer.validate(model, datamodule=datamodule, verbose=False)
    held_out = collector.take()
    trainer.test(model, datamodule=datamodule, verbose=False)
    tested = collector.take()
    good = [score for score, label in zip(tested["scores"], tested["labels"], strict=True) if not label]
    defects = [score for score, label in zip(tested["scores"], tested["labels"], strict=True) if label]
    result: dict[str, Any] = {"mask_size": None, "mask_pixels": None}
    maps, masks = None, None
    if tested["maps"]:
        maps, masks = torch.cat(tested["maps"]), torch.cat(tested["masks"])
        if len(maps) != len(tested["scores"]):
            msg = f"{len(maps)} of {len(tested['scores'])} test images of `data.{spec['data']}` have masks. Mask all."
            raise ValueError(msg)
        result |= {"mask_size": "x".join(map(str, masks.shape[-2:])), "mask_pixels": int((masks > 0).sum())}
    result |= measure(ModelOutputs(scores=tested["scores"], labels=tested["labels"], maps=maps, masks=masks))
    if spec["false_alarm_rate"] is not None:
        result |= _measure_held_out(held_out, good, defects, rate=spec["false_alarm_rate"], seed=spec["seed"])
    return {**result, "test_good": len(good), "test_defects": len(defects)}


def _measure_held_out(
    held_out: dict[str, Any], good: list[float], defects: list[float], *, rate: float, seed: int
) -> dict[str, float | int]:
    """Set the threshold on one half of the held-out normals and measure on the other."""
    choose, measure = _halves(held_out, seed)
    return measure_threshold(choose, measure, good, defects, rate)


def _halves(held_out: dict[str, Any], seed: int) -> tuple[list[float], list[float]]:
    """Return the scores of the held-out normals that set the threshold, and of the others, halved by content."""
    scores: dict[str, float] = {}  # by content, so that copies of one image are not in both halves
    listed = zip(held_out["paths"], held_out["scores"], held_out["labels"], strict=True)
    for path, score, label in listed:
        if not label:
            scores.setdefault(digest_image(path), score)
    normals = [Normal(path=Path(content), name=content, content=content) for content in scores]
    choose, measure = halve_normals(normals, seed)
    return [scores[normal.content] for normal in choose], [scores[normal.content] for normal in measure]


def _make_collector() -> Any:
    """Return a callback that keeps raw scores, maps, labels and masks; Lightning is imported only now."""
    from lightning.pytorch import Callback

    class Collector(Callback):
        def __init__(self) -> None:
            self.take()

        def take(self) -> dict[str, list]:
            """Return what was collected and start anew."""
            kept = getattr(self, "kept", {})
            self.kept: dict[str, list] = {"paths": [], "scores": [], "labels": [], "maps": [], "masks": []}
            return kept

        def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            self._keep(type(pl_module).__name__, outputs, with_maps=False)

        def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            self._keep(type(pl_module).__name__, outputs, with_maps=True)

        def _keep(self, name: str, outputs: Any, *, with_maps: bool) -> None:
            scores = outputs.pred_score.detach().float().flatten().cpu()
            if not bool(torch.isfinite(scores).all()):
                msg = f"{name} gives scores that are not finite: {scores[:4].tolist()}. Lower its learning rate."
                raise ValueError(msg)
            self.kept["scores"] += scores.tolist()
            self.kept["labels"] += outputs.gt_label.bool().flatten().tolist()
            self.kept["paths"] += outputs.image_path
            if with_maps and outputs.anomaly_map is not None and outputs.gt_mask is not None:
                maps = outputs.anomaly_map.detach().as_subclass(torch.Tensor).float().cpu()
                masks = outputs.gt_mask.detach().as_subclass(torch.Tensor).cpu()
                self.kept["maps"].append(maps.reshape(len(scores), *maps.shape[-2:]))
                self.kept["masks"].append(masks.reshape(len(scores), *masks.shape[-2:]))

    return Collector()


def _quiet_trainer(device: dict[str, Any]) -> dict[str, Any]:
    return {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, **device}


def _device(spec: dict[str, Any]) -> dict[str, Any]:
    """Return Lightning's arguments for the device of the run."""
    accelerator = spec["accelerator"]
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return {"accelerator": "gpu", "devices": [0]}
    return {"accelerator": accelerator, "devices": 1}


def _quieten() -> None:
    """Keep remarks out of the run's log; errors stay."""
    warnings.filterwarnings("ignore", category=UserWarning)
    for name in ("anomalib", "lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def failure(spec: dict[str, Any], error: str) -> dict[str, Any]:
    """Return the row of a run that failed."""
    return {**{name: spec[name] for name in _NAMES}, "error": error}

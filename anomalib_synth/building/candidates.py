"""The models that a build may train, as configurations that `anomalib train` accepts too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.building.data_folders import DataFolders

MODELS = ("discriminative_padim", "patchcore", "padim")  # in order of preference
LABELS = {"discriminative_padim": "DiscriminativePadim", "patchcore": "PatchCore", "padim": "PaDiM"}
LEARNS = "discriminative_padim"  # the one that learns from defects
SIDE = 160  # pixels, for PatchCore and PaDiM: on seven categories better on average than 256, and six times cheaper
SCALES = (160, 256)  # of DiscriminativePadim
STEPS, BATCH = 800, 8
CORESET = 0.01
_BACKBONE: dict[str, Any] = {"backbone": "efficientnet_lite0_bundled", "layers": ["blocks.2", "blocks.4"]}


def make_config(
    name: str,
    folders: DataFolders,
    generator: dict[str, Any],
    *,
    seed: int,
    accelerator: str = "auto",
    steps: int = STEPS,
    coreset: float = CORESET,
    distinct: int | None = None,
) -> dict[str, Any]:
    """Return the configuration of a candidate.

    Args:
        name: One of :data:`MODELS`.
        folders: The images.
        generator: Configuration of the generator that draws the defects.
        seed: Seed of everything random.
        accelerator: Device of the training.
        steps: Training steps of DiscriminativePadim.
        coreset: Share of the patches that PatchCore keeps.
        distinct: Number of different defects that DiscriminativePadim trains on; None for its default.
    """
    root = folders.root.resolve()
    base = {
        "name": "parts",
        "root": str(root),
        "normal_dir": "train",
        "normal_test_dir": "validation",
        "test_split_mode": "from_dir",
        "val_split_mode": "same_as_test",  # there is no real test set, only drawn defects that set the scores' scale
        "train_batch_size": BATCH,
        "eval_batch_size": 16,
        "num_workers": 0,
        "seed": seed,
    }
    data = {
        "base": {"class_path": "anomalib.data.Folder", "init_args": base},
        "generator": generator,
        "splits": ["test"],
        "root": str(root.parent / "candidates" / "drawn"),
        "seed": seed,
    }
    trainer: dict[str, Any] = {"accelerator": accelerator, "devices": 1, "max_epochs": 1}
    if name == LEARNS:
        trainer |= {
            "max_epochs": -1,
            "max_steps": steps,
            "val_check_interval": steps,
            "check_val_every_n_epoch": None,
            "callbacks": _bring_defects(folders, generator, seed=seed, distinct=distinct),
        }
    return {
        "seed_everything": seed,
        "model": _make_model(name, coreset),
        "data": {"class_path": "anomalib_synth.data.SyntheticDataModule", "init_args": data},
        "trainer": trainer,
    }


def order(names: Sequence[str]) -> list[str]:
    """Return models in order of preference.

    Raises:
        ValueError: If a model is not known, or there is none.
    """
    unknown = [name for name in names if name not in MODELS]
    if unknown or not names:
        msg = f"`models` must name some of {', '.join(MODELS)}, got {list(names)}."
        raise ValueError(msg)
    return [name for name in MODELS if name in names]


def _make_model(name: str, coreset: float) -> dict[str, Any]:
    if name == LEARNS:
        arguments: dict[str, Any] = {"backbone": _BACKBONE["backbone"], "layers": ["blocks.1", "blocks.2", "blocks.4"]}
        arguments |= {"scales": list(SCALES), "evaluator": False, "visualizer": False}
        return {"class_path": "anomalib_synth.models.DiscriminativePadim", "init_args": arguments}
    extra = {"coreset_sampling_ratio": coreset} if name == "patchcore" else {"n_features": 100}
    steps = [
        {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [SIDE, SIDE], "antialias": True}},
        {"class_path": "torchvision.transforms.v2.Normalize", "init_args": {"mean": [0.5] * 3, "std": [0.5] * 3}},
    ]
    transform = {"class_path": "torchvision.transforms.v2.Compose", "init_args": {"transforms": steps}}
    pre = {"class_path": "anomalib.pre_processing.PreProcessor", "init_args": {"transform": transform}}
    arguments = {**_BACKBONE, **extra, "pre_processor": pre, "evaluator": False, "visualizer": False}
    return {"class_path": f"anomalib.models.{'Patchcore' if name == 'patchcore' else 'Padim'}", "init_args": arguments}


def _bring_defects(
    folders: DataFolders, generator: dict[str, Any], *, seed: int, distinct: int | None
) -> list[dict[str, Any]]:
    drawn = {"generator": generator, "probability": 0.5, "seed": seed, "grid_every_n_epochs": 0}
    if distinct is not None:
        drawn["distinct_samples"] = distinct
    callbacks = [{"class_path": "anomalib_synth.callbacks.SynthesisCallback", "init_args": drawn}]
    if folders.learned:
        real: dict[str, Any] = {"defects": [str(path.resolve()) for path in folders.learned], "seed": seed}
        if folders.marks is not None:
            real["marks"] = str(folders.marks.resolve())
        callbacks.append({"class_path": "anomalib_synth.callbacks.RealDefectsCallback", "init_args": real})
    return callbacks

"""How anomalib's datamodules list their images and split them, step by step.

Relies on ``_setup``, ``_create_test_split``, ``_create_val_split`` and ``_update_augmentations`` of
``AnomalibDataModule``, the steps of its ``setup`` in anomalib 2.7, and on ``train_data``, ``val_data`` and
``test_data``, where the results are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule, AnomalibDataset

SPLITS = ("train", "val", "test")
_STEPS = ("setup", "_setup", "_create_test_split", "_create_val_split")


def list_files(datamodule: AnomalibDataModule, stage: str | None = None) -> None:
    """Let a datamodule list its files and set its datasets, without making splits."""
    datamodule._setup(stage)


def split_test(datamodule: AnomalibDataModule) -> None:
    """Let a datamodule make its test set by its ``test_split_mode``, after :func:`list_files`."""
    datamodule._create_test_split()


def split_validation(datamodule: AnomalibDataModule) -> None:
    """Let a datamodule make its validation set by its ``val_split_mode``, after :func:`split_test`."""
    datamodule._create_val_split()


def forget_splits(datamodule: AnomalibDataModule) -> None:
    """Remove a datamodule's datasets, as before its setup."""
    for split in SPLITS:
        vars(datamodule).pop(f"{split}_data", None)


def hand_on_augmentations(datamodule: AnomalibDataModule) -> None:
    """Give each dataset of a datamodule its augmentations, followed by the resize of the trainer's model."""
    datamodule._update_augmentations()


def lists_in_order(datamodule: AnomalibDataModule) -> bool:
    """Return whether only anomalib's and our code lists and splits the images, so that one listing is split."""
    packages = {getattr(type(datamodule), step).__module__.split(".")[0] for step in _STEPS}
    return packages <= {"anomalib", "anomalib_synth"}


def find_datasets(datamodule: AnomalibDataModule) -> list[AnomalibDataset]:
    """Return every dataset that a datamodule holds, under any attribute name."""
    from anomalib.data import AnomalibDataset

    return [value for value in vars(datamodule).values() if isinstance(value, AnomalibDataset)]

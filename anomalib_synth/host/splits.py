"""How anomalib's datamodules list their images and split them, step by step.

Touches ``_setup``, ``_create_test_split``, ``_create_val_split`` and ``_update_augmentations`` of
``AnomalibDataModule``, the steps of its ``setup`` in anomalib 2.7, and where it keeps what they make: ``train_data``,
``val_data`` and ``test_data``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule, AnomalibDataset

SPLITS = ("train", "val", "test")
_STEPS = ("setup", "_setup", "_create_test_split", "_create_val_split")


def list_files(datamodule: AnomalibDataModule, stage: str | None = None) -> None:
    """Have a datamodule list its files and make no split; it sets its datasets."""
    datamodule._setup(stage)


def split_test(datamodule: AnomalibDataModule) -> None:
    """Have a datamodule that has listed its files make its test set, as its ``test_split_mode`` says."""
    datamodule._create_test_split()


def split_validation(datamodule: AnomalibDataModule) -> None:
    """Have a datamodule that has a test set make its validation set, as its ``val_split_mode`` says."""
    datamodule._create_val_split()


def forget_splits(datamodule: AnomalibDataModule) -> None:
    """Take a datamodule's datasets away, as before its setup."""
    for split in SPLITS:
        vars(datamodule).pop(f"{split}_data", None)


def hand_on_augmentations(datamodule: AnomalibDataModule) -> None:
    """Give each dataset of a datamodule its augmentations, with the resize of the trainer's model at their end."""
    datamodule._update_augmentations()


def lists_in_order(datamodule: AnomalibDataModule) -> bool:
    """Return whether a datamodule's listing and splitting are known: its training images come from one listing."""
    packages = {getattr(type(datamodule), step).__module__.split(".")[0] for step in _STEPS}
    return packages <= {"anomalib", "anomalib_synth"}


def find_datasets(datamodule: AnomalibDataModule) -> list[AnomalibDataset]:
    """Return every dataset that a datamodule holds, whatever it calls it."""
    from anomalib.data import AnomalibDataset

    return [value for value in vars(datamodule).values() if isinstance(value, AnomalibDataset)]

from __future__ import annotations

import pytest
from anomalib.data import Folder

from anomalib_synth.host.splits import (
    find_datasets,
    forget_splits,
    list_files,
    lists_in_order,
    split_test,
    split_validation,
)


class Redrawing(Folder):
    """A datamodule of another package that splits in its own way."""

    def _create_val_split(self) -> None:
        self.val_data = self.test_data


def make(root, kind=Folder) -> Folder:
    return kind("parts", root=root, normal_dir="train/good", val_split_mode="from_train", val_split_ratio=0.5)


def test_each_step_makes_its_own_split_when_they_are_called_one_by_one(parts_root) -> None:
    datamodule = make(parts_root)
    list_files(datamodule)
    everything = len(datamodule.train_data)
    assert not hasattr(datamodule, "val_data")
    split_test(datamodule)
    split_validation(datamodule)
    assert 0 < len(datamodule.val_data) < everything
    assert len(find_datasets(datamodule)) == 3
    forget_splits(datamodule)
    assert not find_datasets(datamodule)


@pytest.mark.parametrize(("kind", "known"), [(Folder, True), (Redrawing, False)])
def test_order_is_unknown_when_another_package_splits(kind, known, parts_root) -> None:
    assert lists_in_order(make(parts_root, kind)) is known

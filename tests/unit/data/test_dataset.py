"""Labels and masks of synthetic splits follow what the model sees."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import Folder
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize, Transform

from anomalib_synth.data import SyntheticDataModule, SyntheticImageBatch
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.generators.seeding import derive_seeds, gets_defect, image_key
from tests.conftest import save_images
from tests.contract import render_normals

SIDE = 96
NORMALISE = Normalize([0.5] * 3, [0.5] * 3)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    save_images(tmp_path / "good", render_normals(24, 3, SIDE, SIDE, seed=1))
    return tmp_path


def wrap(root: Path, transform: Transform | None, families: list[str], **options) -> SyntheticDataModule:
    """A datamodule that is set up by a trainer whose model has the transform."""
    base = Folder(name="parts", root=root, normal_dir="good", num_workers=0, seed=0)
    generator = RuleBasedGenerator(families, foreground=None)
    datamodule = SyntheticDataModule(base, generator, root=root / "kept", **options)
    module = SimpleNamespace(pre_processor=PreProcessor(transform))
    datamodule.trainer = SimpleNamespace(lightning_module=module, model=module, world_size=1)
    datamodule.setup()
    return datamodule


def pre_process(dataset, transform: Transform | None) -> SyntheticImageBatch:
    """A batch of all items as the model sees it."""
    batch = SyntheticImageBatch.collate([dataset[index] for index in range(len(dataset))])
    PreProcessor(transform).on_train_batch_start(None, None, batch, 0)
    return batch


def check_agreement(batch: SyntheticImageBatch) -> None:
    seen = batch.gt_mask.flatten(1).any(1)
    assert batch.gt_label.bool().tolist() == seen.tolist()
    assert batch.synthetic.tolist() == seen.tolist()
    assert bool((batch.quality[~seen] == 1).all())


CROP = Compose([Resize((64, 64), antialias=True), CenterCrop(16), NORMALISE])


@pytest.mark.parametrize("transform", [CROP, Compose([CenterCrop(24), Resize((32, 32)), NORMALISE]), CenterCrop(20)])
def test_kept_defect_is_none_when_the_model_crops_it_away(good: Path, transform: Transform) -> None:
    options = {"splits": ["val"], "val_ratio": 0.8, "anomalous_ratio": 0.9}
    datamodule = wrap(good, transform, ["bubble", "hole", "chip"], **options)
    batch = pre_process(datamodule.val_data, transform)
    check_agreement(batch)
    samples = datamodule.val_data.samples
    drawn = samples.mask_path != ""
    assert 0 < int(batch.gt_label.sum()) < int(drawn.sum()), "some must be in view, some not"
    assert samples.label_index.tolist() == batch.gt_label.int().tolist()
    again = wrap(good, None, ["bubble", "hole", "chip"], **options)  # the kept files are those of any model
    assert int((again.val_data.samples.label_index == 1).sum()) == int(drawn.sum())


def test_setup_refuses_when_the_model_sees_no_kept_defect(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalib_synth.data.dataset.in_view", lambda masks, transform: torch.zeros(len(masks)) > 0)
    with pytest.raises(ValueError, match="leaves out all"):
        wrap(good, CROP, ["bubble"], splits=["val"], val_ratio=0.5)


def test_training_defect_is_drawn_again_when_the_model_crops_it_away(good: Path) -> None:
    options = {"splits": ["train", "val"], "val_ratio": 0.5, "anomalous_ratio": 0.99}
    transform = Compose([Resize((64, 64), antialias=True), CenterCrop(32), NORMALISE])
    datamodule = wrap(good, transform, ["bubble"], **options)
    batch = pre_process(datamodule.train_data, transform)
    check_agreement(batch)
    hidden = ~batch.gt_label.bool()
    source = transform(batch.source).as_subclass(torch.Tensor)
    assert torch.equal(batch.image.as_subclass(torch.Tensor)[hidden], source[hidden])
    datamodule.train_data.look_through(None)  # as before: a defect anywhere counts
    before = pre_process(datamodule.train_data, transform).gt_mask.flatten(1).any(1)
    assert int(batch.gt_label.sum()) > int(before.sum())


@pytest.mark.parametrize("splits", [["val"], ["train", "val"]])
def test_scratch_keeps_its_mask_when_the_model_resizes(good: Path, splits: list[str]) -> None:
    transform = Compose([Resize((12, 12), antialias=True), NORMALISE])
    datamodule = wrap(good, transform, ["scratch", "fibre"], splits=splits, val_ratio=0.5, anomalous_ratio=0.9)
    dataset = datamodule.train_data if "train" in splits else datamodule.val_data
    batch = pre_process(dataset, transform)
    check_agreement(batch)
    assert int(batch.gt_label.sum()) >= 8
    twice = Compose([Resize((48, 48), antialias=True), Resize((6, 6), antialias=True)])  # the second on the device
    check_agreement(pre_process(wrap(good, twice, ["scratch"], splits=splits).val_data, twice))


def test_images_get_a_defect_as_their_seeds_say_when_a_training_set_is_read(good: Path) -> None:
    datamodule = wrap(good, None, ["noise"], splits=["train", "val"], val_ratio=0.3, anomalous_ratio=0.4)
    dataset = datamodule.train_data
    dataset.generator = dataset.generator.replace(strength=(0.9, 1.0))  # so that each draw passes its checks
    for epoch in range(2):
        items = [dataset[epoch * len(dataset) + position] for position in range(len(dataset))]
        seeds = derive_seeds(dataset.seed, epoch, [image_key(item.image_path) for item in items]).tolist()
        assert [item.synthetic for item in items] == [gets_defect(seed, 0.4) for seed in seeds]

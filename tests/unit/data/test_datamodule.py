"""SyntheticDataModule: which images become what, that nothing leaks, and that runs repeat."""

from __future__ import annotations

import copy
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from anomalib.data import AnomalibDataModule, ImageBatch, ImageItem, MVTecAD
from anomalib.data.utils import read_image, read_mask
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.pre_processing import PreProcessor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, RandomVerticalFlip, Resize

from anomalib_synth.data import SyntheticDataModule, SyntheticImageItem
from anomalib_synth.data.dataset import EpochSampler
from anomalib_synth.functional.field_of_view import CoverageMask
from anomalib_synth.generators.seeding import derive_seeds, image_key
from tests.unit.data.image_sets import folder, generator, sources, wrap, write_images
from tests.warm_python import run_warm

# --- normal-only folders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [{}, {"test_split_mode": "none", "val_split_mode": "none"}])
def test_normal_only_folder_gets_val_and_test_when_both_are_named(good: Path, modes: dict):
    datamodule = wrap(folder(good, **modes), good, splits=["val", "test"], val_ratio=0.3, test_ratio=0.3)
    train, val, test = datamodule.train_data, datamodule.val_data, datamodule.test_data
    assert [len(train), len(val), len(test)] == [4, 4, 4]
    for dataset in (val, test):
        assert dataset.samples.label_index.value_counts().to_dict() == {0: 2, 1: 2}
    paths = set(train.samples.image_path)
    assert not paths & sources(val)
    assert not paths & sources(test)
    assert not sources(val) & sources(test)
    assert paths | sources(val) | sources(test) == {str(path) for path in (good / "good").iterdir()}
    assert {len(train[0].gt_mask.shape), int(train[0].gt_mask.sum())} == {2, 0}


def test_split_does_not_depend_on_the_other_split_when_only_one_is_named(good: Path):
    one = wrap(folder(good), good, splits=["val"])
    two = wrap(folder(good), good, splits=["val"])
    other = wrap(folder(good), good, splits=["val"], seed=1)
    assert sources(one.val_data) == sources(two.val_data)
    assert list(one.train_data.samples.image_path) == list(two.train_data.samples.image_path)
    assert sources(one.val_data) != sources(other.val_data)


def test_unnamed_test_split_warns_when_it_holds_normals_only(good: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        datamodule = wrap(folder(good), good, splits=["val"])
    assert "Add 'test' to `splits`" in caplog.text
    assert not set(datamodule.test_data.samples.image_path) & sources(datamodule.val_data)
    assert not datamodule.test_data[0].gt_mask.any()


def test_unnamed_val_split_is_taken_from_the_synthetic_test_when_the_base_says_from_test(good: Path):
    datamodule = wrap(folder(good), good, splits=["test"], test_ratio=0.6)
    assert datamodule.val_data.has_anomalous
    assert datamodule.test_data.has_anomalous
    assert not sources(datamodule.val_data) & sources(datamodule.test_data)


def test_labels_follow_masks_and_pixels_when_the_split_is_read(good: Path):
    datamodule = wrap(folder(good), good, splits=["val"], val_ratio=0.6)
    kept = datamodule.val_data.samples.set_index("image_path")
    seen = []
    for entry in datamodule.val_data:
        changed = (entry.image != entry.source).any(0)
        assert bool(entry.gt_label) == bool(entry.gt_mask.any()) == bool(changed.any())
        assert not (changed & ~entry.gt_mask).any()
        assert (entry.quality == 1) == (not entry.gt_label)
        if entry.gt_label:
            assert entry.quality == kept.loc[entry.image_path].quality
        seen.append(bool(entry.gt_label))
    assert {True, False} == set(seen)
    assert len(seen) == 7


def test_val_batches_stay_aligned_when_the_base_augments(good: Path):
    flips = Compose([RandomHorizontalFlip(1.0), Resize((32, 48))])
    datamodule = wrap(folder(good, val_augmentations=flips), good, splits=["val"], val_ratio=0.6)
    entry = next(entry for entry in datamodule.val_data if entry.gt_label)
    row = datamodule.val_data.samples.set_index("image_path").loc[entry.image_path]
    assert entry.image.shape == entry.source.shape == (3, 32, 48)
    assert torch.equal(entry.image, flips(read_image(entry.image_path, as_tensor=True)))
    assert torch.equal(entry.source, flips(read_image(row.source_path, as_tensor=True)))
    drawn = CoverageMask(read_mask(row.mask_path, as_tensor=True))
    assert torch.equal(entry.gt_mask, flips(drawn).bool())


# --- data sets with real defects -----------------------------------------------------------------------------------


def test_real_test_set_is_untouched_when_only_val_is_named(mvtec: Path):
    base = MVTecAD(root=mvtec, category="part", num_workers=0, val_split_mode="from_test", seed=3)
    reference = MVTecAD(root=mvtec, category="part", num_workers=0, val_split_mode="none")
    reference.setup()
    datamodule = wrap(base, mvtec, splits=["val"])
    assert list(datamodule.test_data.samples.image_path) == list(reference.test_data.samples.image_path)
    assert len(datamodule.test_data) == 7
    train = {str(path) for path in (mvtec / "part" / "train" / "good").iterdir()}
    assert sources(datamodule.val_data) <= train
    assert not sources(datamodule.val_data) & set(datamodule.train_data.samples.image_path)
    assert len(datamodule.train_data) == 8
    assert (datamodule.name, datamodule.category) == ("MVTecAD", "part")
    assert (mvtec / "kept" / "MVTecAD-part").is_dir()


@pytest.mark.parametrize("mode", ["from_train", "same_as_test"])
def test_unnamed_val_split_is_made_by_the_base_when_test_is_named(mvtec: Path, mode: str):
    base = MVTecAD(root=mvtec, category="part", num_workers=0, val_split_mode=mode, val_split_ratio=0.3)
    datamodule = wrap(base, mvtec, splits=["test"])
    val, train = set(datamodule.val_data.samples.image_path), set(datamodule.train_data.samples.image_path)
    assert not val & train
    assert (val == set(datamodule.test_data.samples.image_path)) == (mode == "same_as_test")
    assert len(val) == {"from_train": 3, "same_as_test": 4}[mode]


def test_own_test_normals_are_used_when_test_is_named(mvtec: Path):
    base = MVTecAD(root=mvtec, category="part", num_workers=0)
    datamodule = wrap(base, mvtec, splits=["test"])
    assert sources(datamodule.test_data) == {str(path) for path in (mvtec / "part" / "test" / "good").iterdir()}
    assert len(datamodule.train_data) == 10
    assert list(datamodule.val_data.samples.image_path) == list(datamodule.test_data.samples.image_path)


def test_classification_test_set_stays_so_when_defects_have_no_masks(good: Path):
    write_images(good / "bad", 3, first=300)
    datamodule = wrap(folder(good, abnormal_dir="bad"), good, splits=["val"])
    assert datamodule.test_data.task == "classification"
    assert datamodule.val_data.task == datamodule.train_data.task == "segmentation"
    assert datamodule.test_data.has_anomalous


def test_base_is_untouched_when_wrapped(good: Path):
    base, drawn_with = folder(good), generator()
    wrap(base, good, splits=["train", "val", "test"], generator=drawn_with)
    assert base.seed is None
    assert not hasattr(base, "train_data")
    assert drawn_with.prepared is None


def test_split_is_the_same_when_the_base_was_set_up_before(good: Path):
    base = folder(good)
    base.setup()
    one = wrap(base, good, splits=["val"])
    two = wrap(folder(good), good, splits=["val"])
    assert list(one.val_data.samples.image_path) == list(two.val_data.samples.image_path)


# --- training on the fly -------------------------------------------------------------------------------------------


def epoch_of(datamodule: SyntheticDataModule, epoch: int) -> dict[str, SyntheticImageItem]:
    dataset = datamodule.train_data
    items = (dataset[epoch * len(dataset) + position] for position in range(len(dataset)))
    return {entry.image_path: entry for entry in items}


def test_training_items_change_when_the_epoch_does(good: Path):
    datamodule = wrap(folder(good), good, splits=["train", "val"], anomalous_ratio=0.6)
    zero, again, one = epoch_of(datamodule, 0), epoch_of(datamodule, 0), epoch_of(datamodule, 1)
    assert all(torch.equal(zero[path].image, again[path].image) for path in zero)
    both = [path for path in zero if zero[path].gt_label and one[path].gt_label]
    assert both
    assert not any(torch.equal(zero[path].image, one[path].image) for path in both)
    labels = [bool(entry.gt_label) for epoch in (zero, one) for entry in epoch.values()]
    assert 0 < sum(labels) < len(labels)
    assert datamodule.train_data.generator.prepared.count == len(zero)
    for path, entry in zero.items():
        changed = (entry.image != entry.source).any(0)
        assert bool(entry.gt_label) == bool(entry.gt_mask.any()) == bool(changed.any())
        assert (entry.quality == 1) == (not entry.gt_label)
        assert torch.equal(entry.source, read_image(path, as_tensor=True))
        if entry.gt_label:
            seeds = derive_seeds(datamodule.train_data.seed, 0, [image_key(path)])
            drawn = datamodule.train_data.generator(entry.source[None], seeds=seeds)
            assert entry.quality == pytest.approx(float(drawn.quality[0]))


def test_training_share_follows_the_ratio(good: Path):
    datamodule = wrap(folder(good), good, splits=["train", "val"], anomalous_ratio=0.25)
    labels = [bool(entry.gt_label) for epoch in range(20) for entry in epoch_of(datamodule, epoch).values()]
    assert 0.12 < sum(labels) / len(labels) < 0.38


def test_training_label_is_normal_when_the_defect_is_cropped_away(good: Path):
    from torchvision.transforms.v2 import CenterCrop

    datamodule = wrap(
        folder(good, train_augmentations=CenterCrop(4)), good, splits=["train", "val"], anomalous_ratio=0.99
    )
    entries = [entry for epoch in range(3) for entry in epoch_of(datamodule, epoch).values()]
    assert any(not entry.gt_label for entry in entries)
    assert all(bool(entry.gt_label) == bool(entry.gt_mask.any()) for entry in entries)
    assert all(entry.quality == 1 for entry in entries if not entry.gt_label)


def test_training_geometry_is_joint_when_the_augmentation_is_random(good: Path):
    flips = Compose([RandomHorizontalFlip(0.5), RandomVerticalFlip(0.5)])
    datamodule = wrap(folder(good, train_augmentations=flips), good, splits=["train", "val"], anomalous_ratio=0.9)
    torch.manual_seed(0)
    flipped = 0
    for path, entry in epoch_of(datamodule, 0).items():
        assert not ((entry.image != entry.source).any(0) & ~entry.gt_mask).any()
        flipped += not torch.equal(entry.source, read_image(path, as_tensor=True))
    assert flipped


@pytest.mark.slow
def test_epoch_reaches_the_workers_when_spawned(good: Path):
    datamodule = wrap(folder(good), good, splits=["train", "val"], anomalous_ratio=0.8)
    loader = datamodule.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    expected = [epoch_of(datamodule, epoch) for epoch in (0, 3)]
    spawned = DataLoader(
        loader.dataset,
        sampler=loader.sampler,
        batch_size=4,
        num_workers=2,
        collate_fn=loader.collate_fn,
        multiprocessing_context="spawn",
        persistent_workers=True,  # the workers live on: the epoch must come with the index
    )
    orders = []
    for epoch, items in zip((0, 3), expected, strict=True):
        spawned.sampler.set_epoch(epoch)
        batches = list(spawned)
        orders.append([path for batch in batches for path in batch.image_path])
        for batch in batches:
            for n, path in enumerate(batch.image_path):
                assert torch.equal(batch.image[n], items[path].image)
                assert torch.equal(batch.source[n], items[path].source)
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(expected[0])
    assert orders[0] != orders[1]


def test_ranks_share_the_epoch_when_distributed():
    data = list(range(10))
    seen = []
    for rank in (0, 1):
        sampler = EpochSampler(data, num_replicas=2, rank=rank, seed=0)
        sampler.set_epoch(7)
        seen += list(sampler)
    assert sorted(seen) == [70 + n for n in range(10)]


def test_random_state_is_untouched_when_items_are_drawn(good: Path):
    datamodule = wrap(folder(good), good, splits=["train", "val"])
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    epoch_of(datamodule, 0)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_training_dataset_ends_when_iterated(good: Path):
    datamodule = wrap(folder(good), good, splits=["train", "val"])
    assert len(list(datamodule.train_data)) == len(datamodule.train_data)


def test_train_stays_the_base_s_when_not_named(good: Path):
    datamodule = wrap(folder(good), good, splits=["val"])
    assert type(next(iter(datamodule.train_dataloader()))) is ImageBatch
    assert type(datamodule.train_data[0]) is ImageItem
    assert datamodule.train_dataloader().batch_size == 4


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"splits": ["valid"]}, r"`splits` must name at least one of train, val, test, got \['valid'\]"),
        ({"splits": []}, r"`splits` must name at least one"),
        ({"anomalous_ratio": 0.0}, r"`anomalous_ratio` must satisfy 0 < ratio < 1, got 0.0"),
        ({"val_ratio": 1.0}, r"`val_ratio` must satisfy"),
        ({"test_ratio": -0.1}, r"`test_ratio` must satisfy"),
    ],
)
def test_constructor_refuses_when_an_argument_is_out_of_range(tmp_path: Path, kwargs: dict, match: str):
    with pytest.raises(ValueError, match=match):
        SyntheticDataModule(folder(tmp_path), generator(), **kwargs)


def test_constructor_refuses_when_a_part_has_the_wrong_type(tmp_path: Path):
    with pytest.raises(TypeError, match="`base` must be a datamodule"):
        SyntheticDataModule(tmp_path, generator())
    with pytest.raises(TypeError, match="`generator` must be an AnomalyGenerator"):
        SyntheticDataModule(folder(tmp_path), "scratch")
    with pytest.raises(TypeError, match="`base` must be a datamodule of anomalib"):
        SyntheticDataModule(SyntheticDataModule(folder(tmp_path), generator()), generator())


def test_constructor_does_no_io(tmp_path: Path):
    datamodule = SyntheticDataModule(folder(tmp_path / "missing"), generator(), root=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    with pytest.raises(ValueError, match="`base` parts must find its images"):
        datamodule.setup()


def test_the_refusal_speaks_of_links_when_one_leads_nowhere(good: Path):
    (good / "good" / "gone.png").symlink_to("nowhere")
    with pytest.raises(
        ValueError, match=r"must find its images, .*samples\. .* no link among its images leads nowhere"
    ):
        SyntheticDataModule(folder(good), generator()).setup()


def test_setup_refuses_when_the_folder_is_empty(tmp_path: Path):
    (tmp_path / "good").mkdir()
    with pytest.raises(ValueError, match=r"must find its images.*Found 0 "):
        wrap(folder(tmp_path), tmp_path)


@pytest.mark.parametrize(("splits", "needed"), [(["val"], 3), (["val", "test"], 5)])
def test_setup_says_how_many_images_are_needed_when_there_are_too_few(tmp_path: Path, splits: list[str], needed: int):
    write_images(tmp_path / "good", needed - 1)
    with pytest.raises(ValueError, match=f"at least {needed} normal training images .*, got {needed - 1}"):
        wrap(folder(tmp_path), tmp_path, splits=splits)
    write_images(tmp_path / "good", 1, first=90)
    modes = {"test_split_mode": "none", "val_split_mode": "none"}
    assert len(wrap(folder(tmp_path, **modes), tmp_path, splits=splits).train_data) == 1


def test_setup_refuses_when_the_ratios_leave_nothing_to_train_on(good: Path):
    with pytest.raises(ValueError, match=r"`val_ratio` \+ `test_ratio` must be < 1, got 1.1"):
        wrap(folder(good), good, splits=["val", "test"], val_ratio=0.6, test_ratio=0.5)


def test_error_names_val_when_the_base_cannot_make_one(good: Path):
    with pytest.raises(ValueError, match="`splits` must name 'val'"):
        wrap(folder(good, test_split_mode="none"), good, splits=["train"])
    none = wrap(folder(good, test_split_mode="none", val_split_mode="none"), good, splits=["train"])
    with pytest.raises(ValueError, match="Add 'val'"):
        none.val_dataloader()


# --- with anomalib -------------------------------------------------------------------------------------------------


def patchcore() -> Patchcore:
    return Patchcore(
        backbone="resnet18",
        pre_trained=False,
        layers=["layer1"],
        coreset_sampling_ratio=0.05,
        pre_processor=PreProcessor(Resize((32, 32), antialias=True)),
        visualizer=False,
    )


@pytest.mark.parametrize("splits", [["val", "test"], ["train", "val"]])
def test_patchcore_is_thresholded_when_there_is_no_real_defect(good: Path, tmp_path: Path, splits: list[str]):
    write_images(good / "good", 2, first=70, side=80)
    datamodule = SyntheticDataModule(
        folder(good), generator(), splits=splits, root=tmp_path / "kept", val_ratio=0.4, test_ratio=0.3
    )
    model = patchcore()
    engine = Engine(default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    engine.fit(model, datamodule=datamodule)
    assert datamodule.val_data[0].image.shape[-2:] == (32, 32)  # the model's resize was appended
    assert torch.isfinite(model.post_processor.image_threshold)
    (results,) = engine.test(model, datamodule=datamodule)
    if "test" in splits:
        assert "image_AUROC" in results
        assert "pixel_AUROC" in results


def test_real_defects_without_masks_are_tested_when_val_is_synthetic(good: Path, tmp_path: Path):
    write_images(good / "bad", 3, first=300)
    datamodule = SyntheticDataModule(
        folder(good, abnormal_dir="bad"), generator(), root=tmp_path / "kept", val_ratio=0.4
    )
    engine = Engine(default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    (results,) = engine.train(patchcore(), datamodule=datamodule)
    assert "image_AUROC" in results


def config(good: Path) -> dict:
    return {
        "class_path": "anomalib_synth.data.SyntheticDataModule",
        "init_args": {
            "base": {
                "class_path": "anomalib.data.Folder",
                "init_args": {"name": "parts", "root": str(good), "normal_dir": "good", "num_workers": 0},
            },
            "generator": {
                "class_path": "anomalib_synth.generators.RuleBasedGenerator",
                "init_args": {"families": ["scratch", "noise"], "strength": [0.7, 1.0]},
            },
            "splits": ["val", "test"],
            "val_ratio": 0.4,
            "root": str(good / "kept"),
        },
    }


def test_yaml_builds_the_datamodule(good: Path, tmp_path: Path):
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(config(good)))
    datamodule = AnomalibDataModule.from_config(tmp_path / "data.yaml")
    assert isinstance(datamodule, SyntheticDataModule)
    assert datamodule.splits == ("val", "test")
    assert datamodule.held_out_ratio == {"val": 0.4, "test": 0.2}
    assert datamodule.generator.strength == (0.7, 1.0)


@pytest.mark.parametrize(
    ("where", "typo"),
    [((), "val_ration"), (("base", "init_args"), "normal_dirr"), (("generator", "init_args"), "familys")],
)
def test_yaml_typo_is_an_error_at_any_depth(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture, where: tuple[str, ...], typo: str
):
    broken = copy.deepcopy(config(good))
    place = broken["init_args"]
    for key in where:
        place = place[key]
    place[typo] = "0.5"
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(broken))
    with pytest.raises(SystemExit):
        AnomalibDataModule.from_config(tmp_path / "data.yaml")
    assert typo in capsys.readouterr().err


@pytest.mark.slow
def test_anomalib_train_runs_when_given_a_config(good: Path, tmp_path: Path):
    model = {
        "class_path": "anomalib.models.Patchcore",
        "init_args": {
            "backbone": "resnet18",
            "pre_trained": False,
            "layers": ["layer1"],
            "coreset_sampling_ratio": 0.05,
            "pre_processor": {
                "class_path": "anomalib.pre_processing.PreProcessor",
                "init_args": {
                    "transform": {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [64, 64]}}
                },
            },
        },
    }
    trainer = {"accelerator": "cpu", "enable_progress_bar": False}
    run = {"model": model, "data": config(good), "trainer": trainer, "default_root_dir": str(tmp_path / "results")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    command = [Path(sys.executable).parent / "anomalib", "train", "--config", tmp_path / "run.yaml"]
    ended = run_warm(command, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "image_AUROC" in ended.stdout
    assert list((tmp_path / "results").rglob("model.ckpt"))

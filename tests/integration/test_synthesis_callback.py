"""SynthesisCallback in the training loops of anomalib's models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.models import Padim, Supersimplenet
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.callbacks.labels import write_labels
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.host.augmenters import AugmenterSlot
from tests.integration.models import (
    BACKBONE,
    QUIET,
    fit,
    make_draem,
    make_dsr,
    make_engine,
    make_folder,
    make_glass,
    make_supersimplenet,
    make_uninet,
)


class Recorder(Callback):
    """Keeps what the model was trained on: runs after the synthesis callback and the pre-processor."""

    def __init__(self) -> None:
        self.batches = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.batches.append((batch, outputs["loss"].detach() if outputs else None))


def make_callback(**options) -> SynthesisCallback:
    generator = options.pop("generator", RuleBasedGenerator(["cutout", "nsa", "scratch"]))
    return SynthesisCallback(generator, **{"probability": 1.0, **options})


def test_labels_are_written_when_the_model_learns_from_them(parts_root, tmp_path) -> None:
    recorder = Recorder()
    fit(make_supersimplenet(), parts_root, tmp_path, [make_callback(), recorder])
    assert len(recorder.batches) == 2
    labels = 0
    for batch, loss in recorder.batches:
        assert batch.source.shape == batch.image.shape
        assert batch.gt_mask.shape == (4, 128, 128)
        assert torch.equal(batch.gt_label, batch.gt_mask.flatten(1).any(1))
        assert bool((batch.quality[~batch.gt_label] == 1).all())
        assert torch.equal(batch.synthetic, batch.gt_label)
        outside = (~batch.gt_mask).unsqueeze(1).expand_as(batch.image)
        assert torch.equal(
            batch.image.as_subclass(torch.Tensor)[outside], batch.source.as_subclass(torch.Tensor)[outside]
        )
        assert float(batch.source.min()) < 0, "source must be normalised like the image"
        assert torch.isfinite(loss)
        labels += int(batch.gt_label.sum())
    assert labels >= 6


def test_label_follows_what_is_left_when_the_model_crops(parts_root, tmp_path) -> None:
    crop = Compose([Resize((256, 256), antialias=True), CenterCrop(128), Normalize([0.5] * 3, [0.5] * 3)])
    model = Supersimplenet(**BACKBONE, supervised=True, pre_processor=PreProcessor(crop), **QUIET)
    callback, recorder = make_callback(generator=RuleBasedGenerator(["bubble"], foreground=None)), Recorder()
    hidden = []

    class Peek(Callback):
        """Runs between the two: the image still has what will be cropped away."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            hidden.extend(callback._reasons.elements())

    fit(model, parts_root, tmp_path, [callback, Peek(), recorder], max_epochs=3, limit_val_batches=0)
    for batch, _ in recorder.batches:
        assert torch.equal(batch.gt_label, batch.gt_mask.flatten(1).any(1))
        assert torch.equal(batch.synthetic, batch.gt_label)
        assert bool((batch.quality[~batch.gt_label] == 1).all())
        same = (batch.image == batch.source).flatten(1).all(1)
        assert torch.equal(same, ~batch.gt_label)
    labels = torch.cat([batch.gt_label for batch, _ in recorder.batches])
    assert 0.5 < float(labels.float().mean()) < 1  # a quarter of the area is in view
    assert "outside what the model sees" in hidden


def test_thin_defect_keeps_its_mask_when_the_pre_processor_resizes() -> None:
    images = torch.rand(6, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.5
    sample = RuleBasedGenerator(["fibre"], foreground=None)(images, seeds=list(range(6)))
    transform = Resize((6, 6), antialias=True)
    batch = ImageBatch(image=images)
    write_labels(batch, sample, transform)
    PreProcessor(transform).on_train_batch_start(None, None, batch, 0)
    assert bool(sample.accepted.any())
    assert torch.equal(batch.gt_mask.flatten(1).any(1), batch.gt_label)
    assert torch.equal(batch.gt_label, sample.accepted)


def test_label_is_normal_when_a_transform_s_defect_is_cropped_away() -> None:
    masks = torch.zeros(3, 64, 64, dtype=torch.bool)
    masks[0, :4, :4] = True  # out of view
    masks[1, 30:34, 30:34] = True
    batch = ImageBatch(image=torch.rand(3, 3, 64, 64), gt_mask=masks, gt_label=torch.tensor([False, False, True]))
    model = SimpleNamespace(pre_processor=PreProcessor(CenterCrop(16)))
    SynthesisCallback().on_train_batch_start(None, model, batch, 0)
    assert batch.gt_label.tolist() == [False, True, True]  # the last came labelled, without a mask
    assert batch.synthetic.tolist() == [False, True, False]


def test_real_defect_is_none_when_the_model_crops_it_away() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :4, :4] = masks[1, 30:34, 30:34] = True
    batch = ImageBatch(image=images.clone(), gt_label=torch.tensor([True, True]), gt_mask=masks)
    write_labels(batch, RuleBasedGenerator(["cutout"])(images, seeds=[1, 2]), CenterCrop(16))
    assert batch.gt_label.tolist() == [False, True]


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_probability_decides_how_many_images_get_a_defect(parts_root, tmp_path, probability) -> None:
    recorder = Recorder()
    callbacks = [make_callback(probability=probability), recorder]
    fit(make_supersimplenet(), parts_root, tmp_path, callbacks, max_epochs=6, limit_val_batches=0)
    share = torch.cat([batch.gt_label for batch, _ in recorder.batches]).float().mean()
    assert share == 0 if probability == 0 else 0.2 < share < 0.8


@pytest.mark.parametrize("name", ["draem", "dsr", "glass"])
def test_augmenter_slot_is_filled_while_training_and_restored(parts_root, tmp_path, monkeypatch, name) -> None:
    model, owner, slot = {
        "draem": lambda: (model := make_draem(tmp_path), model, "augmenter"),
        "dsr": lambda: (model := make_dsr(tmp_path, monkeypatch), model, "perlin_generator"),
        "glass": lambda: (model := make_glass(), model.model, "augmentor"),
    }[name]()
    original = getattr(owner, slot)
    calls, samples = [], []
    generator = RuleBasedGenerator(["cutout", "noise"])
    draw = generator.__class__.__call__
    monkeypatch.setattr(
        RuleBasedGenerator,
        "__call__",
        lambda self, images, **kw: calls.append(len(images)) or samples.append(draw(self, images, **kw)) or samples[-1],
    )
    seen = []

    class Watch(Recorder):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            seen.append(isinstance(getattr(owner, slot), AugmenterSlot))

    watch = Watch()
    keys = set(model.state_dict())
    fit(model, parts_root, tmp_path, [make_callback(generator=generator), watch])
    assert seen == [True, True]
    assert calls == [4, 4]
    assert all(torch.isfinite(loss) for _, loss in watch.batches if loss is not None)
    for (batch, _), sample in zip(watch.batches, samples, strict=True):
        assert torch.equal(batch.quality, sample.quality)
        assert torch.equal(batch.synthetic, sample.accepted)
    assert getattr(owner, slot) is original
    assert set(model.state_dict()) == keys


def test_augmenter_is_restored_when_training_fails(parts_root, tmp_path) -> None:
    class Failing(Callback):
        def on_train_batch_end(self, *args) -> None:
            msg = "planted"
            raise RuntimeError(msg)

    model = make_glass()
    original = model.model.augmentor
    with pytest.raises(RuntimeError, match="planted"):
        fit(model, parts_root, tmp_path, [make_callback(), Failing()])
    assert model.model.augmentor is original


@pytest.mark.slow
def test_uninet_learns_from_written_labels(parts_root, tmp_path, monkeypatch) -> None:
    recorder = Recorder()
    fit(make_uninet(monkeypatch), parts_root, tmp_path, [make_callback(), recorder], limit_val_batches=0)
    assert all(torch.isfinite(loss) for _, loss in recorder.batches)
    assert any(bool(batch.gt_label.any()) for batch, _ in recorder.batches)


def test_model_that_cannot_learn_from_anomalies_is_refused(parts_root, tmp_path) -> None:
    model = Padim(backbone="efficientnet_lite0_bundled", layers=["blocks.2"], n_features=8)
    with pytest.raises(ValueError, match=r"Padim.*does not learn from anomalies.*SyntheticDataModule"):
        fit(model, parts_root, tmp_path, [make_callback()])


def test_unsupervised_supersimplenet_is_refused(parts_root, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"supervised: true"):
        fit(make_supersimplenet(supervised=False), parts_root, tmp_path, [make_callback()])


def test_run_repeats_whatever_the_number_of_workers(parts_root, tmp_path) -> None:
    seen = []
    for workers in (0, 2):
        torch.manual_seed(0)
        recorder = Recorder()
        engine = make_engine(tmp_path, [make_callback(), recorder], limit_val_batches=0)
        engine.fit(make_supersimplenet(), datamodule=make_folder(parts_root, num_workers=workers))
        by_path = {}
        for batch, _ in recorder.batches:
            by_path |= dict(zip(batch.image_path, batch.image.as_subclass(torch.Tensor), strict=True))
        seen.append(by_path)
    common = seen[0].keys() & seen[1].keys()
    assert common
    assert all(torch.equal(seen[0][path], seen[1][path]) for path in common)


def test_defects_change_from_epoch_to_epoch(parts_root, tmp_path) -> None:
    recorder = Recorder()
    callbacks = [make_callback(), recorder]
    fit(make_supersimplenet(), parts_root, tmp_path, callbacks, max_epochs=2, limit_train_batches=1.0)
    masks: dict[str, list] = {}
    for batch, _ in recorder.batches:
        for path, mask in zip(batch.image_path, batch.gt_mask.as_subclass(torch.Tensor), strict=True):
            masks.setdefault(path, []).append(mask)
    assert any(len(two) == 2 and not torch.equal(*two) for two in masks.values())


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (make_supersimplenet, {"precision": "bf16-mixed"}),
        (make_glass, {"precision": "bf16-mixed"}),
        (make_supersimplenet, {"accumulate_grad_batches": 2}),
    ],
    ids=["labels, bf16", "slot, bf16", "gradient accumulation"],
)
def test_training_options(parts_root, tmp_path, make, options) -> None:
    recorder = Recorder()
    fit(make(), parts_root, tmp_path, [make_callback(), recorder], **options)
    assert all(torch.isfinite(loss) for _, loss in recorder.batches)


def test_grid_goes_to_the_results_folder_and_the_logger(parts_root, tmp_path) -> None:
    class ImageLogger(Logger):
        name, version = "images", 0

        def __init__(self) -> None:
            super().__init__()
            self.images = []

        def log_hyperparams(self, params, *args, **kwargs) -> None: ...
        def log_metrics(self, metrics, step=None) -> None: ...
        def add_image(self, image, name=None, **kwargs) -> None:
            self.images.append((image, name, kwargs["global_step"]))

    log = ImageLogger()
    engine = fit(make_supersimplenet(), parts_root, tmp_path, [make_callback()], logger=[log])
    pictures = list((Path(engine.trainer.default_root_dir) / "synthesis").glob("*.png"))
    assert [picture.name for picture in pictures] == ["epoch_0000.png"]
    (image, name, _), *_ = log.images
    assert name == "synthesis"
    assert image.ndim == 3
    assert image.std() > 0


def test_acceptance_is_logged_and_low_acceptance_warned_of(parts_root, tmp_path, caplog) -> None:
    from anomalib_synth.generators import SampleChecks

    generator = RuleBasedGenerator(["noise"], checks=SampleChecks(min_visibility=1e6), max_attempts=1)
    recorder = Recorder()
    engine = fit(make_supersimplenet(), parts_root, tmp_path, [make_callback(generator=generator), recorder])
    assert float(engine.trainer.logged_metrics["synthesis_accepted"]) == 0
    assert "0 of 8 synthetic samples passed" in caplog.text
    assert "noise" in caplog.text
    assert not any(bool(batch.gt_label.any()) for batch, _ in recorder.batches)


def test_cost_counts_the_accepted_samples_of_one_fit(parts_root, tmp_path) -> None:
    callback, recorder = make_callback(), Recorder()
    for _ in range(2):  # the second does not add to the first
        recorder.batches.clear()
        fit(make_supersimplenet(), parts_root, tmp_path, [callback, recorder])
        drawn = sum(int(batch.synthetic.sum()) for batch, _ in recorder.batches)
        assert callback.accepted_samples == drawn > 0
        assert 0 < callback.drawing_seconds < 60


def test_labels_follow_masks_when_a_transform_drew_them() -> None:
    batch = ImageBatch(image=torch.zeros(2, 3, 8, 8), gt_label=torch.zeros(2, dtype=torch.bool))
    batch.gt_mask = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)]).bool()
    SynthesisCallback().on_train_batch_start(None, None, batch, 0)
    assert batch.gt_label.tolist() == [False, True]


def test_real_defects_keep_their_image_mask_and_label() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 32, 32, dtype=torch.bool)
    mask[1, :4, :4] = True
    batch = ImageBatch(image=images.clone(), gt_label=torch.tensor([False, True]), gt_mask=mask)
    sample = RuleBasedGenerator(["cutout"])(images, seeds=[1, 2])
    assert sample.accepted.all()
    write_labels(batch, sample, None)
    assert torch.equal(batch.image[1].as_subclass(torch.Tensor), images[1])
    assert torch.equal(batch.gt_mask[1].as_subclass(torch.Tensor), mask[1])
    assert not torch.equal(batch.image[0].as_subclass(torch.Tensor), images[0])
    assert batch.gt_label.tolist() == [True, True]
    assert float(batch.quality[1]) == 1.0
    assert batch.synthetic.tolist() == [True, False]
    assert float(batch.quality[0]) == float(sample.quality[0]) < 1.0
    assert abs(float(sample.quality[0]) - 0.5) > 0.1  # or its opposite would pass too


def test_real_defects_without_masks_are_refused() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = ImageBatch(image=images, gt_label=torch.tensor([False, True]))
    with pytest.raises(ValueError, match="without masks"):
        write_labels(batch, RuleBasedGenerator(["cutout"])(images, seeds=[1, 2]), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.5}, r"`probability` must be in \[0, 1\], got 1.5"),
        ({"max_normals": 0}, r"`max_normals` must be >= 1, got 0"),
        ({"grid_every_n_epochs": -1}, r"`grid_every_n_epochs` must be >= 0, got -1"),
    ],
)
def test_bad_arguments_are_named(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        SynthesisCallback(RuleBasedGenerator(), **options)


def test_normalised_images_are_refused(parts_root, tmp_path) -> None:
    from torchvision.transforms.v2 import Normalize

    engine = make_engine(tmp_path, [make_callback()])
    datamodule = make_folder(parts_root, train_augmentations=Normalize([0.5] * 3, [0.5] * 3))
    with pytest.raises(ValueError, match=r"images in \[0, 1\] before normalisation"):
        engine.fit(make_supersimplenet(), datamodule=datamodule)

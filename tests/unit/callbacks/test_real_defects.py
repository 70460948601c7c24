"""RealDefectsCallback: what it puts into batches, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.models import Draem
from PIL import Image as PILImage
from torchvision.transforms.v2 import CenterCrop

from anomalib_synth.callbacks import RealDefectsCallback
from anomalib_synth.callbacks.labels import RealRow, write_labels, write_real_rows
from anomalib_synth.defects import DEFECT
from anomalib_synth.models import DiscriminativePadim, RealNet
from anomalib_synth.sample import AnomalySample

SIDE = 32


def save(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(pixels).save(path)


def make_defects(folder, count: int = 2, *, masks: bool = True):
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(90, 110, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[8:14, 8:14] = 220 - number
        save(folder / "test" / "dent" / f"{number}.png", pixels)
        if masks:
            mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
            mask[8:14, 8:14] = 255
            save(folder / "ground_truth" / "dent" / f"{number}_mask.png", mask)
    return folder / "test"


def make_normals(folder, count: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    paths = []
    for number in range(count):
        paths.append(str(folder / "good" / f"{number}.png"))
        save(folder / "good" / f"{number}.png", rng.integers(90, 110, (SIDE, SIDE, 3), dtype=np.uint8))
    return pd.DataFrame({"image_path": paths, "label_index": 0, "mask_path": ""})


def make_trainer(samples: pd.DataFrame, callbacks, test: pd.DataFrame | None = None) -> SimpleNamespace:
    module = DiscriminativePadim(pre_processor=False, scales=[32])
    data = SimpleNamespace(train_data=SimpleNamespace(samples=samples))
    if test is not None:
        data.test_data = SimpleNamespace(samples=test)
    loader = SimpleNamespace(dataset=SimpleNamespace(augmentations=None), batch_size=4, batch_sampler=None)
    return SimpleNamespace(
        callbacks=callbacks, datamodule=data, train_dataloader=loader, num_training_batches=2, world_size=1,
        lightning_module=module, current_epoch=0, global_step=0, global_rank=0,
    )  # fmt: skip


def start(callback, samples, test=None) -> SimpleNamespace:
    trainer = make_trainer(samples, [callback], test)
    callback.setup(trainer, trainer.lightning_module, "fit")
    callback.on_fit_start(trainer, trainer.lightning_module)
    callback.on_train_start(trainer, trainer.lightning_module)
    return trainer


def make_batch(samples: pd.DataFrame, count: int = 4) -> ImageBatch:
    images = [np.asarray(PILImage.open(path)) for path in samples.image_path[:count]]
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return ImageBatch(
        image=stacked, gt_label=torch.zeros(count, dtype=torch.bool), image_path=list(samples.image_path[:count])
    )


def run(callback, trainer, samples) -> ImageBatch:
    batch = make_batch(samples)
    callback.on_train_batch_start(trainer, trainer.lightning_module, batch, 0)
    return batch


def test_a_share_of_the_rows_becomes_defects_with_their_masks(tmp_path) -> None:
    samples = make_normals(tmp_path)
    callback = RealDefectsCallback(make_defects(tmp_path), share=0.5, pasted=0.0)
    trainer = start(callback, samples)
    before, batch = make_batch(samples), run(callback, trainer, samples)
    rows = batch.gt_label.bool()
    assert rows.sum() == 2
    assert torch.equal(batch.image[~rows], before.image[~rows])
    for row in rows.nonzero().flatten().tolist():
        assert "dent" in batch.image_path[row]
        assert (batch.image[row][:, 8:14, 8:14] > 0.8).all()
        expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        expected[8:14, 8:14] = True
        assert torch.equal(batch.gt_mask[row] > 0, expected)
        assert torch.equal(batch.marks[row] == DEFECT, expected)
    assert not bool(batch.synthetic.any())
    assert not bool(batch.marks[~rows].any())


def test_pasted_rows_keep_their_image_as_source(tmp_path) -> None:
    samples = make_normals(tmp_path)
    callback = RealDefectsCallback(make_defects(tmp_path), share=0.75, pasted=1.0)
    trainer = start(callback, samples)
    before, batch = make_batch(samples), run(callback, trainer, samples)
    rows = batch.gt_label.bool()
    assert 1 <= rows.sum() <= 3
    assert torch.equal(batch.synthetic, rows)
    assert torch.equal(batch.source, before.image)
    assert batch.image_path == before.image_path
    outside = (batch.gt_mask == 0)[:, None].expand_as(batch.image)
    assert torch.equal(batch.image[outside], before.image[outside])
    assert not torch.equal(batch.image[rows], before.image[rows])


def test_one_row_at_least_when_the_share_is_small(tmp_path) -> None:
    samples = make_normals(tmp_path)
    callback = RealDefectsCallback(make_defects(tmp_path, 1), share=0.01, pasted=0.0)
    assert run(callback, start(callback, samples), samples).gt_label.sum() == 1


def test_same_seed_gives_the_same_batch(tmp_path) -> None:
    samples, defects = make_normals(tmp_path), make_defects(tmp_path)
    first, second, other = (
        run(callback, start(callback, samples), samples)
        for callback in (RealDefectsCallback(defects, share=0.5, seed=seed) for seed in (3, 3, 4))
    )
    assert torch.equal(first.image, second.image)
    assert not torch.equal(first.image, other.image)


def test_global_random_state_is_untouched(tmp_path) -> None:
    samples = make_normals(tmp_path)
    callback = RealDefectsCallback(make_defects(tmp_path), share=0.5)
    trainer = start(callback, samples)
    state = torch.get_rng_state()
    run(callback, trainer, samples)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_image_without_a_mark_is_a_defect_somewhere(tmp_path) -> None:
    samples = make_normals(tmp_path)
    callback = RealDefectsCallback(make_defects(tmp_path, masks=False), share=0.75)
    trainer = start(callback, samples)
    counts = []
    for step in range(40):
        batch = make_batch(samples)
        callback.on_train_batch_start(trainer, trainer.lightning_module, batch, step)
        counts.append(int(batch.gt_label.sum()))
        if counts[-1]:
            found = batch
    assert 10 <= sum(counts) <= 50  # a quarter of 120
    batch, rows = found, found.gt_label.bool()
    assert bool((batch.marks[rows] == 1).all())
    assert not bool((batch.gt_mask > 0).any())


def test_a_model_that_needs_masks_refuses_images_without(tmp_path) -> None:
    callback = RealDefectsCallback(make_defects(tmp_path, masks=False))
    trainer = make_trainer(make_normals(tmp_path), [callback])
    with pytest.raises(ValueError, match=r"must have masks for RealNet.*0\.png.*review --images"):
        callback.setup(trainer, RealNet(pre_processor=False), "fit")


def test_a_model_that_draws_its_own_refuses_labelled_images(tmp_path) -> None:
    callback = RealDefectsCallback(make_defects(tmp_path))
    trainer = make_trainer(make_normals(tmp_path), [callback])
    with pytest.raises(ValueError, match=r"Draem draws its own anomalies.*RealDefectGenerator"):
        callback.setup(trainer, Draem(dtd_dir=tmp_path, pre_processor=False), "fit")


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_defect_under_another_name_is_refused_when_the_run_holds_it_out(tmp_path, split) -> None:
    samples, defects = make_normals(tmp_path), make_defects(tmp_path)
    copy = tmp_path / "elsewhere" / "other_name.png"
    save(copy, np.asarray(PILImage.open(defects / "dent" / "1.png")))
    leak = pd.DataFrame({"image_path": [str(copy)], "label_index": [0], "mask_path": [""]})
    shown = (samples, leak) if split == "test" else (pd.concat([samples, leak], ignore_index=True), None)
    with pytest.raises(ValueError, match=r"`defects` must not hold.*1 of 2.*1\.png.*other_name\.png"):
        start(RealDefectsCallback(defects), *shown)


@pytest.mark.parametrize(("argument", "value"), [("share", 0.0), ("share", 1.0), ("pasted", -0.1), ("pasted", 1.1)])
def test_arguments_out_of_range_are_refused(argument, value) -> None:
    with pytest.raises(ValueError, match=f"`{argument}` must be in"):
        RealDefectsCallback("defects", **{argument: value})


def test_a_checkpoint_says_what_was_learned(tmp_path) -> None:
    callback = RealDefectsCallback(make_defects(tmp_path))
    trainer = start(callback, make_normals(tmp_path))
    checkpoint = {"anomalib_synth_learned": ["other"]}
    callback.on_save_checkpoint(trainer, trainer.lightning_module, checkpoint)
    assert len(checkpoint["anomalib_synth_learned"]) == 3


def test_nothing_is_pasted_over_a_drawn_defect(tmp_path) -> None:
    samples = make_normals(tmp_path)
    callback = RealDefectsCallback(make_defects(tmp_path), share=0.75, pasted=1.0)
    trainer = start(callback, samples)
    batch = make_batch(samples)
    batch.synthetic = torch.ones(4, dtype=torch.bool)
    batch.gt_label = torch.ones(4, dtype=torch.bool)
    callback.on_train_batch_start(trainer, trainer.lightning_module, batch, 0)
    real = torch.tensor(["dent" in path for path in batch.image_path])
    assert real.sum() == 3  # photographs take rows, nothing is pasted
    assert not bool(batch.synthetic[real].any())


def make_row(row: int, marks: torch.Tensor) -> RealRow:
    return RealRow(row=row, image=torch.ones(3, 8, 8), source=None, marks=marks, path="p.png")


def test_a_defect_that_the_model_crops_away_takes_no_row() -> None:
    batch = ImageBatch(image=torch.zeros(2, 3, 8, 8))
    edge, middle = torch.zeros(2, 8, 8, dtype=torch.uint8)
    edge[0, 0], middle[4, 4] = DEFECT, DEFECT
    write_real_rows(batch, [make_row(0, edge), make_row(1, middle)], CenterCrop(4))
    assert batch.gt_label.tolist() == [False, True]
    assert not bool(batch.image[0].any())
    assert batch.marks.shape == (2, 4, 4)


@pytest.mark.parametrize("order", ["before", "after"])
def test_drawn_defects_leave_real_rows_alone_in_either_order(order) -> None:
    batch = ImageBatch(image=torch.full((2, 3, 8, 8), 0.5))
    marks = torch.zeros(8, 8, dtype=torch.uint8)
    marks[2, 2] = DEFECT
    sample = AnomalySample.unchanged(torch.full((2, 3, 8, 8), 0.5), [None] * 2, "")
    drawn = torch.full((2, 3, 8, 8), 0.7)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 5:, 5:] = 1
    sample = AnomalySample(
        source=sample.source, image=drawn, mask=mask, quality=torch.ones(2), caption=["", ""],
        accepted=torch.ones(2, dtype=torch.bool), reason=["", ""], provenance=[None, None],
    )  # fmt: skip
    if order == "before":
        write_real_rows(batch, [make_row(0, marks)], None)
    write_labels(batch, sample, None)
    if order == "after":
        write_real_rows(batch, [make_row(0, marks)], None)
    assert batch.gt_label.tolist() == [True, True]
    assert batch.synthetic.tolist() == [False, True]
    assert (batch.image[0] == 1).all()
    assert (batch.image[1] == 0.7).all()
    assert (batch.gt_mask[0] > 0).nonzero().tolist() == [[2, 2]]
    assert (batch.source[0] == 1).all()
    assert (batch.source[1] == 0.5).all()

"""Thresholds in a checkpoint, against anomalib's own post-processor."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.post_processing import MEBinPostProcessor, PostProcessor

from anomalib_synth.host.thresholds import Level, give_raw_scores, has_pixel_threshold, write_thresholds

NAN = float("nan")


def make_checkpoint(*, image_range=(1.0, 9.0), **config: object) -> dict:
    """What Lightning saves of a post-processor: its buffers twice, and its settings."""
    processor = PostProcessor(**config)
    processor._image_threshold.fill_(4.0)
    processor._pixel_threshold.fill_(5.0)
    for name, value in zip(("image_min", "image_max"), image_range, strict=True):
        getattr(processor, name).fill_(value)
    for name, value in zip(("pixel_min", "pixel_max"), image_range, strict=True):
        getattr(processor, name).fill_(value)
    state = processor.state_dict()
    return {
        "state_dict": {**{f"post_processor.{name}": value.clone() for name, value in state.items()}, "other": 1},
        "callbacks": {"PostProcessor": copy.deepcopy(state), "ModelCheckpoint": {"best_model_path": ""}},
        "anomalib_post_processor_config": processor.checkpoint_config(),
    }


def restore(checkpoint: dict) -> PostProcessor:
    """Restore as Lightning's predict does: settings, the model's state, then the callback's own."""
    processor = PostProcessor()
    processor.load_checkpoint_config(checkpoint["anomalib_post_processor_config"])
    prefix = "post_processor."
    state = {name.removeprefix(prefix): v for name, v in checkpoint["state_dict"].items() if name.startswith(prefix)}
    processor.load_state_dict(state)
    processor.load_state_dict(checkpoint["callbacks"]["PostProcessor"])
    return processor


def labels_of(processor: PostProcessor, scores: torch.Tensor) -> ImageBatch:
    maps = scores.view(-1, 1, 1).repeat(1, 2, 2)
    batch = ImageBatch(image=torch.zeros(len(scores), 3, 2, 2), pred_score=scores, anomaly_map=maps)
    processor.post_process_batch(batch)
    return batch


@pytest.mark.parametrize(
    ("config", "image_range"),
    [
        ({}, (1.0, 9.0)),
        ({"image_sensitivity": 0.8, "pixel_sensitivity": 0.2}, (1.0, 9.0)),
        ({}, (NAN, NAN)),
        ({"enable_thresholding": False}, (1.0, 9.0)),
        ({"enable_normalization": False}, (NAN, NAN)),
        ({"enable_normalization": False, "image_sensitivity": 0.3}, (1.0, 9.0)),
        ({}, (3.0, 3.0)),
    ],
)
def test_labels_flip_at_the_threshold_when_predicting(config, image_range) -> None:
    checkpoint = make_checkpoint(image_range=image_range, **config)
    level = Level(threshold=6.25, low=0.5, high=20.0)
    write_thresholds(checkpoint, image=level, pixel=Level(threshold=7.5, low=0.5, high=20.0))
    step = 1e-5
    batch = labels_of(restore(checkpoint), torch.tensor([0.5, 6.25 - step, 6.25, 6.25 + step, 7.5, 7.5 + step, 20.0]))
    assert batch.pred_label.tolist() == [False, False, False, True, True, True, True]
    assert batch.pred_mask.flatten(1).all(1).tolist() == [False, False, False, False, False, True, True]


@pytest.mark.parametrize("threshold", [1e-6, 0.013, 0.5, 0.7, 12.560612, 74.603, 31234.5])
def test_labels_flip_at_the_threshold_when_scores_are_not_normalised(threshold) -> None:
    checkpoint = make_checkpoint(enable_normalization=False)
    threshold = float(torch.tensor(threshold))
    write_thresholds(checkpoint, image=Level(threshold=threshold, low=0.0, high=1.0), pixel=None)
    step = 2.5e-7 * max(1.0, threshold)  # the sensitivity is subtracted from 1 in float32
    labels = labels_of(restore(checkpoint), torch.tensor([threshold - step, threshold, threshold + step])).pred_label
    assert labels.tolist() == [False, False, True]


def test_scores_keep_their_range_when_there_was_one() -> None:
    checkpoint = make_checkpoint()
    write_thresholds(checkpoint, image=Level(threshold=6.0, low=0.0, high=100.0), pixel=None)
    processor = restore(checkpoint)
    assert (float(processor.image_min), float(processor.image_max)) == (1.0, 9.0)
    assert float(labels_of(processor, torch.tensor([7.0])).pred_score[0]) == pytest.approx(0.5 + 1 / 8)


def test_pixel_threshold_stays_when_none_is_given() -> None:
    checkpoint = make_checkpoint(pixel_sensitivity=0.7)
    write_thresholds(checkpoint, image=Level(threshold=6.0, low=0.0, high=9.0), pixel=None)
    processor = restore(checkpoint)
    assert float(processor.pixel_threshold) == 5.0
    assert processor.pixel_sensitivity == 0.7


def test_changes_are_told_when_settings_would_shift_the_threshold() -> None:
    level = Level(threshold=6.0, low=0.0, high=9.0)
    assert write_thresholds(make_checkpoint(), image=level, pixel=level) == []
    notes = write_thresholds(make_checkpoint(image_sensitivity=0.8, enable_thresholding=False), image=level, pixel=None)
    assert any("image_sensitivity` was 0.8" in note for note in notes)
    assert any("Thresholding was off" in note for note in notes)
    (note,) = write_thresholds(make_checkpoint(enable_normalization=False), image=level, pixel=None)
    assert "`image_sensitivity` holds 1 - threshold" in note


def test_masks_have_a_threshold_unless_mebin_makes_them() -> None:
    assert has_pixel_threshold(make_checkpoint())
    assert not has_pixel_threshold({"anomalib_post_processor_config": MEBinPostProcessor().checkpoint_config()})


def test_writing_is_refused_when_there_is_no_post_processor() -> None:
    level = Level(threshold=6.0, low=0.0, high=9.0)
    with pytest.raises(ValueError, match="must hold the thresholds"):
        write_thresholds({"state_dict": {}, "callbacks": {}}, image=level, pixel=None)


def test_predictions_are_raw_when_the_post_processor_is_silenced() -> None:
    processor = restore(make_checkpoint())
    give_raw_scores(SimpleNamespace(post_processor=processor))
    batch = labels_of(processor, torch.tensor([2.0, 7.0]))
    assert batch.pred_score.tolist() == [2.0, 7.0]
    assert float(batch.anomaly_map.max()) == 7.0
    assert batch.pred_label is None
    assert batch.pred_mask is None

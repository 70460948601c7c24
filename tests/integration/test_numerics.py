"""Precisions and losses that go wrong: named before the first batch or at once, and nothing is kept as finished."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.callbacks import SynthesisCallback
from anomalib_synth.generators import RuleBasedGenerator
from anomalib_synth.models import DiscriminativePadim, RealNet
from tests.integration.models import fit, make_glass, normalising

SMALL = {"feature_dims": (8, 8, 16), "residual_dims": (8, 8), "discriminator_width": 16, "selection_batches": 2}
QUIET = {"evaluator": False, "visualizer": False}


def make_realnet() -> RealNet:
    return RealNet(pre_processor=normalising(64), **QUIET, **SMALL)


def make_padim() -> DiscriminativePadim:
    return DiscriminativePadim(scales=[64], pre_processor=normalising(64), **QUIET)


def make_callback() -> SynthesisCallback:
    return SynthesisCallback(RuleBasedGenerator(families=["stain", "cutpaste"]), probability=0.7, grid_every_n_epochs=0)


def forbid_batches(model: torch.nn.Module) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError(args)

    model.training_step = refuse


@pytest.mark.parametrize("make", [make_realnet, make_padim])
@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_a_precision_is_refused_before_the_first_batch_when_the_model_cannot_use_it(
    parts_root, tmp_path, make, precision
) -> None:
    model = make()
    forbid_batches(model)
    with pytest.raises(
        ValueError, match=rf"{type(model).__name__} .*`trainer.precision` must be 32-true.*got {precision}"
    ):
        fit(model, parts_root, tmp_path, [make_callback()], precision=precision)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_realnet_trains_when_the_precision_is_mixed(parts_root, tmp_path, precision) -> None:
    engine = fit(make_realnet(), parts_root, tmp_path, [make_callback()], precision=precision)
    assert engine.trainer.callback_metrics["train_loss"].isfinite()


@pytest.mark.parametrize("make", [make_realnet, make_padim])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_training_stops_and_nothing_is_kept_when_the_loss_is_not_finite(parts_root, tmp_path, make, value) -> None:
    torch.manual_seed(0)
    model = make()
    reduce, calls = model.sample_reduction.forward, []
    model.sample_reduction.forward = lambda losses: reduce(losses) * (value if calls.append(1) or len(calls) > 1 else 1)
    with pytest.raises(
        ValueError, match=rf"loss of {type(model).__name__} is {value} at step 1 of epoch 0.*Try a lower"
    ):
        fit(model, parts_root, tmp_path, [make_callback()], max_epochs=3, limit_train_batches=2)
    assert len(calls) == 2
    assert list(tmp_path.rglob("*.ckpt")) == []
    assert all(p.isfinite().all() for p in model.parameters())


def test_images_are_named_when_their_loss_is_not_finite(parts_root, tmp_path) -> None:
    torch.manual_seed(0)
    model = make_realnet()
    losses = model.sample_losses

    def spoil(batch):
        reconstruction, segmentation = losses(batch)
        return reconstruction, segmentation.index_fill(0, torch.tensor([1]), torch.nan)

    model.sample_losses = spoil
    with pytest.raises(ValueError, match=r"with 1 of 4 images such as \['.*train/good/\d+\.png'\]"):
        fit(model, parts_root, tmp_path, [make_callback()])


@pytest.mark.parametrize("make", [make_realnet, make_padim])
def test_no_checkpoint_is_written_when_weights_are_not_finite(parts_root, tmp_path, make) -> None:
    torch.manual_seed(0)
    model = make()
    engine = fit(model, parts_root, tmp_path / "run", [make_callback()], limit_val_batches=0)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"has weights that are not finite at step \d+, such as 'model\."):
        engine.trainer.save_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "bad.ckpt").exists()


def test_a_second_synthesis_callback_is_refused_before_the_first_batch_and_the_augmenter_stays(
    parts_root, tmp_path
) -> None:
    model = make_glass()
    own = model.model.augmentor
    forbid_batches(model)
    with pytest.raises(ValueError, match=r"must hold one SynthesisCallback, got 2\. .*MixtureGenerator.*callbacks\+:"):
        fit(model, parts_root, tmp_path, [make_callback(), make_callback()])
    assert model.model.augmentor is own

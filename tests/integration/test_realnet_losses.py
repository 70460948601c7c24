"""RealNet's losses on batches of every kind: with defects and without, drawn and real, complete and not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from torchvision.tv_tensors import Image, Mask

from anomalib_synth.detectors.realnet.fitting import fit_selection
from anomalib_synth.models import RealNet

SMALL = {"feature_dims": (8, 8, 16), "residual_dims": (8, 8), "discriminator_width": 16}


@pytest.fixture
def model() -> RealNet:
    """A model of random weights that has its channels."""
    torch.manual_seed(0)
    model = RealNet(**SMALL, evaluator=False, visualizer=False).train()
    for level, kept in enumerate(SMALL["feature_dims"]):
        getattr(model.model.selector, f"index_{level}").copy_(torch.arange(kept))
    return model


def make_batch(*, defects: bool) -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(3, 3, 64, 64, generator=generator)
    image, mask = source.clone(), torch.zeros(3, 64, 64, dtype=torch.bool)
    if defects:
        mask[:2, 10:30, 20:40] = True
        image[:2, :, 10:30, 20:40] = 1 - image[:2, :, 10:30, 20:40]
    batch = ImageBatch(image=Image(image), gt_mask=Mask(mask), gt_label=mask.flatten(1).any(1))
    batch.source, batch.synthetic = Image(source), batch.gt_label.clone()
    return batch


def test_a_batch_without_anomalies_is_no_error(model) -> None:
    batch = make_batch(defects=False)
    bare = ImageBatch(image=batch.image, gt_label=batch.gt_label)
    for normal in (batch, bare):
        reconstruction, segmentation = model.sample_losses(normal)
        assert bool((reconstruction > 0).all())
        assert bool(segmentation.isfinite().all())


def test_reconstruction_aims_at_the_source(model) -> None:
    batch = make_batch(defects=True)
    with_source, _ = model.sample_losses(batch)
    batch.source = batch.image
    with_image, _ = model.sample_losses(batch)
    with_source, with_image = with_source.tolist(), with_image.tolist()
    assert with_source[0] != with_image[0]
    assert with_source[2] == with_image[2]


def test_real_defects_do_not_train_the_reconstruction(model) -> None:
    batch = make_batch(defects=True)
    batch.synthetic = torch.tensor([True, False, False])
    reconstruction, segmentation = model.sample_losses(batch)
    assert reconstruction[1].item() == 0
    assert reconstruction[0].item() > 0
    assert segmentation[1].item() > 0


def test_defects_without_a_source_or_a_mask_are_errors(model) -> None:
    batch = make_batch(defects=True)
    with pytest.raises(ValueError, match=r"RealNet reconstructs `batch.source`.*SynthesisCallback"):
        model.sample_losses(ImageBatch(image=batch.image, gt_mask=batch.gt_mask, gt_label=batch.gt_label))
    batch.gt_mask = None
    with pytest.raises(ValueError, match=r"RealNet needs `gt_mask`"):
        model.sample_losses(batch)


def test_the_segmentation_loss_is_the_one_chosen(model) -> None:
    batch = make_batch(defects=True)
    losses = {}
    for model.segmentation_loss in ("balanced", "focal", "cross_entropy"):
        torch.manual_seed(0)
        losses[model.segmentation_loss] = model.sample_losses(batch)[1].detach()
    model.segmentation_loss = "balanced"
    assert all(loss.shape == (3,) for loss in losses.values())
    assert not torch.allclose(losses["balanced"][:2], losses["cross_entropy"][:2])
    assert bool((losses["focal"] < losses["balanced"]).all())
    torch.testing.assert_close(losses["balanced"][2], losses["cross_entropy"][2])  # no defect, nothing to balance


def test_an_unknown_segmentation_loss_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"`segmentation_loss` must be one of balanced, focal, cross_entropy, got 'dice'"
    ):
        RealNet(segmentation_loss="dice")


def test_selection_training_and_prediction_all_see_averaged_features(model, monkeypatch) -> None:
    network, averaged, read = model.model, [], []
    extract = network.extract
    monkeypatch.setattr(network, "extract", lambda images: averaged.append(len(images)) or extract(images))
    network.backbone.register_forward_hook(lambda module, inputs, output: read.append(len(inputs[0])))
    batch, trainer = make_batch(defects=True), SimpleNamespace(world_size=1, is_global_zero=False)
    for use in (
        lambda: fit_selection(network, [batch], total=1, trainer=trainer),
        lambda: model.sample_losses(batch),
        lambda: network(batch.image),
    ):
        averaged.clear()
        read.clear()
        use()
        assert averaged
        assert averaged == read

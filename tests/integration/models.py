"""Anomalib's models, small enough for a test, and the data they train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import torchvision
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Draem, Dsr, Glass, Supersimplenet, UniNet
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize

import anomalib_synth  # noqa: F401  (registers the backbone)
from anomalib_synth.models import RealNet

if TYPE_CHECKING:
    from anomalib.models import AnomalibModule
    from lightning.pytorch import Callback

SIZE = 128  # the least that SuperSimpleNet trains with
BACKBONE = {"backbone": "efficientnet_lite0_bundled", "layers": ["blocks.2", "blocks.4"]}
QUIET = {"evaluator": False, "visualizer": False}


def resize_only() -> PreProcessor:
    """Pre-processor of DRAEM and DSR."""
    return PreProcessor(Compose([Resize((64, 64), antialias=True)]))


def normalising(size: int = SIZE) -> PreProcessor:
    """Pre-processor of all others."""
    return PreProcessor(Compose([Resize((size, size), antialias=True), Normalize([0.5] * 3, [0.5] * 3)]))


def make_draem(tmp_path: Path) -> Draem:
    """DRAEM; any existing folder keeps its constructor from downloading DTD."""
    return Draem(dtd_dir=tmp_path, pre_processor=resize_only(), **QUIET)


def make_dsr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dsr:
    """DSR in its second phase from the first epoch, with random weights in the format of the pretrained ones."""
    model = Dsr(upsampling_train_ratio=0.0, pre_processor=resize_only(), **QUIET)
    weights = tmp_path / "vq_model.pckl"
    torch.save(model.model.discrete_latent_model.state_dict(), weights)
    monkeypatch.setattr(Dsr, "prepare_pretrained_model", staticmethod(lambda: weights))
    return model


def make_glass() -> Glass:
    """GLASS with a narrow discriminator."""
    return Glass(
        input_shape=(64, 64), **BACKBONE, pretrain_embed_dim=16, target_embed_dim=16, discriminator_hidden=16,
        step=1, pre_processor=normalising(64), **QUIET,
    )  # fmt: skip


def make_supersimplenet(*, supervised: bool = True) -> Supersimplenet:
    """SuperSimpleNet."""
    return Supersimplenet(**BACKBONE, supervised=supervised, pre_processor=normalising(), **QUIET)


def make_uninet(monkeypatch: pytest.MonkeyPatch) -> UniNet:
    """UniNet with random teachers: its constructor asks torchvision for pretrained weights."""
    original = torchvision.models.wide_resnet50_2
    monkeypatch.setattr(torchvision.models, "wide_resnet50_2", lambda weights=None: original(weights=None))
    return UniNet(pre_processor=normalising(64), **QUIET)


def make_folder(root: Path, **options: object) -> Folder:
    """A folder of normals: a classification task, whose batches have no masks."""
    settings = {"val_split_mode": "from_train", "val_split_ratio": 0.2, "num_workers": 0, "seed": 0} | options
    return Folder(
        name="part", root=root, normal_dir="train/good", normal_test_dir="test/good", abnormal_dir="test/spot",
        train_batch_size=4, eval_batch_size=4, **settings,
    )  # fmt: skip


def make_engine(tmp_path: Path, callbacks: list[Callback], **options: object) -> Engine:
    """An engine for two training steps."""
    settings = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "logger": False} | options
    return Engine(
        callbacks=callbacks, default_root_dir=tmp_path, accelerator="cpu", devices=settings.pop("devices", 1),
        enable_progress_bar=False, num_sanity_val_steps=0, **settings,
    )  # fmt: skip


def fit(model: AnomalibModule, root: Path, tmp_path: Path, callbacks: list[Callback], **options: object) -> Engine:
    """Train two steps on the folder."""
    engine = make_engine(tmp_path, callbacks, **options)
    engine.fit(model, datamodule=make_folder(root))
    return engine


SMALL = {"feature_dims": (8, 8, 16), "residual_dims": (8, 8), "discriminator_width": 16, "selection_batches": 2}


def make_realnet(**options: object) -> RealNet:
    settings = {"evaluator": False, "visualizer": False, "pre_processor": normalising(64)} | SMALL | options
    return RealNet(**settings)

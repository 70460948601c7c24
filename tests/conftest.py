"""Shared fixtures: small folders of images, offline."""

from __future__ import annotations

import gc
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.contract import render_normals

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore Ctrl-C, and pass that on


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what was imported: it went through millions of objects again and again."""
    gc.collect()
    gc.freeze()


def save_images(folder: Path, images: torch.Tensor) -> None:
    """Write (B, 3, H, W) images in [0, 1] as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")


@pytest.fixture(scope="session")
def parts_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category in MVTec layout: root/part/{train/good, test/good, test/spot, ground_truth/spot}, 64 px."""
    root = tmp_path_factory.mktemp("parts") / "part"
    save_images(root / "train" / "good", render_normals(12, 3, 64, 64, seed=1))
    save_images(root / "test" / "good", render_normals(4, 3, 64, 64, seed=2))
    defects = render_normals(4, 3, 64, 64, seed=3)
    defects[:, :, 20:34, 24:40] = 0.05
    save_images(root / "test" / "spot", defects)
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[20:34, 24:40] = 255
    (root / "ground_truth" / "spot").mkdir(parents=True)
    for index in range(4):
        Image.fromarray(mask).save(root / "ground_truth" / "spot" / f"{index:03d}_mask.png")
    return root


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may reach a model hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

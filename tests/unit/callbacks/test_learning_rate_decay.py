"""The learning rate falls along half a cosine, whatever the optimisation, and resuming continues it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader

from anomalib_synth.callbacks import LearningRateDecayCallback

if TYPE_CHECKING:
    from pathlib import Path

BATCHES = 4


class Constant(BoringModel):
    """A model that trains at a constant rate and notes the rates it trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.rates += [optimizer.param_groups[0]["lr"] for optimizer in self.trainer.optimizers]
        return super().training_step(batch, batch_idx)["loss"]


class Manual(Constant):
    """Two optimisers, stepped by the model itself, as GLASS does."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(self.parameters(), lr=rate) for rate in (0.5, 0.25)]

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.manual_backward(super().training_step(batch, batch_idx))
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()


def fit(model: BoringModel, folder: Path, *, ckpt_path: Path | None = None, **limits: int) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[LearningRateDecayCallback(final_factor=0.1)], **limits,
    )  # fmt: skip
    loader = DataLoader(RandomDataset(32, BATCHES))
    trainer.fit(model, loader, ckpt_path=ckpt_path)
    return trainer


def cosine(step: int, steps: int) -> float:
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))


def test_rate_falls_along_a_cosine_when_epochs_end_the_run(tmp_path) -> None:
    model = Constant()
    fit(model, tmp_path, max_epochs=3)
    assert model.rates == pytest.approx([0.5 * cosine(step, 12) for step in range(12)])


def test_rate_follows_the_steps_when_they_end_the_run_first(tmp_path) -> None:
    model = Constant()
    fit(model, tmp_path, max_epochs=100, max_steps=6)
    assert model.rates == pytest.approx([0.5 * cosine(step, 6) for step in range(6)])


def test_each_optimizer_falls_from_its_own_rate_when_optimisation_is_manual(tmp_path) -> None:
    model = Manual()
    fit(model, tmp_path, max_epochs=2)
    assert model.rates == pytest.approx([rate * cosine(step, 8) for step in range(8) for rate in (0.5, 0.25)])


def test_resumed_run_continues_the_decay_when_it_stopped_half_way(tmp_path) -> None:
    model = Constant()
    fit(model, tmp_path, max_epochs=2)
    stopped = Constant()
    trainer = fit(stopped, tmp_path, max_epochs=1)
    checkpoint = tmp_path / "half.ckpt"
    trainer.save_checkpoint(checkpoint)
    resumed = Constant()
    fit(resumed, tmp_path, max_epochs=2, ckpt_path=checkpoint)
    assert resumed.rates == pytest.approx(model.rates[BATCHES:])


def test_a_model_with_a_schedule_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"BoringModel has a schedule of its own. Remove the callback"):
        fit(BoringModel(), tmp_path, max_epochs=1)


def test_a_run_without_an_end_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"this run has no known length. Set `trainer.max_epochs`"):
        fit(Constant(), tmp_path, max_epochs=-1)


@pytest.mark.parametrize("factor", [-0.1, 1.5, math.nan])
def test_factor_out_of_range_is_refused(factor) -> None:
    with pytest.raises(ValueError, match=r"`final_factor` must be in \[0, 1\], got"):
        LearningRateDecayCallback(final_factor=factor)

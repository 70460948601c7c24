"""Devices by their names."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.calibration.device import choose_device


def test_device_is_chosen_when_it_is_there(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [choose_device(name) for name in ("auto", "cpu", "gpu")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [choose_device(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]


@pytest.mark.parametrize(("name", "said"), [("cuda", "must be auto, cpu or gpu"), ("gpu", "but there is none")])
def test_device_is_refused_when_it_is_not_there(monkeypatch, name, said) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"`accelerator` .*{said}"):
        choose_device(name)
